"""Carries out what the engine decided, one attempt at a time, and tells the engine what came of it.

Every act follows the same order: memory, then the store (a step of the turn's transaction), then the world (the step's
effects). So whatever the world has been told stands in the store, and after a crash `reconcile` repeats the last word of each
attempt: commands are keyed by epoch and attempt, and may be repeated.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from heliostat_scheduler.core.decisions import Discarded, Plan, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.events import (
    JobFinished,
    JobRequeued,
    JobStarted,
    JobStartFailed,
    JobSubmitted,
    PlacesReleased,
)
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import (
    Command,
    DropLease,
    HardStop,
    NodeJoined,
    PutLease,
    SignalCommand,
    SlotRef,
    StartCommand,
)

from heliostat.control import endings, results, rows
from heliostat.control.attempts import Attempt, Ending, Finish, NotStarted, Phase, Requeue
from heliostat.control.endings import Tries
from heliostat.control.hands import Bridge, Drivers
from heliostat.control.launch import Launcher
from heliostat.control.outbox import Outbox
from heliostat.store import Store, jobs

GRANT_PATIENCE_MS = 60_000
START_PATIENCE_MS = 900_000
ORDER_SLACK_MS = 3_000
CLOSE_PATIENCE_MS = 15_000
POLL_MS = 300
START_TRIES = 6
HARMLESS_CODES = frozenset({protocol.CPU_BUSY, protocol.UNKNOWN_SLOT, protocol.SLOT_LEASED, protocol.UNKNOWN_NODE})
"""Starts that fail for these are tried again without limit: they are the cluster's doing."""


