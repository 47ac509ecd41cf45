"""The fake Jobs API keeps the promises that the real one keeps."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from heliostat_scheduler.live.fake_cluster import FakeCluster

from tests.contracts.ray_jobs_conformance import RayJobsConformance
from tests.platform.control.fake_ray import FakeRayJobs, Script


class FakeWorld:
    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.jobs = FakeRayJobs(self.cluster)
        self._names = itertools.count(1)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(100):
            if condition():
                return
            self.cluster.advance(100)
        raise AssertionError(f"waited 10 s for {what}")

    def fresh(self) -> str:
        return f"job{next(self._names)}"

    def quick(self, job: str) -> str:
        return self._script(job, Script())

    def failing(self, job: str) -> str:
        return self._script(job, Script(exit_code=3))

    def endless(self, job: str) -> str:
        return self._script(job, Script(runs_ms=None))

    def _script(self, job: str, script: Script) -> str:
        self.jobs.scripts[job] = script
        return "python train.py"


class TestFakeRayJobs(RayJobsConformance):
    @pytest.fixture
    def world(self) -> FakeWorld:
        return FakeWorld()
