"""Philly with our engine: one leaf queue per tenant, quota = its P2 nodes, weight 1, borrowing and reclaim on.

A preempted job pays 40 s of extra run time (60 s above eight GPUs), like the yardsticks. Decisions happen at arrivals and
completions, and when a running job's estimate is due; the engine never sees a duration.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from heliostat_scheduler.core.model import Policy, QueueSpec, TaskPlace
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.simulator.drive import Drive, rigid_job, uniform_nodes
from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE, PhillyJob
from heliostat_scheduler.simulator.philly.shortfall import Shortfall
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.ranks import Ranks
from heliostat_scheduler.simulator.results import Finished
from heliostat_scheduler.simulator.spans import Span


class _Live:
    """A job's true state."""

    __slots__ = ("end_s", "held", "job", "preemptions", "remaining_s", "running", "since_s")

    def __init__(self, job: PhillyJob) -> None:
        self.job = job
        self.remaining_s = job.duration_s
        self.end_s = 0
        self.since_s = 0
        self.held: tuple[tuple[int, int], ...] = ()
        self.preemptions = 0
        self.running = False


class PhillyWorld:
    """The executor and the clock. Times in whole seconds."""

    def __init__(
        self,
        jobs: list[PhillyJob],
        nodes: dict[str, int],
        policy: Policy | None = None,
        quota: dict[str, int] | None = None,
        pool: int | None = None,
        name: str = "philly",
    ) -> None:
        """`nodes` of each tenant make its quota and the pool, unless `quota` (GPUs) and `pool` (nodes) say otherwise.

        `name` stands before the progress bar; without one there is none.
        """
        self.quota = quota or {vc: count * GPUS_PER_NODE for vc, count in nodes.items()}
        queues = tuple(QueueSpec(vc, quota=(("gpu", 1000 * gpus),)) for vc, gpus in self.quota.items())
        self.drive = Drive(self, queues, policy)
        self._ranks = Ranks(self.drive, RunHistory())
        self.shortfall = Shortfall(self.quota)
        self._arrivals = jobs
        self._name = name
        self._live: dict[str, _Live] = {}
        self._ends: list[tuple[int, str]] = []
        self._now = 0
        self._done: list[Finished] = []
        self.spans: list[Span] = []
        for event in uniform_nodes(pool or sum(nodes.values()), GPUS_PER_NODE):
            self.drive.apply(event, 0)

    # -- executor

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        live = self._live[job_id]
        live.running, live.end_s, live.since_s = True, self._now + live.remaining_s, self._now
        live.held = _held(places)
        heapq.heappush(self._ends, (live.end_s, job_id))
        self.shortfall.used[live.job.vc] += live.job.gpus
        self._ranks.started(job_id, self._now)

    def stopped(self, job_id: str) -> None:
        live = self._live[job_id]
        live.running = False
        self._left(live)
        live.preemptions += 1
        live.remaining_s = live.end_s - self._now + live.job.overhead_s
        self.shortfall.used[live.job.vc] -= live.job.gpus
        self._ranks.stopped(job_id, self._now)

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        raise AssertionError("a rigid job was resized")

    # -- clock

    def run(self) -> list[Finished]:
        at = 0
        with Progress(self._name, len(self._arrivals), quiet=not self._name) as bar:
            while at < len(self._arrivals) or self._live:
                arrival = self._arrivals[at].submit_s if at < len(self._arrivals) else math.inf
                now = min(arrival, self._next_end())
                if now == math.inf:
                    raise RuntimeError("the engine left jobs waiting on an idle cluster")
                self.shortfall.until(now, self._waiting_gpus)
                self._now = int(now)
                self._finish()
                while at < len(self._arrivals) and self._arrivals[at].submit_s == now:
                    self._submit(self._arrivals[at])
                    at += 1
                self._ranks.send(now)
                self.drive.settle(1000 * self._now)
                self.settled()
                bar.at(len(self._done))
        return self._done

    def settled(self) -> None:
        """Everything is decided at this instant; for those who watch."""

    def _next_end(self) -> float:
        while self._ends:
            end_s, job_id = self._ends[0]
            live = self._live.get(job_id)
            if live is not None and live.running and live.end_s == end_s:
                return end_s
            heapq.heappop(self._ends)
        return math.inf

    def _submit(self, job: PhillyJob) -> None:
        self._live[job.id] = _Live(job)
        spec = rigid_job(job.id, job.vc, 1000 * job.submit_s, job.gpus, GPUS_PER_NODE, job.overhead_s)
        self.drive.submit(spec, 1000 * self._now)
        self._ranks.arrived(job.id, job.vc, job.gpus)

    def _finish(self) -> None:
        while self._next_end() <= self._now:
            live = self._live.pop(heapq.heappop(self._ends)[1])
            job = live.job
            self._left(live)
            self.shortfall.used[job.vc] -= job.gpus
            self._ranks.finished(job.id, self._now)
            self.drive.finish(job.id, 1000 * self._now)
            self._done.append(Finished(job.id, job.vc, job.submit_s, job.duration_s, self._now, live.preemptions))

    def _left(self, live: _Live) -> None:
        self.spans.append(Span(live.job.id, live.job.vc, live.since_s, self._now, live.held))

    def _waiting_gpus(self) -> dict[str, Iterable[int]]:
        """Per tenant, in the order in which the engine would serve them."""
        lines = self.drive.engine.state.waiting.lines
        return {vc: [self._live[key.job_id].job.gpus for key in line.order] for vc, line in lines.items()}


def _held(places: tuple[TaskPlace, ...]) -> tuple[tuple[int, int], ...]:
    """(node index, GPUs) pairs; nodes are named n00000, n00001, ..."""
    counts: dict[int, int] = {}
    for place in places:
        node = int(place.node[1:])
        counts[node] = counts.get(node, 0) + len(place.slots)
    return tuple(sorted(counts.items()))
