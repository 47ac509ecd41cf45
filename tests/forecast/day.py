"""A recorded day: the simulator's own drive with a seeded stream of jobs, with edits in the middle; and what a forecast may know of it.

The truth (`Day.run`) and the forecast share the lengths and arrivals, nothing else: the truth is one engine from midnight on, carried
out by `simulator.drive`; the forecast begins at a snapshot taken at noon.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from heliostat_scheduler.core.events import Event
from heliostat_scheduler.core.model import JobSpec, Policy, QueueSpec, TaskPlace, TaskShape
from heliostat_scheduler.forecast import Arrival
from heliostat_scheduler.simulator.drive import Drive, uniform_nodes

HOUR_MS = 3_600_000
QUEUES = (
    QueueSpec("research", quota=(("gpu", 8_000),)),
    QueueSpec("prod", quota=(("gpu", 6_000),), priority=150),
    QueueSpec("students", quota=(("gpu", 2_000),), limit=(("gpu", 10_000),)),
)
POLICY = Policy(name="day", rotate=False)


def stream(seed: int, count: int = 110, hours: int = 20) -> list[Arrival]:
    """Jobs of three queues, one to eight GPUs, a quarter of an hour to four hours."""
    rng = random.Random(seed)
    found = []
    for index in range(count):
        at_ms = rng.randrange(hours * HOUR_MS)
        gpus = rng.choice((1, 1, 1, 2, 2, 4, 8))
        spec = JobSpec(
            f"j{index:04d}", rng.choice(("research", "research", "prod", "students")), at_ms, TaskShape(1000), gpus, gpus,
            priority=rng.choice((50, 100, 100, 150)), restart_cost_ms=30_000, grace_ms=0, user=f"u{index % 5}",
        )  # fmt: skip
        found.append(Arrival(at_ms, spec, rng.randrange(HOUR_MS // 4, 4 * HOUR_MS)))
    return sorted(found, key=lambda arrival: (arrival.at_ms, arrival.spec.id))


@dataclass
class Day:
    """One engine, from midnight until everything is done. Times in milliseconds."""

    arrivals: Sequence[Arrival]
    policy: Policy = POLICY
    now_ms: int = 0
    left: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    heap: list[tuple[int, str]] = field(default_factory=list)
    starts: dict[str, list[int]] = field(default_factory=dict)
    evicted: list[tuple[int, str]] = field(default_factory=list)
    specs: dict[str, JobSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.drive = Drive(self, QUEUES, self.policy)
        for event in uniform_nodes(4, 4):
            self.drive.apply(event, 0)
        self.at = 0

    # -- executor

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        self.starts.setdefault(job_id, []).append(self.now_ms)
        self.ends[job_id] = self.now_ms + self.left[job_id]
        heapq.heappush(self.heap, (self.ends[job_id], job_id))

    def stopped(self, job_id: str) -> None:
        self.evicted.append((self.now_ms, job_id))
        self.left[job_id] = self.ends.pop(job_id) - self.now_ms + self.specs[job_id].restart_cost_ms

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        raise AssertionError("a rigid job was resized")

    # -- clock

    def run(self, until_ms: int) -> None:
        """Everything that happens up to and at `until_ms`."""
        while True:
            at_ms = self._next()
            if at_ms is None or at_ms > until_ms:
                self.now_ms = until_ms
                return
            self.now_ms = at_ms
            while self.heap and self.heap[0][0] <= at_ms:
                end_ms, job_id = heapq.heappop(self.heap)
                if self.ends.get(job_id) == end_ms:
                    del self.ends[job_id]
                    self.drive.finish(job_id, at_ms)
            while self.at < len(self.arrivals) and self.arrivals[self.at].at_ms <= at_ms:
                arrival = self.arrivals[self.at]
                self.at += 1
                self.submit(arrival.spec, arrival.runs_ms)
            self.drive.settle(at_ms)

    def submit(self, spec: JobSpec, runs_ms: int) -> None:
        self.left[spec.id], self.specs[spec.id] = runs_ms, spec
        self.drive.submit(spec, self.now_ms)

    def edit(self, events: Sequence[Event]) -> None:
        for event in events:
            self.drive.apply(event, self.now_ms)
        self.drive.settle(self.now_ms)

    def _next(self) -> int | None:
        while self.heap and self.ends.get(self.heap[0][1]) != self.heap[0][0]:
            heapq.heappop(self.heap)
        times = [self.heap[0][0]] if self.heap else []
        if self.at < len(self.arrivals):
            times.append(self.arrivals[self.at].at_ms)
        wakeup = self.drive.engine.next_wakeup_ms()
        if wakeup is not None and (self.ends or self.at < len(self.arrivals) or self.drive.engine.state.waiting.keys):
            times.append(max(wakeup, self.now_ms + 1))
        return min(times, default=None)

    # -- what a forecast knows at this moment

    def rest(self, spec: JobSpec, ran_ms: int) -> int:
        """The truth about lengths, in the form in which a forecast asks."""
        return self.ends[spec.id] - self.now_ms if spec.id in self.ends else self.left[spec.id]

    def coming(self) -> list[Arrival]:
        return list(self.arrivals[self.at :])

    def copy(self) -> Day:
        """The same day, to go on in another way."""
        twin = Day(self.arrivals, self.policy, self.now_ms, dict(self.left), dict(self.ends), list(self.heap),
                   {job: list(at) for job, at in self.starts.items()}, list(self.evicted), dict(self.specs))  # fmt: skip
        twin.drive.engine = self.drive.engine.fork()
        twin.drive._epochs = dict(self.drive._epochs)
        twin.at = self.at
        return twin


@cache
def _noon(seed: int) -> Day:
    day = Day(stream(seed))
    day.run(12 * HOUR_MS)
    return day


def at_noon(seed: int) -> Day:
    return _noon(seed).copy()


@cache
def evening(seed: int, until_ms: int) -> Day:
    """The day as it went on; not to be changed."""
    day = at_noon(seed)
    day.run(until_ms)
    return day


def new_job(rng: random.Random) -> tuple[JobSpec, int]:
    gpus = rng.choice((1, 2, 4, 8))
    spec = JobSpec("new", rng.choice(("research", "prod", "students")), 12 * HOUR_MS, TaskShape(1000), gpus, gpus,
                   priority=rng.choice((50, 100, 150)), restart_cost_ms=30_000, grace_ms=0)  # fmt: skip
    return spec, rng.randrange(HOUR_MS // 4, 4 * HOUR_MS)
