"""A job's life through the control plane, without faults."""

from __future__ import annotations

from pathlib import Path

from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant


def test_a_command_runs_in_its_slot_and_succeeds(plant: Plant) -> None:
    plant.submit("c1", work=Program(runs_ms=500))
    plant.until(lambda: plant.state("c1") == "succeeded", "c1 to succeed")
    assert plant.states("c1") == ["admitted", "starting", "running", "succeeded"]
    job = plant.job("c1")
    assert (job.exit_code, job.attempts) == (0, 1)
    assert job.gpu_ms_held >= 500
    plant.check_quiet()


def test_a_driver_runs_and_succeeds_with_its_log(plant: Plant) -> None:
    plant.submit("r1", work=Script(runs_ms=700))
    plant.until(lambda: plant.state("r1") == "succeeded", "r1 to succeed")
    assert plant.states("r1") == ["admitted", "starting", "running", "succeeded"]
    assert Path(plant.attempts("r1")[0].log_path).read_text() == "hello\n"
    plant.check_quiet()
