"""What the doors tell and ask: new jobs, changed jobs, cancel, hold, release."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from heliostat_scheduler.core.events import JobCancelled, JobChanged, JobHeld, JobReleased
from heliostat_scheduler.core.lifecycle import TERMINAL, WAITING, JobState
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from sqlalchemy import select
from sqlalchemy.orm import Session

from heliostat.control.executor import Executor
from heliostat.control.messages import Asked
from heliostat.control.outbox import Outbox
from heliostat.control.port import ControlError
from heliostat.control.reconcile import Reconciler
from heliostat.store import Store, jobs, moves
from heliostat.store.tables import Attempt, Job


@dataclass(slots=True)
class Desk:
    """waiting: ids of the queued and held jobs that the engine knows, in order of arrival. moved: states of this turn, not yet written."""

    store: Store
    executor: Executor
    reconciler: Reconciler
    waiting: dict[str, None] = field(default_factory=dict)
    moved: dict[str, JobState] = field(default_factory=dict)

    def arrived(self, job_ids: Iterable[str], out: Outbox) -> None:
        """New rows: the engine hears of those that it does not know yet."""
        wanted = [i for i in job_ids if i not in self.waiting and i not in self.executor.attempts]
        if not wanted:
            return
        with self.store.read() as session:
            rows = session.execute(select(Job).where(Job.id.in_(wanted)).order_by(Job.seq)).scalars().all()
            for job in rows:
                if job.state in WAITING:
                    self.reconciler.submit(session, job, _epoch(session, job), out)

    def changed(self, job_ids: Iterable[str], out: Outbox) -> None:
        """Rows whose specification changed (priority also while they run)."""
        for job_id in job_ids:
            attempt = self.executor.attempts.get(job_id)
            if job_id in self.waiting or (attempt is not None and attempt.in_engine):
                with self.store.read() as session:
                    spec = jobs.core_spec(jobs.get(session, job_id))
                out.event(JobChanged(spec))

    def asked(self, asked: Asked, out: Outbox, now_ms: int) -> None:
        """Raises ControlError when the job is in no state for it."""
        with self.store.read() as session:
            job = jobs.find(session, asked.job_id)
        if job is None:
            raise ControlError("unknown_job", f"There is no job {asked.job_id}.")
        match asked.what:
            case "cancel":
                self._cancel(job, asked.actor, out, now_ms)
            case "hold":
                self._hold(job, asked.actor, out, now_ms)
            case _:
                self._release(job, asked.actor, out, now_ms)

    def _cancel(self, job: Job, actor: str, out: Outbox, now_ms: int) -> None:
        state = self._state(job)
        if state in TERMINAL:
            raise ControlError("wrong_state", f"{job.id} has ended already ({state}).")
        if state is JobState.CANCELLING:
            return
        reason = Reason(ReasonCode.CANCEL_REQUESTED, facts=(("actor", actor),))
        attempt = self.executor.attempts.get(job.id)
        target = JobState.CANCELLED if attempt is None else JobState.CANCELLING
        if attempt is None:
            self.waiting.pop(job.id, None)
            self.executor.end_parked(job.id, JobState.CANCELLED.value, out, now_ms)
        else:
            attempt.state = JobState.CANCELLING
        if attempt is None or attempt.in_engine:
            out.event(JobCancelled(job.id))
        self._move(job.id, target, reason, actor, out, now_ms)

    def _hold(self, job: Job, actor: str, out: Outbox, now_ms: int) -> None:
        state = self._state(job)
        if state is JobState.HELD:
            return
        if state is not JobState.QUEUED:
            raise ControlError("wrong_state", f"{job.id} is {state}: only a queued job can be held.")
        out.event(JobHeld(job.id))
        reason = Reason(ReasonCode.HELD, facts=(("actor", actor),))
        self._move(job.id, JobState.HELD, reason, actor, out, now_ms)

    def _release(self, job: Job, actor: str, out: Outbox, now_ms: int) -> None:
        state = self._state(job)
        if state is JobState.QUEUED:
            return
        if state is not JobState.HELD:
            raise ControlError("wrong_state", f"{job.id} is {state}, not held.")
        out.event(JobReleased(job.id))
        self._move(job.id, JobState.QUEUED, Reason(ReasonCode.PENDING_EVALUATION), actor, out, now_ms)

    def _state(self, job: Job) -> JobState:
        """The job's state as this turn has left it; its row may be one step behind."""
        attempt = self.executor.attempts.get(job.id)
        return attempt.state if attempt is not None else self.moved.get(job.id, JobState(job.state))

    def _move(self, job_id: str, state: JobState, reason: Reason, actor: str, out: Outbox, now_ms: int) -> None:
        self.moved[job_id] = state

        def write(session: Session) -> None:
            cancelled = state in (JobState.CANCELLING, JobState.CANCELLED)
            moves.move(session, job_id, state, reason=reason, actor=actor, now_ms=now_ms, cancel_requested=cancelled)

        out.step(job_id, write)


def _epoch(session: Session, job: Job) -> int:
    """The last epoch of a job that ran before; most that arrive never did, and cost no query."""
    if not job.attempts:
        return 0
    row = session.get(Attempt, (job.id, job.attempts))
    return 0 if row is None else row.epoch
