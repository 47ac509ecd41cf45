"""How an attempt ends: everything is taken back, its process is ended, and the job moves on.

The base of the executor. `close` is told how it ends; then the slots are awaited (verified free by the bridge), the process and its
log. A job that ended needs all of them. A job that goes back to the queue needs only its slots: what is left of its
driver is looked after by `leftovers`, so that its place in the queue does not depend on how long a process takes to die.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, assert_never

from heliostat_scheduler.core.events import JobFinished, JobRequeued, JobStartFailed, JobSubmitted, PlacesReleased
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.reasons import Reason
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Command, DropLease, HardStop, NodeJoined, PutLease

from heliostat.control import endings, results, rows
from heliostat.control.attempts import Attempt, Ending, Finish, NotStarted, Phase, Requeue
from heliostat.control.endings import Tries
from heliostat.control.hands import Bridge, Drivers, NoServing, Serving
from heliostat.control.launch import Launcher
from heliostat.control.leftovers import Leftovers
from heliostat.control.outbox import Outbox
from heliostat.control.patience import CLOSE_PATIENCE_MS, POLL_MS, START_TRIES
from heliostat.store import Store, jobs

HARMLESS_CODES = frozenset({protocol.CPU_BUSY, protocol.UNKNOWN_SLOT, protocol.SLOT_LEASED, protocol.UNKNOWN_NODE})
"""Starts that fail for these are tried again without limit: they are the cluster's doing."""


