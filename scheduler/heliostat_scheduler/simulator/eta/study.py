"""Estimates given at submission, nothing learned later, against the start that followed; beside a naive estimate.

Each tenant is a cluster of its own (its nodes of P2), without rotation and without ranks: with lending between tenants and turns among
equals hardly any job of this trace waits a minute for its first start, and there is nothing to estimate. The engine never sees a
duration. A job that does not start at once, and whom a seeded draw picks, gets k possible futures: the engine's fork, lengths drawn from
the history (what finished and what its neighbours in order of arrival have run so far), and arrivals like those of the last day. The
correction learns only from estimates whose jobs have started by then. Naive: the quantiles of the waits of the last 100 jobs that
started in the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from heliostat_scheduler.core.model import JobSpec, Policy, TaskPlace
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.forecast import (
    Correction,
    Course,
    Estimate,
    Future,
    Grid,
    Lengths,
    Ran,
    estimates,
    like_before,
)
from heliostat_scheduler.forecast.eta import Scored, quantile
from heliostat_scheduler.forecast.lengths import uniform
from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.ranks import Ranks

DAY_MS = 24 * 3_600_000
HORIZON_MS = 2 * DAY_MS
GRID = Grid(15_000, 20)
POLICY = Policy(name="eta", rotate=False)
NAIVE_JOBS = 100
LEAST_WAIT_S = 60


@dataclass(frozen=True, slots=True)
class Told:
    """One estimate. naive, waited: (p50, p90) in milliseconds of the last jobs of the queue, of those among them that had to wait."""

    job: str
    at_s: int
    raw: Estimate
    told: Estimate
    naive: tuple[int, int]
    naive_waited: tuple[int, int]


class Unranked(Ranks):
    """Keeps the history and tells the engine nothing: the order is the order of submission, as it is live without estimates."""

    def send(self, now_s: float) -> None:
        self._due, self._looks = {}, []


@dataclass
class Study:
    """What the watched world keeps."""

    share: float
    samples: int
    from_s: int
    until_s: int
    told: list[Told] = field(default_factory=list)
    waited_s: dict[str, int] = field(default_factory=dict)
    correction: Correction = field(default_factory=Correction)
    open: dict[str, Told] = field(default_factory=dict)
    waits: dict[str, deque[int]] = field(default_factory=dict)
    finished: Lengths = field(default_factory=Lengths)
    past: deque[JobSpec] = field(default_factory=deque)


class WatchedPhilly(PhillyWorld):
    """PhillyWorld that forecasts for the jobs that the study draws."""

    def __init__(self, jobs: list[PhillyJob], nodes: dict[str, int], study: Study) -> None:
        super().__init__(jobs, nodes, POLICY, name="")
        self._ranks = Unranked(self.drive, RunHistory())
        self.study = study
        self._fresh: list[PhillyJob] = []
        self._specs: dict[str, JobSpec] = {}
        self._begun: set[str] = set()

    # -- what happens

    def started(self, job_id: str, places: tuple[TaskPlace, ...]) -> None:
        super().started(job_id, places)
        if job_id in self._begun:
            return
        self._begun.add(job_id)
        live = self._live[job_id]
        waited_s = self._now - live.job.submit_s
        self.study.waited_s[job_id] = waited_s
        self.study.waits.setdefault(live.job.vc, deque(maxlen=NAIVE_JOBS)).append(1000 * waited_s)
        told = self.study.open.pop(job_id, None)
        if told is not None:
            self.study.correction.learn(told.raw, 1000 * waited_s)

    def _submit(self, job: PhillyJob) -> None:
        if self._now > self.study.until_s:
            self.study.open.clear()
        super()._submit(job)
        spec = self.drive.engine.state.book.jobs[job.id].spec
        self._specs[job.id] = spec
        self.study.past.append(spec)
        while self.study.past[0].submitted_at_ms < 1000 * self._now - DAY_MS:
            self.study.past.popleft()
        if self.study.from_s <= job.submit_s <= self.study.until_s and uniform(0, job.id) < self.study.share:
            self._fresh.append(job)

    def _finish(self) -> None:
        before = len(self._done)
        super()._finish()
        for done in self._done[before:]:
            spec = self._specs.pop(done.id)
            gpus = spec.shape.gpu_milli * spec.min_tasks
            self.study.finished.add(Ran(spec.queue, "", gpus, round(1000 * done.duration_s)))

    def settled(self) -> None:
        """Called when everything is decided at this instant: those who still wait are told when they start."""
        fresh, self._fresh = self._fresh, []
        for job in fresh:
            if job.id not in self._begun:
                self._tell(job)

    def _tell(self, job: PhillyJob) -> None:
        (raw,) = estimates([self._future(job, seed) for seed in range(self.study.samples)], [job.id])
        waits = sorted(float(wait) for wait in self.study.waits.get(job.vc, ()))
        some = [wait for wait in waits if wait > 1000 * LEAST_WAIT_S]
        told = Told(job.id, self._now, raw, self.study.correction.correct(raw), _quantiles(waits), _quantiles(some))
        self.study.told.append(told)
        self.study.open[job.id] = told

    def _future(self, job: PhillyJob, seed: int) -> Course:
        now_s, now_ms = self._now, 1000 * self._now
        engine = self.drive.engine.fork()
        history: RunHistory = self._ranks.history
        known = sorted(self._live)
        left = history.draw_s(known, now_s, [uniform(1000 * now_s + seed, name) for name in known])
        rest = {name: max(1000, round(1000 * value)) for name, value in zip(known, left, strict=True)}
        draw = self.study.finished.draw(1000 * now_s + seed)
        coming = like_before(self.study.past, draw, now_ms, HORIZON_MS, 1000 * now_s + seed)
        future = Future(engine, now_ms, lambda spec, _ran: rest[spec.id], coming, grid=GRID)
        return future.run(now_ms + HORIZON_MS, frozenset({job.id}))


def _quantiles(waits: list[float]) -> tuple[int, int]:
    """p50 and p90 of sorted waits, 0 where there are none."""
    return (round(quantile(waits, 0.5)), round(quantile(waits, 0.9))) if waits else (0, 0)


def scored(studies: Iterable[Study]) -> dict[str, list[tuple[str, Scored]]]:
    """Estimates whose jobs waited more than a minute and have started: raw, told, naive, naive of those that waited; with their VC."""
    rows: dict[str, list[tuple[str, Scored]]] = {"raw": [], "told": [], "naive": [], "naive_waited": []}
    for waited, told in ((study.waited_s, told) for study in studies for told in study.told):
        waited_s = waited.get(told.job)
        if waited_s is None or waited_s <= LEAST_WAIT_S:
            continue
        queue = told.raw.queue
        pairs = {
            "raw": _pair(told.raw),
            "told": _pair(told.told),
            "naive": told.naive,
            "naive_waited": told.naive_waited,
        }
        for name, (p50, p90) in pairs.items():
            rows[name].append((queue, Scored(queue, 1000 * waited_s, p50, p90)))
    return rows


def _pair(estimate: Estimate) -> tuple[int, int]:
    p50 = HORIZON_MS if estimate.p50_ms is None else estimate.p50_ms
    return p50, HORIZON_MS if estimate.p90_ms is None else estimate.p90_ms
