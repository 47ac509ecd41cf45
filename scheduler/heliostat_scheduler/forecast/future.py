"""One possible future: the engine that decides live, run forward on virtual time until a horizon.

The engine is given (a fork or a restored snapshot; it is used up), and so is everything that it does not decide: how long each job
still runs (`rest`), and who arrives. Orders are carried out at once, as in the simulator: a preempted job is back in its queue with
its restart cost on top. Decisions happen at arrivals, at ends, and when the engine asks to be woken. A `Grid` puts them together in
steps that grow with the distance, which is what makes a day ahead affordable at ten thousand waiting jobs; without one (step 0)
the future is exact: the simulator, given the same lengths and arrivals, does the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from heliostat_scheduler.core.book import HOLDING, JobRec, Phase
from heliostat_scheduler.core.decisions import Decision, Discarded, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import (
    Event,
    IllegalEvent,
    JobFinished,
    JobRequeued,
    JobResized,
    JobStarted,
    JobSubmitted,
)
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.forecast.turns import RUNS, Turns

if TYPE_CHECKING:
    from heliostat_scheduler.estimate.expectation import Expectations

ROUNDS_AT_ONCE = 100
ROUNDS_IN_A_STEP = 2
"""With a grid: once to decide, once for those whose places have become free; the rest comes with the next step."""
Rest = Callable[[JobSpec, int], int]
"""(job, milliseconds it has run) -> milliseconds it still runs at its smallest size."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that will be submitted, and how long it will run."""

    at_ms: int
    spec: JobSpec
    runs_ms: int