@dataclass(slots=True)
class Closing:
    """attempts: the live ones by job. nodes: what the bridge said last. awaiting: command id -> (job, attempt).

    parked: drivers that wait in `fit()` for a lease that their job is queued for, by job.
    """

    store: Store
    bridge: Bridge
    drivers: Drivers
    launcher: Launcher
    serving: Serving = field(default_factory=NoServing)
    term: int = 0
    head_node: str = ""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    nodes: dict[str, NodeJoined] = field(default_factory=dict)
    awaiting: dict[int, tuple[str, int]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    leftovers: Leftovers = field(init=False)
    parked: dict[str, Attempt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.leftovers = Leftovers(self.drivers, self.launcher.log_path)

    def close(
        self,
        attempt: Attempt,
        ending: Ending,
        out: Outbox,
        now_ms: int,
        *,
        process_done: bool = False,
        hard: bool = False,
    ) -> None:
        """How it ends is known: take everything back, then move the job on."""
        attempt.phase = Phase.KILLING if hard else Phase.CLOSING
        attempt.ending, attempt.due_ms = ending, now_ms + CLOSE_PATIENCE_MS
        job, n = attempt.job, attempt.n
        out.step(job, lambda s: rows.ending_known(s, job, n, ending, now_ms))
        never_ran = isinstance(ending, NotStarted) and process_done and not attempt.accepted
        attempt.log_saved = attempt.log_saved or not attempt.has_driver or never_ran
        self.take_back(attempt, out)
        if process_done:
            self.process_done(attempt, out, now_ms)
        elif attempt.has_driver:
            self.end_driver(attempt, out, now_ms)
        elif attempt.is_serving:
            attempt.process_done = True  # its replicas are Serve's processes; its slots are verified by the bridge
            out.step(job, None, self.serving.look)
        self.conclude(attempt, out, now_ms)

    def take_back(self, attempt: Attempt, out: Outbox) -> None:
        """Ask for the slots, nicely or not."""
        if attempt.freed:
            return
        job, epoch = attempt.job, attempt.epoch
        kind = HardStop if attempt.phase is Phase.KILLING else DropLease
        out.step(job, None, self.send(lambda i: kind(i, self.term, job, epoch)))

    def end_driver(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        attempt.stop_asked_ms, attempt.poll_ms = now_ms, now_ms + POLL_MS
        out.step(attempt.job, None, partial(self.drivers.stop, attempt.submission_id))

    def process_done(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """The attempt's process has ended; its log can be completed."""
        attempt.process_done, attempt.poll_ms = True, None
        if not attempt.log_saved:
            log = self.launcher.log_path(attempt.job, attempt.n)
            out.step(attempt.job, None, partial(self.drivers.save_log, attempt.submission_id, log))
        self.conclude(attempt, out, now_ms)

    def freed(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Its slots are verified free: others may have them, even while its driver is still being ended."""
        attempt.freed = True
        if attempt.ending is None:
            self.close(attempt, endings.of_order(attempt), out, now_ms)
        if not attempt.has_driver:
            attempt.process_done = True
        self.conclude(attempt, out, now_ms)
        if attempt.job in self.attempts:
            job = attempt.job
            out.step(job, lambda s: rows.slots_freed(s, job, now_ms))
            if attempt.in_engine and attempt.order != protocol.RUN:
                out.event(PlacesReleased(job, attempt.epoch, attempt.places + attempt.leaving_places))

    def conclude(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """The job moves on: to its end when nothing of the attempt is left, to the queue as soon as its slots are free."""
        if attempt.ending is None or self.attempts.get(attempt.job) is not attempt:
            return
        ending = self._legal(attempt, attempt.ending)
        if not attempt.done and (isinstance(ending, Finish) or not attempt.freed):
            return
        del self.attempts[attempt.job]
        if isinstance(ending, Finish):
            self._move_towards(attempt, ending.state, out, now_ms)
        if not attempt.done:
            self.leftovers.add(attempt, now_ms)
        terminal = isinstance(ending, Finish)
        result = results.read(self.launcher.run_dir(attempt.job)) if terminal else None
        reason = None if isinstance(ending, Finish) else rows.requeue_reason(ending)
        write = partial(rows.concluded, attempt=attempt, ending=ending, reason=reason, now_ms=now_ms, result=result)
        nothing_left = attempt.done and attempt.has_driver
        effects = [partial(self.drivers.forget, attempt.submission_id)] if nothing_left else []
        out.step(attempt.job, write, *effects)
        self._tell_engine(attempt, ending, out)

    # ---- small parts ---------------------------------------------------------------------------------------------------

    def not_started(self, attempt: Attempt, code: str, text: str, now_ms: int) -> Ending:
        """Back to the queue with a growing pause; after START_TRIES of the job's own doing it has failed."""
        count = self.failures[attempt.job] = self.failures.get(attempt.job, 0) + 1
        if code not in HARMLESS_CODES and count >= START_TRIES:
            return Finish(JobState.FAILED, error=f"{text} It could not be started {count} times.")
        return NotStarted(code, text, endings.retry_at(count - 1, now_ms))

    def tries(self, job_id: str) -> Tries:
        with self.store.read() as session:
            return rows.tries(session, job_id)

    def moved(
        self,
        attempt: Attempt,
        state: JobState,
        reason: Reason | None,
        out: Outbox,
        now_ms: int,
        data: dict[str, Any] | None = None,  # Any: JSON
    ) -> None:
        attempt.state = state
        job, n = attempt.job, attempt.n
        out.step(job, lambda s: rows.moved(s, job, state, reason, n, now_ms, data))

    def put(self, attempt: Attempt) -> Callable[[], None]:
        """Effect: write the lease to the board."""
        lease = attempt.lease()
        return self.send(lambda i: PutLease(i, self.term, lease), awaited=attempt)

    def send(self, build: Callable[[int], Command], *, awaited: Attempt | None = None) -> Callable[[], None]:
        """Effect: a command. awaited: the attempt that hears of its reply."""
        whose = None if awaited is None else (awaited.job, awaited.n)

        def effect() -> None:
            number = next(self.ids)
            if whose is not None:
                self.awaiting[number] = whose
            self.bridge.send(build(number))

        return effect

    def _move_towards(self, attempt: Attempt, end: JobState, out: Outbox, now_ms: int) -> None:
        """The step in between, where the lifecycle has no direct move."""
        if attempt.state is JobState.ADMITTED and end is JobState.FAILED:
            self.moved(attempt, JobState.STARTING, None, out, now_ms)
        elif attempt.state is JobState.PREEMPTING and end is JobState.TIMED_OUT:
            self.moved(attempt, JobState.QUEUED, None, out, now_ms)
        elif attempt.state is JobState.RESIZING and end is JobState.TIMED_OUT:
            self.moved(attempt, JobState.RUNNING, None, out, now_ms)

    def _legal(self, attempt: Attempt, ending: Ending) -> Ending:
        """Cancelled meanwhile, or out of time before anybody could stop it: then that is what became of it."""
        if attempt.state is JobState.CANCELLING:
            return Finish(JobState.CANCELLED, ending.exit_code)
        if attempt.over_limit and not isinstance(ending, Finish):
            return Finish(JobState.TIMED_OUT, ending.exit_code, endings.TIME_USED_UP)
        return ending

    def _tell_engine(self, attempt: Attempt, ending: Ending, out: Outbox) -> None:
        job, epoch = attempt.job, attempt.epoch
        if not attempt.in_engine:
            if not isinstance(ending, Finish):
                with self.store.read() as session:
                    spec = jobs.core_spec(jobs.get(session, job))
                out.event(JobSubmitted(spec, epoch=epoch, attempt=attempt.n))
            return
        match ending:
            case Requeue():
                out.event(JobRequeued(job, epoch, ending.why, ending.retry_at_ms))
            case NotStarted():
                out.event(JobStartFailed(job, epoch, ending.code, ending.retry_at_ms))
            case Finish():
                out.event(JobFinished(job, epoch, ending.state.value))
            case _:
                assert_never(ending)
