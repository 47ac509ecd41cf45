"""Muri's protocol with our engine: one queue that owns the cluster, decisions at arrivals and completions only.

The law of motion is the same as for the yardsticks: preemption is free to ask for, and each running job loses `overhead` seconds
of progress per interval between events. The engine is told GPU counts and learned estimates, never a duration.
"""

from __future__ import annotations

import math

from heliostat_scheduler.core.model import QueueSpec, TaskPlace
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.simulator.drive import Drive, rigid_job, uniform_nodes
from heliostat_scheduler.simulator.muri.data import GPUS_PER_NODE, NODES, MuriJob
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.ranks import Ranks
from heliostat_scheduler.simulator.results import Finished

QUEUE = "default"


class _Running:
    """A job's true state, which only the replay knows."""

    __slots__ = ("checked_s", "job", "preemptions", "remaining_s", "running")

    def __init__(self, job: MuriJob) -> None:
        self.job = job
        self.remaining_s = job.duration_s
        self.checked_s = 0.0
        self.running = False
        self.preemptions = 0


class MuriWorld:
    """The executor and the clock."""

    def __init__(self, jobs: list[MuriJob]) -> None:
        queue = QueueSpec(QUEUE, quota=(("gpu", 1000 * NODES * GPUS_PER_NODE),))
        self.drive = Drive(self, (queue,))
        self._ranks = Ranks(self.drive, RunHistory())
        self._arrivals = jobs
        self._live: dict[str, _Running] = {}
        self._now_s = 0.0
        self._done: list[Finished] = []
        for event in uniform_nodes(NODES, GPUS_PER_NODE):
            self.drive.apply(event, 0)

    # -- executor

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        live = self._live[job_id]
        live.running, live.checked_s = True, self._now_s
        self._ranks.started(job_id, self._now_s)

    def stopped(self, job_id: str) -> None:
        live = self._live[job_id]
        live.running = False
        live.preemptions += 1
        self._ranks.stopped(job_id, self._now_s)

    def resized(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        raise AssertionError("a rigid job was resized")

    # -- clock

    def run(self) -> list[Finished]:
        at, ends = 0, math.inf
        with Progress("muri", len(self._arrivals)) as bar:
            while at < len(self._arrivals) or self._live:
                arrival = self._arrivals[at].submit_s if at < len(self._arrivals) else math.inf
                now = self._now_s = min(arrival, ends)
                if now == math.inf:
                    raise RuntimeError("the engine left jobs waiting on an idle cluster")
                if now == ends:
                    self._finish(now)
                self._advance(now)
                while at < len(self._arrivals) and self._arrivals[at].submit_s == now:
                    self._submit(self._arrivals[at])
                    at += 1
                self._ranks.everybody()
                self._ranks.send(now)
                self.drive.settle(_ms(now))
                ends = min((now + x.remaining_s for x in self._live.values() if x.running), default=math.inf)
                bar.at(len(self._done))
        return self._done

    def _submit(self, job: MuriJob) -> None:
        self._live[job.id] = _Running(job)
        spec = rigid_job(job.id, QUEUE, _ms(job.submit_s), job.gpus, GPUS_PER_NODE, job.overhead_s)
        self.drive.submit(spec, _ms(job.submit_s))
        self._ranks.arrived(job.id, QUEUE, job.gpus)

    def _finish(self, now: float) -> None:
        for live in [x for x in self._live.values() if x.running and x.checked_s + x.remaining_s == now]:
            job = live.job
            del self._live[job.id]
            self._ranks.finished(job.id, now)
            self.drive.finish(job.id, _ms(now))
            self._done.append(Finished(job.id, QUEUE, job.submit_s, job.duration_s, now, live.preemptions))

    def _advance(self, now: float) -> None:
        for live in self._live.values():
            if live.running:
                live.remaining_s -= max(now - live.checked_s - live.job.overhead_s, 0.0)
                live.checked_s = now


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
