"""`python -m heliostat_scheduler.simulator eta`: the study on a trace, as one JSON object."""

from __future__ import annotations

import argparse
import time

import numpy as np

from heliostat_scheduler.forecast.eta import Scored, loss_ms, summary
from heliostat_scheduler.simulator.eta.study import Study, WatchedPhilly, scored
from heliostat_scheduler.simulator.philly import data
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.tables import BadInput

RESAMPLES = 2_000
DAY_S = 86_400
FEW = 10


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Keys: told (as shown to users), raw (before the correction), naive, and the difference with its 95 % bootstrap interval."""
    vcs = data.load_vcs(arguments.vcs)
    jobs = data.load_jobs(arguments.trace, vcs)
    first_s = jobs[0].submit_s
    from_s, until_s = (
        first_s + int(arguments.warm_days * DAY_S),
        first_s + int((arguments.warm_days + arguments.days) * DAY_S),
    )
    jobs = [job for job in jobs if job.submit_s <= until_s]
    if not any(job.submit_s >= from_s for job in jobs):
        raise BadInput("no job is submitted after the warm-up; use fewer --warm-days")
    began, studies = time.monotonic(), []
    with Progress("eta", len(jobs)) as bar:
        for vc, nodes in vcs.items():
            mine = [job for job in jobs if job.vc == vc and job.gpus <= data.GPUS_PER_NODE * nodes]
            study = Study(arguments.share, arguments.samples, from_s, until_s)
            WatchedPhilly(mine, {vc: nodes}, study).run()
            studies.append(study)
            bar.at(sum(len(study.waited_s) for study in studies))
    rows = scored(studies)
    if not rows["told"]:
        raise BadInput("no job that was drawn had to wait; use a larger --share")
    told, naive = [row for _, row in rows["told"]], [row for _, row in rows["naive"]]
    return {
        "suite": "eta", "trace": arguments.trace.name, "warm_days": arguments.warm_days, "days": arguments.days,
        "share": arguments.share, "samples": arguments.samples, "estimates": sum(len(study.told) for study in studies),
        **{name: summary([row for _, row in found]) for name, found in rows.items()},
        "against_naive": difference(told, naive),
        "against_naive_of_those_that_waited": difference(told, [row for _, row in rows["naive_waited"]]),
        "per_vc": _per_vc(rows["told"], rows["naive"]),
        "wall_s": round(time.monotonic() - began, 1),
    }  # fmt: skip


def difference(told: list[Scored], naive: list[Scored], seed: int = 0) -> dict[str, float | list[float]]:
    """Mean pinball loss told - naive in seconds (negative: better), its 95 % bootstrap interval over jobs, and the relative gain."""
    ours, theirs = np.array([loss_ms(row) for row in told]), np.array([loss_ms(row) for row in naive])
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    means = (ours - theirs)[picks].mean(axis=1) / 1000
    low, high = np.percentile(means, [2.5, 97.5])
    gain = 1 - ours.sum() / theirs.sum() if theirs.sum() else 0.0
    return {
        "mean_s": round(float((ours - theirs).mean()) / 1000, 2),
        "interval_s": [round(float(low), 2), round(float(high), 2)],
        "gain": round(float(gain), 4),
    }


def _per_vc(told: list[tuple[str, Scored]], naive: list[tuple[str, Scored]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for vc in sorted({queue for queue, _ in told}):
        mine, theirs = [row for queue, row in told if queue == vc], [row for queue, row in naive if queue == vc]
        known = summary(mine)
        found[vc] = {**known, **difference(mine, theirs)} if len(mine) >= FEW else dict(known)
    return found