@dataclass(slots=True)
class Executor:
    """attempts: the live ones by job. nodes: what the bridge said last. awaiting: command id -> (job, attempt)."""

    store: Store
    bridge: Bridge
    drivers: Drivers
    launcher: Launcher
    term: int = 0
    head_node: str = ""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    nodes: dict[str, NodeJoined] = field(default_factory=dict)
    awaiting: dict[int, tuple[str, int]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    # ---- decisions -----------------------------------------------------------------------------------------------------

    def carry_out(self, plan: Plan, out: Outbox, now_ms: int) -> None:
        for decision in plan.decisions:
            match decision:
                case Start():
                    self._grant(decision, out, now_ms)
                case Preempt() | Stop():
                    order = protocol.PREEMPT if isinstance(decision, Preempt) else protocol.STOP
                    attempt = self.attempts[decision.job_id]
                    self.order(attempt, order, decision.epoch, decision.grace_ms, decision.reason, out, now_ms)
                case Discarded():
                    data = {"job": decision.job_id, "would_evict": list(decision.would_evict)}
                    out.step("plan", lambda s, d=data: rows.noted(s, "plan_discarded", now_ms, d))  # type: ignore[misc]
                case Resize():
                    raise RuntimeError(f"{decision.job_id} is rigid and cannot be resized")
                case _:
                    assert_never(decision)

    def _grant(self, start: Start, out: Outbox, now_ms: int) -> None:
        with self.store.read() as session:
            job = jobs.get(session, start.job_id)
        slots = self._refs(start.places)
        if slots is None:
            text = "a slot went away between the decision and the grant"
            job_id, n, epoch = start.job_id, start.attempt, start.epoch
            out.step(job_id, lambda s: rows.refuse_grant(s, job_id, n, epoch, text, now_ms))
            out.event(JobStartFailed(job_id, epoch, protocol.UNKNOWN_SLOT, now_ms + 1_000))
            return
        attempt = Attempt(
            job=job.id,
            n=start.attempt,
            epoch=start.epoch,
            kind=job.kind,
            project=job.project,
            secret=secrets.token_hex(16),
            tasks=len(start.places),
            places=start.places,
            slots=slots,
            node=start.places[0].node,
            cpu_milli=job.cpu_milli,
            memory_bytes=job.memory_bytes,
            since_ms=now_ms,
            state=JobState.ADMITTED,
            due_ms=now_ms + GRANT_PATIENCE_MS,
            run_limit_ms=None if job.max_runtime_ms is None else max(1, job.max_runtime_ms - job.ran_ms),
        )
        self.attempts[job.id] = attempt
        flavors = {node.node: node.flavor for node in self.nodes.values()}
        log = str(self.launcher.log_path(job.id, attempt.n))
        write = partial(
            rows.grant,
            attempt=attempt,
            reason=start.reason,
            flavors=flavors,
            gpu_milli=min(1000, job.gpu_milli),
            log_path=log,
        )
        out.step(job.id, write, self.put(attempt))

    def order(
        self, attempt: Attempt, order: str, epoch: int, grace_ms: int, reason: Reason, out: Outbox, now_ms: int
    ) -> None:
        """Tell an attempt to checkpoint and let go, then to end (STOP) or to be requeued (PREEMPT)."""
        attempt.epoch, attempt.reason, attempt.why = epoch, reason, reason.code.value
        if order == protocol.STOP:
            attempt.timed_out = reason.code is ReasonCode.TIME_LIMIT
        self._move_for(attempt, order, reason, out, now_ms)
        if attempt.phase in (Phase.KILLING, Phase.CLOSING):
            if order == protocol.STOP and not isinstance(attempt.ending, Finish):
                attempt.ending = endings.of_order(attempt)
            self._write_order(attempt, attempt.order, out)
            self.take_back(attempt, out)  # under the new epoch
            return
        if reason.code is ReasonCode.NODE_LOST:
            self.kill(attempt, Requeue("node_lost"), out, now_ms)
            return
        before, attempt.phase = attempt.phase, Phase.ORDERED
        attempt.order, attempt.deadline_ms = order, now_ms + grace_ms
        attempt.due_ms = attempt.deadline_ms + ORDER_SLACK_MS
        self._write_order(attempt, order, out)
        if before is Phase.GRANTING:
            self.close(attempt, endings.of_order(attempt), out, now_ms, process_done=True)
            return
        self.tell_order(attempt, out, now_ms)

    def tell_order(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Pass the order on. Who has a runner gets time to checkpoint; a driver without one is ended with SIGTERM at once."""
        effects = [self.put(attempt)]
        grace_ms = max(0, attempt.deadline_ms - now_ms)
        if attempt.is_command:
            effects.append(self.send(lambda i: SignalCommand(i, self.term, attempt.job, attempt.n, grace_ms)))
        out.step(attempt.job, None, *effects)
        cooperative = attempt.runner_seen and attempt.state is not JobState.CANCELLING
        if not attempt.is_command and not cooperative:
            self.close(attempt, endings.of_order(attempt), out, now_ms)

    def kill(self, attempt: Attempt, ending: Ending, out: Outbox, now_ms: int) -> None:
        """The hard way: revoke the lease, kill whoever is in its slots, end its driver."""
        attempt.order = protocol.REVOKED
        self._write_order(attempt, protocol.REVOKED, out)
        self.close(attempt, attempt.ending or ending, out, now_ms, hard=True)

    # ---- what happened to an attempt -----------------------------------------------------------------------------------

    def granted(self, attempt: Attempt, code: str, text: str, out: Outbox, now_ms: int) -> None:
        """The bridge carried a grant or a start out (code ""), or refused it."""
        if attempt.phase is Phase.GRANTING and attempt.state is JobState.CANCELLING:
            self.close(attempt, endings.of_order(attempt), out, now_ms, process_done=True)
        elif attempt.phase is Phase.GRANTING and not code:
            attempt.phase, attempt.due_ms = Phase.LAUNCHING, now_ms + START_PATIENCE_MS
            self.moved(attempt, JobState.STARTING, None, out, now_ms)
            self.launch(attempt, out, now_ms)
        elif code and attempt.phase in (Phase.GRANTING, Phase.LAUNCHING):
            self.close(attempt, self.not_started(attempt, code, text, now_ms), out, now_ms, process_done=True)
        elif code and attempt.phase is Phase.ORDERED:
            self.kill(attempt, endings.of_order(attempt), out, now_ms)

    def launch(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Start the process; repeated for the same attempt it has no effect."""
        with self.store.read() as session:
            job = jobs.get(session, attempt.job)
        try:
            self.launcher.prepare(attempt.job)
            if attempt.is_command:
                spec = self.launcher.command(job, attempt)
                n, epoch = attempt.n, attempt.epoch
                start = self.send(lambda i: StartCommand(i, self.term, job.id, n, epoch, spec), awaited=attempt)
                out.step(job.id, None, start)
            else:
                submission = self.launcher.submission(job, attempt, self.head_node)
                attempt.poll_ms = now_ms + POLL_MS
                out.step(job.id, None, partial(self.drivers.submit, submission))
        except OSError as error:
            failed = self.not_started(attempt, "launch_failed", str(error), now_ms)
            self.close(attempt, failed, out, now_ms, process_done=True)

    def started(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """The attempt's processes run."""
        if attempt.state not in (JobState.ADMITTED, JobState.STARTING):
            return
        if attempt.state is JobState.ADMITTED:
            self.moved(attempt, JobState.STARTING, None, out, now_ms)
        if attempt.phase is Phase.LAUNCHING:
            attempt.phase, attempt.due_ms = Phase.RUNNING, None
        attempt.running_since_ms = now_ms
        self.failures.pop(attempt.job, None)
        self.moved(attempt, JobState.RUNNING, None, out, now_ms)
        out.event(JobStarted(attempt.job, attempt.epoch))
        if not attempt.is_command:
            log = self.launcher.log_path(attempt.job, attempt.n)
            out.step(attempt.job, None, partial(self.drivers.follow, attempt.submission_id, log))

    def ended(self, attempt: Attempt, ending: Ending, out: Outbox, now_ms: int) -> None:
        """The process has ended by itself."""
        if attempt.phase in (Phase.KILLING, Phase.CLOSING):
            self.process_done(attempt, out, now_ms)
            return
        if isinstance(ending, Finish) and ending.state in (JobState.SUCCEEDED, JobState.FAILED):
            self.started(attempt, out, now_ms)
        self.close(attempt, ending, out, now_ms, process_done=True)

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
        attempt.log_saved = attempt.log_saved or attempt.is_command or never_ran
        self.take_back(attempt, out)
        if process_done:
            self.process_done(attempt, out, now_ms)
        elif not attempt.is_command:
            self.end_driver(attempt, out, now_ms)
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
        if attempt.is_command:
            attempt.process_done = True
        self.conclude(attempt, out, now_ms)
        if attempt.job in self.attempts:
            job = attempt.job
            out.step(job, lambda s: rows.slots_freed(s, job, now_ms))
            if attempt.in_engine and attempt.order != protocol.RUN:
                out.event(PlacesReleased(job, attempt.epoch, attempt.places))

    def conclude(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """When nothing of the attempt is left, the job moves on."""
        if not attempt.done or attempt.ending is None or self.attempts.get(attempt.job) is not attempt:
            return
        del self.attempts[attempt.job]
        ending = self._legal(attempt, attempt.ending)
        if isinstance(ending, Finish):
            self._move_towards(attempt, ending.state, out, now_ms)
        terminal = isinstance(ending, Finish)
        result = results.read(self.launcher.run_dir(attempt.job)) if terminal else None
        reason = None if isinstance(ending, Finish) else rows.requeue_reason(ending)
        write = partial(rows.concluded, attempt=attempt, ending=ending, reason=reason, now_ms=now_ms, result=result)
        effects = [] if attempt.is_command else [partial(self.drivers.forget, attempt.submission_id)]
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

    def moved(self, attempt: Attempt, state: JobState, reason: Reason | None, out: Outbox, now_ms: int) -> None:
        attempt.state = state
        job, n = attempt.job, attempt.n
        out.step(job, lambda s: rows.moved(s, job, state, reason, n, now_ms))

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

    def _refs(self, places: tuple[TaskPlace, ...]) -> tuple[SlotRef, ...] | None:
        """The slots of these places, grouped by node and sorted by device; None when one is not there."""
        known = {ref.slot: ref for node in self.nodes.values() for ref in node.slots}
        order = {place.node: position for position, place in reversed(list(enumerate(places)))}
        names = [slot for place in places for slot in place.slots]
        if any(place.node not in self.nodes for place in places) or any(name not in known for name in names):
            return None
        return tuple(sorted((known[name] for name in names), key=lambda ref: (order[ref.node], ref.device)))

    def _move_for(self, attempt: Attempt, order: str, reason: Reason, out: Outbox, now_ms: int) -> None:
        preemptible = (JobState.STARTING, JobState.RUNNING, JobState.RESIZING)
        if order == protocol.STOP and not attempt.timed_out and attempt.state is not JobState.CANCELLING:
            self.moved(attempt, JobState.CANCELLING, reason, out, now_ms)
        elif order == protocol.PREEMPT and attempt.state in preemptible:
            self.moved(attempt, JobState.PREEMPTING, reason, out, now_ms)

    def _move_towards(self, attempt: Attempt, end: JobState, out: Outbox, now_ms: int) -> None:
        """The step in between, where the lifecycle has no direct move."""
        if attempt.state is JobState.ADMITTED and end is JobState.FAILED:
            self.moved(attempt, JobState.STARTING, None, out, now_ms)
        elif attempt.state is JobState.PREEMPTING and end is JobState.TIMED_OUT:
            self.moved(attempt, JobState.QUEUED, None, out, now_ms)

    def _write_order(self, attempt: Attempt, order: str, out: Outbox) -> None:
        epoch, deadline_ms = attempt.epoch, attempt.deadline_ms
        out.step(attempt.job, lambda s: rows.ordered(s, attempt, epoch, order, deadline_ms))

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
