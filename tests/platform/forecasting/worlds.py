"""A short life with everything that a log should hold: a start, a preemption, a resume, ends, and somebody who waits."""

from __future__ import annotations

from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant


def live(plant: Plant) -> None:
    """`train` runs on both GPUs, gives one up to `urgent`, resumes, ends; `late` waits for GPUs that `long` holds."""
    plant.submit("train", gpus=2, work=Script(steps=20), priority=50)
    plant.advance(1_500)
    plant.submit("urgent", gpus=1, work=Program(runs_ms=500), priority=150)
    for job in ("urgent", "train"):
        plant.until(lambda job=job: plant.state(job) == "succeeded", f"{job} to succeed")  # type: ignore[misc]
    plant.submit("long", gpus=2, work=Program(runs_ms=3_600_000))
    plant.until(lambda: plant.state("long") == "running", "long to run")
    plant.submit("late", gpus=1, work=Program(runs_ms=500))
    plant.advance(500)
