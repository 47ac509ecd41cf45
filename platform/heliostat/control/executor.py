"""Carries out what the engine decided, one attempt at a time, and tells the engine what came of it.

Every act follows the same order: memory, then the store (a step of the turn's transaction), then the world (the step's
effects). So whatever the world has been told stands in the store, and after a crash `reconcile` repeats the last word of each
attempt: commands are keyed by epoch and attempt, and may be repeated.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_never

from heliostat_scheduler.core.decisions import Discarded, Plan, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.events import JobStarted, JobStartFailed
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import SignalCommand, StartCommand

from heliostat.control import endings, rows
from heliostat.control.attempts import Attempt, Ending, Finish, Phase, Requeue
from heliostat.control.outbox import Outbox
from heliostat.control.parking import Parking
from heliostat.control.patience import GRANT_PATIENCE_MS, ORDER_SLACK_MS, POLL_MS, start_patience_ms
from heliostat.control.slot_refs import refs_of
from heliostat.store import jobs
from heliostat.submission.serving import app_of


@dataclass(slots=True)
class Executor(Parking):
    """What was decided becomes commands; what happens to an attempt becomes events."""

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
                    self.resize(decision, out, now_ms)
                case _:
                    assert_never(decision)

    def _grant(self, start: Start, out: Outbox, now_ms: int) -> None:
        if self.unpark(start, out, now_ms):
            return
        with self.store.read() as session:
            job = jobs.get(session, start.job_id)
        slots = refs_of(self.nodes.values(), start.places)
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
            app=app_of(job),
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
            self.write_order(attempt, attempt.order, out)
            self.take_back(attempt, out)  # under the new epoch
            return
        if reason.code is ReasonCode.NODE_LOST:
            self.kill(attempt, Requeue("node_lost"), out, now_ms)
            return
        before, attempt.phase, attempt.change = attempt.phase, Phase.ORDERED, None
        attempt.order, attempt.deadline_ms = order, now_ms + grace_ms
        attempt.due_ms = attempt.deadline_ms + ORDER_SLACK_MS
        self.write_order(attempt, order, out)
        if before is Phase.GRANTING:
            self.close(attempt, endings.of_order(attempt), out, now_ms, process_done=not attempt.accepted)
            return
        self.tell_order(attempt, out, now_ms)

    def tell_order(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Pass the order on. Who has a runner gets time to checkpoint; a driver without one is ended with SIGTERM at once."""
        effects = [self.put(attempt)]
        grace_ms = max(0, attempt.deadline_ms - now_ms)
        if attempt.is_command:
            effects.append(self.send(lambda i: SignalCommand(i, self.term, attempt.job, attempt.n, grace_ms)))
        if attempt.is_serving:
            effects.append(self.serving.look)
        out.step(attempt.job, None, *effects)
        cooperative = attempt.runner_seen and attempt.state is not JobState.CANCELLING
        if attempt.has_driver and not cooperative:
            self.close(attempt, endings.of_order(attempt), out, now_ms)

    # ---- what happened to an attempt -----------------------------------------------------------------------------------

    def granted(
        self,
        attempt: Attempt,
        code: str,
        text: str,
        data: dict[str, Any],  # Any: JSON
        out: Outbox,
        now_ms: int,
    ) -> None:
        """The bridge carried a grant, a start or an order out (code ""), or refused it."""
        if attempt.phase is Phase.GRANTING and attempt.state is JobState.CANCELLING:
            self.close(attempt, endings.of_order(attempt), out, now_ms, process_done=not attempt.accepted)
        elif attempt.phase is Phase.GRANTING and not code:
            attempt.phase = Phase.LAUNCHING
            self.moved(attempt, JobState.STARTING, None, out, now_ms)
            self.launch(attempt, out, now_ms)
        elif code and attempt.phase in (Phase.GRANTING, Phase.LAUNCHING):
            failed = self.not_started(attempt, code, text, now_ms)
            self.close(attempt, failed, out, now_ms, process_done=not attempt.accepted)
        elif attempt.phase is Phase.RESIZING:
            self.resize_answered(attempt, code, text, data, out, now_ms)
        elif code and attempt.phase is Phase.ORDERED:
            self.kill(attempt, endings.of_order(attempt), out, now_ms)

    def launch(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Start the process; repeated for the same attempt it has no effect. A driver waits until the one before it is gone."""
        with self.store.read() as session:
            job = jobs.get(session, attempt.job)
        attempt.due_ms = now_ms + start_patience_ms(job.runtime_env)
        if self.leftovers.alive(attempt.job):
            return
        try:
            self.launcher.prepare(attempt.job)
            if attempt.is_serving:
                out.step(job.id, None, self.serving.look)
            elif attempt.is_command:
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
        if attempt.phase in (
            Phase.GRANTING,
            Phase.LAUNCHING,
        ):  # a driver that waited may be faster than the reply to its grant
            attempt.phase, attempt.due_ms = Phase.RUNNING, None
        attempt.running_since_ms = now_ms
        self.failures.pop(attempt.job, None)
        self.moved(attempt, JobState.RUNNING, None, out, now_ms)
        out.event(JobStarted(attempt.job, attempt.epoch))
        if attempt.has_driver:
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

    # ---- small parts ---------------------------------------------------------------------------------------------------

    def _move_for(self, attempt: Attempt, order: str, reason: Reason, out: Outbox, now_ms: int) -> None:
        preemptible = (JobState.STARTING, JobState.RUNNING, JobState.RESIZING)
        if order == protocol.STOP and not attempt.timed_out and attempt.state is not JobState.CANCELLING:
            self.moved(attempt, JobState.CANCELLING, reason, out, now_ms)
        elif order == protocol.PREEMPT and attempt.state in preemptible:
            self.moved(attempt, JobState.PREEMPTING, reason, out, now_ms)
