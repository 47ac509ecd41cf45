"""First pass of the study: the trace through the engine, writing down what an estimate may know, and a snapshot for each job that waits.

One folder per recording: `facts.jsonl` has the submissions, first starts and ends in their order, `<job>.z` the engine as it was when
everything at the moment of the job's submission was decided and the job still waited. Only jobs that then waited more than a minute keep
theirs. The engine runs with the shipped policy and is told nothing about run times, as it is live.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TextIO

from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.ranks import Ranks

FACTS = "facts.jsonl"
LEAST_WAIT_S = 60


class Unranked(Ranks):
    """Tells the engine nothing."""

    def send(self, now_s: float) -> None:
        self._due, self._looks = {}, []


class Recorded(PhillyWorld):
    """PhillyWorld that keeps a snapshot for each job that waits."""

    def __init__(self, jobs: list[PhillyJob], nodes: dict[str, int], folder: Path, facts: TextIO, name: str) -> None:
        super().__init__(jobs, nodes, name=name)
        self._ranks = Unranked(self.drive, RunHistory())
        self._folder = folder
        self._facts = facts
        self._fresh: list[str] = []
        self._kept: dict[str, bytes] = {}
        self._begun: set[str] = set()
        self.waited = 0

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        super().started(job_id, places)
        if job_id in self._begun:
            return
        self._begun.add(job_id)
        self._note("started", job_id)
        body = self._kept.pop(job_id, None)
        if body is not None and self._now - self._live[job_id].job.submit_s > LEAST_WAIT_S:
            (self._folder / f"{job_id}.z").write_bytes(body)
            self.waited += 1

    def _submit(self, job: PhillyJob) -> None:
        super()._submit(job)
        self._note("submitted", job.id)
        self._fresh.append(job.id)

    def _finish(self) -> None:
        before = len(self._done)
        super()._finish()
        for done in self._done[before:]:
            self._note("finished", done.id)

    def settled(self) -> None:
        """Everything is decided at this instant: those who still wait could be told now when they start."""
        waiting = [job_id for job_id in self._fresh if job_id not in self._begun]
        self._fresh = []
        if waiting:
            body = zlib.compress(self.drive.engine.snapshot(), 1)
            for job_id in waiting:
                self._kept[job_id] = body
                self._note("waits", job_id)

    def _note(self, what: str, job_id: str) -> None:
        self._facts.write(json.dumps([self._now, what, job_id]) + "\n")


def record(jobs: list[PhillyJob], nodes: dict[str, int], folder: Path, name: str = "eta, first pass") -> int:
    """Fills the folder; how many jobs waited more than a minute."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FACTS}.part"
    with part.open("w", encoding="utf-8") as facts:
        world = Recorded(jobs, nodes, folder, facts, name)
        world.run()
    part.rename(folder / FACTS)
    return world.waited
