"""What every implementation of the RayJobs port does; the fake of the unit tests and the client of a real dashboard pass it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import pytest
from heliostat.control.hands import Submission
from heliostat.control.messages import DriverInfo
from heliostat.control.ray_jobs import RayJobs, RayRefused, RayUnreachable
from heliostat_scheduler.live.protocol import ENV_ATTEMPT, ENV_JOB, ENV_SECRET


class RayJobsWorld(Protocol):
    """jobs: the implementation. `wait` lets time pass until the condition holds. `fresh` is an id that was never used."""

    jobs: RayJobs

    def wait(self, condition: Callable[[], bool], what: str) -> None: ...

    def fresh(self) -> str: ...

    def quick(self, job: str) -> str:
        """An entrypoint that prints `hello` and ends with 0."""
        ...

    def failing(self, job: str) -> str:
        """An entrypoint that ends with exit code 3."""
        ...

    def endless(self, job: str) -> str:
        """An entrypoint that runs until it is stopped."""
        ...


def submission(job: str, entrypoint: str) -> Submission:
    env = {ENV_JOB: job, ENV_ATTEMPT: "1", ENV_SECRET: "s"}
    return Submission(f"{job}-a1", entrypoint, {"env_vars": env}, {"queue": "default"}, 0.0)


class RayJobsConformance:
    """Subclasses provide the fixture `world`."""

    @pytest.fixture
    def world(self) -> RayJobsWorld:
        raise NotImplementedError

    def test_an_unknown_submission_has_no_info_no_log_and_can_be_stopped_and_deleted(self, world: RayJobsWorld) -> None:
        unknown = f"{world.fresh()}-a1"
        world.jobs.stop(unknown)
        world.jobs.delete(unknown)
        assert (world.jobs.info(unknown), world.jobs.logs(unknown)) == (None, "")

    def test_a_driver_that_ends_well_succeeded_with_its_log(self, world: RayJobsWorld) -> None:
        job = world.fresh()
        world.jobs.submit(submission(job, world.quick(job)))
        info = _ended(world, job)
        assert (info.status, info.exit_code) == ("SUCCEEDED", 0)
        assert "hello" in world.jobs.logs(f"{job}-a1")

    def test_a_driver_that_fails_tells_its_exit_code(self, world: RayJobsWorld) -> None:
        job = world.fresh()
        world.jobs.submit(submission(job, world.failing(job)))
        info = _ended(world, job)
        assert (info.status, info.exit_code) == ("FAILED", 3)

    def test_the_same_submission_again_is_no_second_driver(self, world: RayJobsWorld) -> None:
        job = world.fresh()
        once = submission(job, world.quick(job))
        world.jobs.submit(once)
        world.jobs.submit(once)
        _ended(world, job)
        assert world.jobs.logs(f"{job}-a1").count("hello") == 1

    def test_a_running_driver_is_stopped_then_deleted(self, world: RayJobsWorld) -> None:
        job = world.fresh()
        world.jobs.submit(submission(job, world.endless(job)))
        world.wait(lambda: _status(world, job) == "RUNNING", "the driver to run")
        with pytest.raises(RayUnreachable):
            world.jobs.delete(f"{job}-a1")
        world.jobs.stop(f"{job}-a1")
        assert _ended(world, job).status == "STOPPED"
        world.jobs.delete(f"{job}-a1")
        assert world.jobs.info(f"{job}-a1") is None

    def test_what_can_never_run_is_refused(self, world: RayJobsWorld) -> None:
        job = world.fresh()
        wrong = replace(submission(job, world.quick(job)), metadata={"queue": 1})  # type: ignore[dict-item]
        with pytest.raises(RayRefused):
            world.jobs.submit(wrong)  # Ray wants strings
        assert world.jobs.info(f"{job}-a1") is None


def _status(world: RayJobsWorld, job: str) -> str:
    info = world.jobs.info(f"{job}-a1")
    return "" if info is None else info.status


def _ended(world: RayJobsWorld, job: str) -> DriverInfo:
    world.wait(lambda: (i := world.jobs.info(f"{job}-a1")) is not None and i.ended, "the driver to end")
    info = world.jobs.info(f"{job}-a1")
    assert info is not None
    return info
