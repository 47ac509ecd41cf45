"""The public load generators of two other schedulers, replayed on virtual time.

Kueue's baseline: 5 cohorts x 6 queues x 500 workloads of 1, 5 and 20 units, classes 50, 100, 200, runtimes 0.2, 0.5 and 1.0 s,
created every 100, 500 and 1,200 ms; quota 20 units a queue, 100 more may be borrowed. The work-conserving bound is 66 s. An
evicted workload starts over. KAI's fill: 4,000 one-GPU jobs at once on 500 nodes of 8. Their published numbers (351 s, 397 s)
go through the Kubernetes API, ours do not.
"""

from __future__ import annotations

import heapq

from heliostat_scheduler.core.events import NodeUp
from heliostat_scheduler.core.model import CPU, JobSpec, NodeSpec, QueueSpec, TaskPlace, TaskShape
from heliostat_scheduler.simulator.drive import Drive, rigid_job, uniform_nodes
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.results import Stopwatch

COHORTS, QUEUES = 5, 6
QUOTA, BORROW = 20, 100
BOUND_S = 66.0
CLASSES = ((350, 100, 1, 50, 200), (100, 500, 5, 100, 500), (50, 1200, 20, 200, 1000))
"""(workloads per queue, created every ms, units, priority, run time ms)."""
KAI_NODES, KAI_GPUS, KAI_JOBS = 500, 8, 4000


class _Kueue:
    """Executor and clock of the Kueue generator; times in milliseconds."""

    def __init__(self) -> None:
        units = COHORTS * QUEUES * QUOTA
        queues = []
        for cohort in range(COHORTS):
            queues.append(
                QueueSpec(
                    f"cohort-{cohort}", quota=((CPU, 1000 * QUOTA * QUEUES),), limit=((CPU, 1000 * QUOTA * QUEUES),)
                )
            )
            for index in range(QUEUES):
                limit = ((CPU, 1000 * (QUOTA + BORROW)),)
                queues.append(QueueSpec(f"c{cohort}-q{index}", f"cohort-{cohort}", ((CPU, 1000 * QUOTA),), limit))
        self.drive = Drive(self, tuple(queues))
        self.drive.apply(NodeUp(NodeSpec("pool", "cpu", (), 1000 * units)), 0)
        self._arrivals = sorted(self._jobs(), key=lambda item: (item[0].submitted_at_ms, item[0].id))
        self._length = {spec.id: length for spec, length in self._arrivals}
        self._ends: list[tuple[int, int, str]] = []
        self._run: dict[str, int] = {}
        self._runs = 0
        self.now = self.admitted = self.finished = self.evicted = 0

    @staticmethod
    def _jobs() -> list[tuple[JobSpec, int]]:
        jobs = []
        for cohort in range(COHORTS):
            for index in range(QUEUES):
                queue = f"c{cohort}-q{index}"
                for count, every, units, priority, length in CLASSES:
                    shape = TaskShape(0, 1000 * units)
                    for i in range(count):
                        name = f"{queue}-{units:02d}-{i:03d}"
                        jobs.append((JobSpec(name, queue, i * every, shape, priority=priority, grace_ms=0), length))
        return jobs

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        self._runs += 1
        self.admitted += 1
        self._run[job_id] = self._runs
        heapq.heappush(self._ends, (self.now + self._length[job_id], self._runs, job_id))

    def stopped(self, job_id: str) -> None:
        del self._run[job_id]
        self.evicted += 1

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        raise AssertionError("a rigid job was resized")

    def run(self) -> None:
        at = 0
        with Progress("kueue-baseline", len(self._arrivals)) as bar:
            while self.finished < len(self._arrivals):
                times = [self._ends[0][0]] if self._ends else []
                if at < len(self._arrivals):
                    times.append(self._arrivals[at][0].submitted_at_ms)
                self.now = min(times)
                while self._ends and self._ends[0][0] == self.now:
                    _, run, job_id = heapq.heappop(self._ends)
                    if self._run.get(job_id) == run:
                        del self._run[job_id]
                        self.finished += 1
                        self.drive.finish(job_id, self.now)
                while at < len(self._arrivals) and self._arrivals[at][0].submitted_at_ms == self.now:
                    self.drive.submit(self._arrivals[at][0], self.now)
                    at += 1
                self.drive.settle(self.now)
                bar.at(self.finished)


def kueue() -> dict[str, object]:
    """The keys of `bench kueue-baseline`."""
    watch = Stopwatch()
    world = _Kueue()
    world.run()
    drive = world.drive
    return {
        "suite": "kueue-baseline", "policy": "heliostat", "policy_digest": drive.policy_digest, "trace": "generator",
        "jobs": world.finished, "makespan_s": world.now / 1000, "bound_s": BOUND_S, "preemptions": world.evicted,
        "admissions": world.admitted, "engine_s": round(drive.engine_s, 3),
        "admissions_per_s": round(world.admitted / drive.engine_s, 1), **watch.read(),
    }  # fmt: skip


class _Fill:
    """Counts starts."""

    def __init__(self) -> None:
        self.count = 0

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        self.count += 1

    def stopped(self, job_id: str) -> None:
        raise AssertionError("a job of the fill was stopped")

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        raise AssertionError("a rigid job was resized")


def kai() -> dict[str, object]:
    """The keys of `bench kai-fill`."""
    watch = Stopwatch()
    fill = _Fill()
    drive = Drive(fill, (QueueSpec("default", quota=(("gpu", 1000 * KAI_NODES * KAI_GPUS),)),))
    for event in uniform_nodes(KAI_NODES, KAI_GPUS):
        drive.apply(event, 0)
    for i in range(KAI_JOBS):
        drive.submit(rigid_job(f"job-{i:05d}", "default", 0, 1, KAI_GPUS, 0), 0)
    drive.settle(0)
    return {
        "suite": "kai-fill", "policy": "heliostat", "policy_digest": drive.policy_digest, "trace": "generator",
        "jobs": KAI_JOBS, "admitted": fill.count, "engine_s": round(drive.engine_s, 3),
        **watch.read(),
    }  # fmt: skip
