"""A preempted job is back at its old place as soon as its slots are free, whatever its old driver still does; never two drivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from heliostat.control.patience import ENVIRONMENT_PATIENCE_MS, START_PATIENCE_MS, start_patience_ms
from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant

SLOW_END_MS = 6_000
"""Longer than the urgent job: under the old rule somebody younger would have started meanwhile."""


def preempted(plant: Plant, steps: int = 40) -> None:
    """An older and a younger Train job; the older one has just been preempted for a short command."""
    for name in ("older", "younger"):
        plant.submit(name, gpus=2, work=Script(steps=steps, stop_ms=SLOW_END_MS), priority=50)
    plant.until(lambda: len(plant.ray.executed) >= 7, "a checkpoint of the older job")
    plant.submit("urgent", gpus=2, work=Program(runs_ms=500), priority=150)
    plant.until(lambda: plant.state("older") == "queued", "the older job to be queued")


def test_a_preempted_job_is_queued_before_its_driver_is_gone_and_goes_first(plant: Plant) -> None:
    preempted(plant)
    assert plant.running()["older"] == 1
    plant.until(lambda: plant.state("urgent") == "succeeded", "the urgent job to succeed")
    plant.until(lambda: plant.state("older") in ("admitted", "starting"), "the older job to be granted", 300)
    assert plant.state("younger") == "queued"
    assert list(plant.ray.drivers) == ["older-a1"], "its next driver waits until the old one is gone"
    plant.until(lambda: plant.state("older") == "running", "the older job to run again", 10_000)
    for name in ("older", "younger"):
        plant.until(lambda name=name: plant.state(name) == "succeeded", f"{name} to succeed")  # type: ignore[misc]
    assert [job for job, _ in plant.ray.executed].index("younger") > plant.ray.executed.index(("older", 40))
    assert all(attempt.gone_ms is not None for attempt in plant.attempts("older"))
    assert Path(plant.attempts("older")[0].log_path).read_text() == "hello\n"
    plant.check_quiet()


def restart(plant: Plant) -> None:
    plant.restart_control()


def lose_dashboard(plant: Plant) -> None:
    plant.ray.down = True
    plant.advance(3_000)
    plant.ray.down = False


def lose_head(plant: Plant) -> None:
    plant.kill_head()
    plant.advance(3_000)
    plant.start_head()


@pytest.mark.parametrize("fault", [restart, lose_dashboard, lose_head, Plant.kill_bridge])
def test_what_is_left_of_a_driver_survives(plant: Plant, fault: Callable[[Plant], None]) -> None:
    preempted(plant)
    fault(plant)
    for name in ("older", "younger", "urgent"):
        plant.until(lambda name=name: plant.state(name) == "succeeded", f"{name} to succeed")  # type: ignore[misc]
    plant.advance(2_000)
    plant.check_quiet()
    assert not plant.loop.executor.leftovers.left


def test_a_driver_that_was_not_asked_to_end_is_asked_by_the_next_control_plane(plant: Plant) -> None:
    preempted(plant)
    plant.loop.executor.leftovers.left["older-a1"].poll_ms = plant.cluster.now_ms + 10**9
    driver = plant.ray.drivers["older-a1"]
    driver.script = Script(steps=40, stop_ms=100)
    plant.restart_control()
    plant.until(lambda: not driver.alive, "the old driver to end", 3_000)


def test_cancelled_while_its_old_driver_ends(plant: Plant) -> None:
    preempted(plant)
    plant.ask("cancel", "older")
    plant.advance(100)
    assert plant.state("older") == "cancelled"
    plant.until(lambda: plant.state("younger") == "succeeded", "the younger job to succeed")
    plant.until(lambda: not plant.loop.executor.leftovers.left, "the old driver to be gone")
    plant.check_quiet()


@pytest.mark.parametrize(
    ("runtime_env", "patience_ms"),
    [
        pytest.param({}, START_PATIENCE_MS, id="only a supervisor has to start"),
        pytest.param({"working_dir": "gcs://x.zip"}, START_PATIENCE_MS, id="a package is copied in seconds"),
        pytest.param({"pip": ["einops"]}, ENVIRONMENT_PATIENCE_MS, id="an installation takes as long as it takes"),
    ],
)
def test_how_long_a_driver_may_be_pending(runtime_env: dict[str, object], patience_ms: int) -> None:
    assert start_patience_ms(runtime_env) == patience_ms


def test_a_driver_that_never_starts_goes_back_to_the_queue(plant: Plant) -> None:
    plant.submit("stuck", work=Script(start_ms=10**9))
    plant.until(lambda: plant.state("stuck") == "starting", "the job to be starting")
    plant.advance(START_PATIENCE_MS + 1_000, 1_000)
    assert plant.attempts("stuck")[0].outcome == "start_failed:start_timeout"
