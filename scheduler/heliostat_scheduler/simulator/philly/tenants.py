"""The delay criterion per tenant: with sharing, nobody may wait longer than alone on its own nodes."""

from __future__ import annotations

import csv
from pathlib import Path

from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.results import Finished

SLACK_S = 60.0
STATIC_POLICIES = ("fifo", "tiresias")


def delays(done: list[Finished]) -> dict[str, float]:
    """Mean of (finish - submit - duration) per tenant."""
    by_vc: dict[str, list[float]] = {}
    for job in done:
        by_vc.setdefault(job.queue, []).append(job.jct_s - job.duration_s)
    return {vc: sum(values) / len(values) for vc, values in by_vc.items()}


def static_heliostat(jobs: list[PhillyJob], vcs: dict[str, int]) -> dict[str, float]:
    """Each tenant alone on its own nodes under our policy."""
    alone = {}
    for vc, nodes in vcs.items():
        mine = [job for job in jobs if job.vc == vc and job.gpus <= 8 * nodes]
        alone.update(delays(PhillyWorld(mine, {vc: nodes}).run()) if mine else {})
    return alone


def measured_static(path: Path, done: list[Finished]) -> dict[str, float]:
    """The better of measured FIFO and Tiresias per tenant on its own nodes: their average completion minus the mean duration."""
    if not path.is_file():
        return {}
    durations: dict[str, list[float]] = {}
    for job in done:
        durations.setdefault(job.queue, []).append(job.duration_s)
    best: dict[str, float] = {}
    with path.open() as handle:
        for row in csv.DictReader(handle):
            vc = row["vc"]
            if (
                row["window"] == "dev"
                and row["cluster"] == "P2"
                and row["policy"] in STATIC_POLICIES
                and vc in durations
            ):
                delay = float(row["avg_jct_s"]) - sum(durations[vc]) / len(durations[vc])
                best[vc] = min(best.get(vc, delay), delay)
    return best


def per_vc(
    done: list[Finished], alone: dict[str, float] | None, baselines: Path | None = None
) -> dict[str, dict[str, object]]:
    """jobs, delay_s and, with references, static_delay_s and pass, by tenant."""
    counts: dict[str, int] = {}
    for job in done:
        counts[job.queue] = counts.get(job.queue, 0) + 1
    measured = measured_static(baselines, done) if baselines is not None else {}
    table: dict[str, dict[str, object]] = {}
    for vc, delay in sorted(delays(done).items()):
        row: dict[str, object] = {"jobs": counts[vc], "delay_s": round(delay, 1)}
        if alone is not None:
            static = min(value for value in (alone.get(vc), measured.get(vc), float("inf")) if value is not None)
            row |= {"static_delay_s": round(static, 1), "pass": delay <= static + SLACK_S}
        table[vc] = row
    return table
