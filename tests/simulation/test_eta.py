"""The study of estimates on a small trace: jobs that wait get one, and the scores add up."""

from __future__ import annotations

import random
from argparse import Namespace
from pathlib import Path

from heliostat_scheduler.forecast.eta import Scored
from heliostat_scheduler.simulator.eta.command import difference, run


def trace(folder: Path, jobs: int = 90, seed: int = 2) -> Namespace:
    """Two tenants with a node each, overloaded in bursts."""
    rng = random.Random(seed)
    vcs, rows = folder / "vcs.csv", folder / "jobs.csv"
    vcs.write_text("vc,nodes_P2\na,1\nb,1\n")
    at, lines = 0, ["job_id,vc,submit_s,duration_s,num_gpus"]
    for index in range(jobs):
        at += rng.choice((30, 60, 600))
        lines.append(
            f"j{index},{rng.choice('ab')},{at},{int(rng.lognormvariate(7.5, 1))},{rng.choice((1, 1, 2, 4, 8))}"
        )
    rows.write_text("\n".join(lines) + "\n")
    return Namespace(trace=rows, vcs=vcs, warm_days=0.04, days=2.0, share=0.5, samples=3)


def test_jobs_that_wait_are_told_when_they_start(tmp_path: Path) -> None:
    told = run(trace(tmp_path))
    ours, naive = told["told"], told["naive"]
    assert isinstance(ours, dict) and isinstance(naive, dict)
    assert ours["jobs"] == naive["jobs"] > 10
    assert set(told["per_vc"]) == {"a", "b"}  # type: ignore[call-overload]
    assert ours["pinball_s"] < naive["pinball_s"]


def test_the_interval_of_a_difference() -> None:
    ours = [Scored("q", 1_000 * index, 1_000 * index, 1_000 * index) for index in range(1, 50)]
    naive = [Scored("q", 1_000 * index, 0, 0) for index in range(1, 50)]
    found = difference(ours, naive)
    low, high = found["interval_s"]  # type: ignore[misc]
    assert low < found["mean_s"] < high < 0 and found["gain"] == 1.0  # type: ignore[operator]
