"""First pass of the study: the trace through the engine, writing down what an estimate may know, and snapshots of jobs that wait.

One folder per recording: `facts.jsonl` has the submissions, starts, stops and ends in their order, `<job>.z` the engine as it was when
everything at the moment of the job's submission was decided and the job still waited: of a seeded share of the jobs, of those of them
that then waited more than a minute. The engine runs with the shipped policy. It is told the learned rest of each job, as it is live,
or nothing (`ranked` false: an installation without the forecasting process).
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.forecast.lengths import uniform
from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.ranks import Ranks

FACTS = "facts.jsonl"
RECORDED = "recorded.json"
LEAST_WAIT_S = 60


@dataclass(frozen=True, slots=True)
class Recording:
    """How a folder was filled. share: of the jobs, those that may have a snapshot."""

    share: float
    ranked: bool


class Unranked(Ranks):
    """Tells the engine nothing."""

    def send(self, now_s: float) -> None:
        self._due, self._looks = {}, []


class Recorded(PhillyWorld):
    """PhillyWorld that keeps a snapshot for each job that waits."""

    def __init__(
        self, jobs: list[PhillyJob], nodes: dict[str, int], folder: Path, facts: TextIO, how: Recording, name: str
    ) -> None:
        super().__init__(jobs, nodes, name=name)
        if not how.ranked:
            self._ranks = Unranked(self.drive, RunHistory())
        self._share = how.share
        self._folder = folder
        self._facts = facts
        self._fresh: list[str] = []
        self._kept: dict[str, bytes] = {}
        self._begun: set[str] = set()
        self.waited = 0

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        super().started(job_id, places)
        if job_id in self._begun:
            self._note("resumed", job_id)
            return
        self._begun.add(job_id)
        self._note("started", job_id)
        body = self._kept.pop(job_id, None)
        if body is not None and self._now - self._live[job_id].job.submit_s > LEAST_WAIT_S:
            (self._folder / f"{job_id}.z").write_bytes(body)
            self.waited += 1

    def stopped(self, job_id: str) -> None:
        super().stopped(job_id)
        self._note("stopped", job_id)

    def _submit(self, job: PhillyJob) -> None:
        super()._submit(job)
        self._note("submitted", job.id)
        if uniform(0, job.id) < self._share:
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


def record(
    jobs: list[PhillyJob], nodes: dict[str, int], folder: Path, how: Recording, name: str = "eta, first pass"
) -> int:
    """Fills the folder; how many snapshots there are."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{FACTS}.part"
    with part.open("w", encoding="utf-8") as facts:
        world = Recorded(jobs, nodes, folder, facts, how, name)
        world.run()
    (folder / RECORDED).write_text(json.dumps(asdict(how)), encoding="utf-8")
    part.rename(folder / FACTS)
    return world.waited


def recorded(folder: Path) -> Recording | None:
    """How the folder was filled; None: it is not."""
    if not (folder / FACTS).is_file():
        return None
    return Recording(**json.loads((folder / RECORDED).read_text(encoding="utf-8")))


def facts_of(folder: Path) -> list[tuple[int, str, str]]:
    """(second, what, job), in their order."""
    lines = (folder / FACTS).read_text(encoding="utf-8").splitlines()
    return [(now_s, what, job_id) for now_s, what, job_id in map(json.loads, lines)]