@dataclass(frozen=True, slots=True)
class Grid:
    """Steps between decisions: `first_ms` long at first, then `share` (thousandths) of the distance from now. 0, 0: exact."""

    first_ms: int = 0
    share_milli: int = 0

    def next_ms(self, start_ms: int, at_ms: int, event_ms: int) -> int:
        """When the cycle happens that sees an event at `event_ms`, given that the last one was at `at_ms`."""
        if not self.first_ms:
            return event_ms
        return max(event_ms, at_ms + max(self.first_ms, (at_ms - start_ms) * self.share_milli // 1000))


@dataclass(frozen=True, slots=True)
class Eviction:
    """Running work that lost its places."""

    job_id: str
    at_ms: int
    code: str
    beneficiary: str


@dataclass(slots=True)
class Course:
    """What happened until `until_ms`. starts: of each job its next start (one that runs at the beginning has none)."""

    from_ms: int
    until_ms: int
    starts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    evictions: list[Eviction] = field(default_factory=list)
    queue_of: dict[str, str] = field(default_factory=dict)
    gpu_milli_of: dict[str, int] = field(default_factory=dict)
    node_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unsettled: bool = False


@dataclass(slots=True)
class _Run:
    """A job that runs: what is left at its present speed."""

    epoch: int
    end_ms: int
    tasks: int


class Future:
    """Used once: `run`, then read `course`."""

    def __init__(
        self,
        engine: Engine,
        now_ms: int,
        rest: Rest,
        arrivals: Sequence[Arrival] = (),
        *,
        grid: Grid = Grid(),
        expected: Expectations | None = None,
    ) -> None:
        """expected: what is known of the live jobs, how long they have run before they were last stopped among it; it stays as it is."""
        self.engine = engine
        self.now_ms = now_ms
        self.course = Course(now_ms, now_ms)
        self._start_ms = now_ms
        self._rest = rest
        self._arrivals = sorted(arrivals, key=lambda arrival: (arrival.at_ms, arrival.spec.id))
        self._next = 0
        self._grid = grid
        self._left: dict[str, int] = {}
        self._runs: dict[str, _Run] = {}
        self._ends: list[tuple[int, str]] = []
        jobs = engine.state.book.jobs
        for job_id in sorted(jobs):
            self._calm(jobs[job_id])
        self._turns = None if expected is None else Turns(expected, engine, now_ms)
        for job_id in sorted(jobs):
            self._take_over(jobs[job_id])

    def _calm(self, rec: JobRec) -> None:
        """What is in motion is taken as done."""
        self._note(rec.spec)
        match rec.phase:
            case Phase.STARTING:
                self._tell(JobStarted(rec.id, rec.epoch))
            case Phase.RESIZING:
                self._tell(JobResized(rec.id, rec.epoch, rec.places))
            case Phase.PREEMPTING:
                self._tell(JobRequeued(rec.id, rec.epoch, "preempted"))
            case Phase.STOPPING:
                self._tell(JobFinished(rec.id, rec.epoch, "cancelled"))
            case Phase.WAITING | Phase.HELD | Phase.RUNNING:
                pass
            case _:
                assert_never(rec.phase)

    def _take_over(self, rec: JobRec) -> None:
        """What each job has run so far says how long it still runs. Who was stopped starts again at its restart cost."""
        ran_ms = _ran(rec, self.now_ms) if self._turns is None else self._turns.ran_ms(rec.id, self.now_ms)
        if rec.phase in HOLDING:
            self._left[rec.id] = self._rest(rec.spec, ran_ms)
            self._begin(rec.id, rec.epoch, len(rec.places))
        elif ran_ms:
            self._left[rec.id] = self._rest(rec.spec, ran_ms) + rec.spec.restart_cost_ms

    def _note(self, spec: JobSpec) -> None:
        self.course.queue_of[spec.id] = spec.queue
        self.course.gpu_milli_of[spec.id] = spec.shape.gpu_milli * spec.min_tasks

    # -- the clock

    def run(self, until_ms: int, wanted: frozenset[str] | None = None) -> Course:
        """Forward to `until_ms`, or until every job in `wanted` has started."""
        self._settle()
        while not (wanted is not None and wanted <= self.course.starts.keys()):
            at_ms = self._next_ms()
            if at_ms is None or at_ms > until_ms:
                self.now_ms = until_ms
                break
            self.now_ms = at_ms
            self._finish()
            self._arrive()
            self._settle()
        self.course.until_ms = self.now_ms
        return self.course

    def _next_ms(self) -> int | None:
        times = [self._next_end()]
        if self._next < len(self._arrivals):
            times.append(self._arrivals[self._next].at_ms)
        wakeup = self.engine.next_wakeup_ms()
        if wakeup is not None:
            times.append(max(wakeup, self.now_ms + 1))
        known = [time for time in times if time is not None]
        return self._grid.next_ms(self._start_ms, self.now_ms, min(known)) if known else None

    def _next_end(self) -> int | None:
        while self._ends:
            end_ms, job_id = self._ends[0]
            running = self._runs.get(job_id)
            if running is not None and running.end_ms == end_ms:
                return end_ms
            heapq.heappop(self._ends)
        return None

    def _finish(self) -> None:
        while (end_ms := self._next_end()) is not None and end_ms <= self.now_ms:
            job_id = heapq.heappop(self._ends)[1]
            running = self._runs.pop(job_id)
            self._left.pop(job_id)
            self.course.ends[job_id] = end_ms
            self._tell(JobFinished(job_id, running.epoch, "succeeded"))
            if self._turns is not None:
                self._turns.finished(job_id, self.now_ms)

    def _arrive(self) -> None:
        while self._next < len(self._arrivals) and self._arrivals[self._next].at_ms <= self.now_ms:
            arrival = self._arrivals[self._next]
            self._next += 1
            self._note(arrival.spec)
            self._left[arrival.spec.id] = arrival.runs_ms
            self._tell(JobSubmitted(arrival.spec))
            if self._turns is not None:
                self._turns.arrived(arrival.spec)

    # -- decisions

    def _settle(self) -> None:
        if self._turns is not None:
            for event in self._turns.moved(self.now_ms):
                self._tell(event)
        for _ in range(ROUNDS_IN_A_STEP if self._grid.first_ms else ROUNDS_AT_ONCE):
            plan = self.engine.decide(self.now_ms)
            acted = [order for order in plan.decisions if not isinstance(order, Discarded)]
            if not acted:
                return
            for order in acted:
                self._carry_out(order)
        self.course.unsettled = not self._grid.first_ms

    def _carry_out(self, order: Decision) -> None:
        job_id, now = order.job_id, self.now_ms
        match order:
            case Start():
                self.course.starts.setdefault(job_id, now)
                self.course.node_of.setdefault(job_id, tuple(dict.fromkeys(place.node for place in order.places)))
                if job_id not in self._left:
                    self._left[job_id] = self._rest(self.engine.state.book.jobs[job_id].spec, 0)
                self._tell(JobStarted(job_id, order.epoch))
                self._begin(job_id, order.epoch, len(order.places))
                if self._turns is not None:
                    self._turns.started(job_id, now)
            case Resize():
                self._pause(job_id)
                self._tell(JobResized(job_id, order.epoch, order.places))
                self._begin(job_id, order.epoch, len(order.places))
            case Preempt():
                self._evicted(order)
                self._tell(JobRequeued(job_id, order.epoch, "preempted"))
            case Stop():
                self._runs.pop(job_id, None)
                self._tell(JobFinished(job_id, order.epoch, "cancelled"))
                if self._turns is not None:
                    self._turns.dropped(job_id)
            case Discarded():
                pass
            case _:
                assert_never(order)

    def _evicted(self, order: Preempt) -> None:
        job_id, rec = order.job_id, self.engine.state.book.jobs[order.job_id]
        self._pause(job_id)
        self._left[job_id] += rec.spec.restart_cost_ms
        beneficiary = order.reason.blockers[0] if order.reason.blockers else ""
        self.course.evictions.append(Eviction(job_id, self.now_ms, order.reason.code.value, beneficiary))
        if self._turns is not None:
            self._turns.stopped(job_id, self.now_ms)

    # -- work that runs

    def _begin(self, job_id: str, epoch: int, tasks: int) -> None:
        spec = self.engine.state.book.jobs[job_id].spec
        end_ms = self.now_ms + max(1, self._left[job_id] * 1000 // self._speed_milli(job_id, spec, tasks))
        self._runs[job_id] = _Run(epoch, end_ms, tasks)
        heapq.heappush(self._ends, (end_ms, job_id))

    def _pause(self, job_id: str) -> None:
        """What it has run since it began is taken off its rest."""
        running = self._runs.pop(job_id, None)
        if running is None:
            return
        spec = self.engine.state.book.jobs[job_id].spec
        left = max(0, running.end_ms - self.now_ms)
        self._left[job_id] = left * self._speed_milli(job_id, spec, running.tasks) // 1000

    def _speed_milli(self, job_id: str, spec: JobSpec, tasks: int) -> int:
        """How fast it works on `tasks` tasks, relative to its smallest size: as measured, else in proportion."""
        if not spec.elastic or tasks <= spec.min_tasks:
            return 1000
        known = dict(self.engine.state.book.jobs[job_id].goodput)
        if known.get(spec.min_tasks) and known.get(tasks):
            return max(1, 1000 * known[tasks] // known[spec.min_tasks])
        return 1000 * tasks // spec.min_tasks

    def _tell(self, event: Event) -> None:
        try:
            self.engine.apply(event, self.now_ms)
        except IllegalEvent as error:
            raise RuntimeError(f"the forecast told the engine something impossible: {error}") from error


def begun_jobs(engine: Engine, now_ms: int, expected: Expectations | None = None) -> list[tuple[JobSpec, int]]:
    """(job, milliseconds it has run in all), by id, of those that have run and not ended. Without `expected`: of those that run, since
    they were last started."""
    found = []
    for job_id, rec in sorted(engine.state.book.jobs.items()):
        ran_ms = (
            _ran(rec, now_ms) if expected is None or job_id not in expected else _attained(expected, job_id, now_ms)
        )
        if ran_ms:
            found.append((rec.spec, ran_ms))
    return found


def _attained(expected: Expectations, job_id: str, now_ms: int) -> int:
    return max(0, round(1000 * expected.history.attained_s(job_id, now_ms / 1000)))


def _ran(rec: JobRec, now_ms: int) -> int:
    """Since it was last started; 0 while it waits."""
    return max(0, now_ms - (rec.running_at or rec.started_at)) if rec.phase in RUNS else 0


def waiting_jobs(engine: Engine) -> list[JobSpec]:
    """The jobs that wait, by id; held ones too."""
    jobs = engine.state.book.jobs
    return [jobs[job_id].spec for job_id in sorted(jobs) if jobs[job_id].phase not in HOLDING]
