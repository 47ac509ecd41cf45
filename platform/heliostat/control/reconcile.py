"""After a restart of the control plane, of the bridge or of Ray: what the store says, against what is there.

The store is the truth about what was decided; Ray is the truth about what runs. For each attempt the last word that the store
knows is said again (all commands may be repeated), and what Ray has lost goes back to the queue. Nothing is decided here: the
engine is told what holds, and decides in its next cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heliostat_scheduler.core.events import Checkpointed, JobCancelled, JobRestored, JobSubmitted
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import SlotRef
from sqlalchemy.orm import Session

from heliostat.control import endings, rows
from heliostat.control.attempts import FREED, Attempt, Change, Ending, Finish, NotStarted, Phase, Requeue
from heliostat.control.executor import Executor
from heliostat.control.outbox import Outbox
from heliostat.control.patience import CLOSE_PATIENCE_MS, GRANT_PATIENCE_MS, ORDER_SLACK_MS
from heliostat.store import Store, jobs
from heliostat.store.reasons import reason_from
from heliostat.store.tables import Attempt as AttemptRow
from heliostat.store.tables import Job
from heliostat.store.tables import Lease as LeaseRow
from heliostat.submission.serving import app_of


@dataclass(slots=True)
class Reconciler:
    executor: Executor

    def load(self, store: Store, out: Outbox, now_ms: int) -> None:
        """A new control plane: waiting jobs go to the engine at once, leases wait for the bridge."""
        with store.read() as session:
            for lease in session.query(LeaseRow).order_by(LeaseRow.job):
                job = jobs.get(session, lease.job)
                row = session.get(AttemptRow, (lease.job, lease.attempt))
                assert row is not None, f"{lease.job} has a lease without its attempt {lease.attempt}"
                attempt = _attempt(job, lease, row, now_ms)
                parked = attempt.phase is Phase.PARKED
                (self.executor.parked if parked else self.executor.attempts)[job.id] = attempt
            self.executor.leftovers.load(rows.left_behind(session), now_ms)
            waiting = jobs.in_states(session, (JobState.QUEUED.value, JobState.HELD.value))
            for job in waiting:
                self.submit(session, job, last_epoch(session.get(AttemptRow, (job.id, job.attempts))), out)

    def submit(self, session: Session, job: Job, epoch: int, out: Outbox) -> bool:
        """Hand a waiting job to the engine, with the numbers that it had, and with what became of the jobs that it waits for."""
        held, failed = job.state == JobState.HELD.value, jobs.unsuccessful(session, job.dependencies)
        return out.event(JobSubmitted(jobs.core_spec(job), held, epoch, job.attempts, failed))

    def connected(self, store: Store, out: Outbox, now_ms: int) -> None:
        """The bridge has the leases: the engine gets those that it does not know, then each attempt goes on."""
        for attempt in list(self.executor.attempts.values()):
            if attempt.in_engine or attempt.freed or self._restore(store, attempt, out):
                self._resume(attempt, out, now_ms)
            else:
                self.executor.kill(attempt, Requeue("node_lost"), out, now_ms)

    def head_lost(self, out: Outbox, now_ms: int) -> None:
        """Ray is gone with everything on it. Call it once nothing of the old head can run any more."""
        for attempt in list(self.executor.attempts.values()):
            self.void(attempt, "head_lost", out, now_ms)
        self.executor.lose_parked(out, now_ms)
        self.executor.leftovers.lost(out, now_ms)

    def void(self, attempt: Attempt, why: str, out: Outbox, now_ms: int) -> None:
        """What the lease named is not there any more: nothing is left to wait for."""
        ordered = attempt.order in (protocol.STOP, protocol.PREEMPT) or attempt.state is JobState.CANCELLING
        ending = attempt.ending or (endings.of_order(attempt) if ordered else Requeue(why))
        attempt.freed = attempt.process_done = attempt.log_saved = True
        if attempt.ending is None:
            self.executor.close(attempt, ending, out, now_ms, process_done=True)
        else:
            self.executor.conclude(attempt, out, now_ms)

    def _restore(self, store: Store, attempt: Attempt, out: Outbox) -> bool:
        known = {ref.slot for node in self.executor.nodes.values() for ref in node.slots}
        if not attempt.nodes() <= set(self.executor.nodes) or any(
            ref.slot not in known for ref in (*attempt.slots, *attempt.leaving)
        ):
            return False
        with store.read() as session:
            spec = jobs.core_spec(jobs.get(session, attempt.job))
        attempt.in_engine = out.event(
            JobRestored(
                spec,
                attempt.epoch,
                attempt.n,
                attempt.places,
                running=attempt.state not in (JobState.ADMITTED, JobState.STARTING),
                started_at_ms=attempt.running_since_ms or attempt.since_ms,
                preempting=attempt.state is JobState.PREEMPTING,
                resizing=attempt.phase is Phase.RESIZING,
                leaving=attempt.leaving_places,
                stopping=attempt.timed_out or (attempt.state is JobState.CANCELLING and attempt.order != protocol.RUN),
            )
        )
        if attempt.in_engine and attempt.checkpoint_ms:
            out.event(Checkpointed(attempt.job, attempt.checkpoint_ms))
        if attempt.in_engine and attempt.state is JobState.CANCELLING and attempt.order == protocol.RUN:
            out.event(JobCancelled(attempt.job))  # asked for while nobody could decide
        return attempt.in_engine

    def _resume(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Say the last word again."""
        executor = self.executor
        match attempt.phase:
            case Phase.GRANTING:
                attempt.due_ms = now_ms + GRANT_PATIENCE_MS
                out.step(attempt.job, None, executor.put(attempt))
            case Phase.LAUNCHING:
                executor.launch(attempt, out, now_ms)
            case Phase.RUNNING:
                attempt.poll_ms = now_ms if attempt.has_driver else None
            case Phase.RESIZING:
                attempt.due_ms = max(now_ms, attempt.deadline_ms) + ORDER_SLACK_MS
                attempt.poll_ms = now_ms if attempt.has_driver else None
                out.step(attempt.job, None, executor.put(attempt))
            case Phase.ORDERED:
                attempt.due_ms = max(now_ms, attempt.deadline_ms) + ORDER_SLACK_MS
                executor.tell_order(attempt, out, now_ms)
            case Phase.KILLING | Phase.CLOSING:
                attempt.due_ms = now_ms + CLOSE_PATIENCE_MS
                executor.take_back(attempt, out)
                attempt.poll_ms = now_ms if attempt.has_driver and not attempt.process_done else None


def last_epoch(row: AttemptRow | None) -> int:
    return 0 if row is None else row.epoch


def _attempt(job: Job, lease: LeaseRow, row: AttemptRow, now_ms: int) -> Attempt:
    """The attempt as it stood when the last control plane ended."""
    places, slots = _held([place for place in lease.places if not place.get("leaving")])
    leaving_places, leaving = _held([place for place in lease.places if place.get("leaving")])
    state = JobState(job.state)
    running = state in (JobState.RUNNING, JobState.RESIZING)
    attempt = Attempt(
        job=job.id,
        n=lease.attempt,
        epoch=lease.epoch,
        kind=job.kind,
        project=job.project,
        secret=lease.secret,
        app=app_of(job),
        tasks=len(places),
        places=places,
        slots=tuple(sorted(slots, key=lambda ref: _rank(slots, ref))),
        node=places[0].node if places else "",
        cpu_milli=job.cpu_milli,
        memory_bytes=job.memory_bytes,
        since_ms=lease.since_ms,
        state=state,
        order=protocol.RUN if lease.order == FREED else lease.order,
        reason=reason_from(job.reason) if job.reason is not None else None,
        deadline_ms=lease.deadline_ms,
        running_since_ms=job.state_since_ms if running else None,
        run_limit_ms=None if job.max_runtime_ms is None else max(1, job.max_runtime_ms - job.ran_ms),
        timed_out=lease.order == protocol.STOP and running,
        in_engine=False,
        freed=lease.order == FREED,
        leaving=leaving,
        leaving_places=leaving_places,
    )
    if row.ended_ms is not None:
        attempt.ending = _ending(row, job, now_ms)
    attempt.phase = _phase(attempt)
    attempt.accepted = attempt.has_driver and attempt.phase in (
        Phase.GRANTING,
        Phase.PARKED,
    )  # ask Ray rather than assume
    attempt.poll_ms = now_ms if attempt.phase is Phase.PARKED else None
    attempt.runner_seen = attempt.phase in (Phase.ORDERED, Phase.RESIZING)  # else it would have been done at once
    if attempt.phase is Phase.RESIZING:
        attempt.change = Change(places + leaving_places, slots + leaving, len(places), job.state_since_ms)
    attempt.log_saved = not attempt.has_driver
    return attempt


def _phase(attempt: Attempt) -> Phase:
    if attempt.ending is not None:
        return Phase.KILLING if attempt.order == protocol.REVOKED else Phase.CLOSING
    if attempt.order != protocol.RUN:
        return Phase.ORDERED
    phases = {
        JobState.QUEUED: Phase.PARKED,
        JobState.HELD: Phase.PARKED,
        JobState.ADMITTED: Phase.GRANTING,
        JobState.STARTING: Phase.LAUNCHING,
        JobState.RESIZING: Phase.RESIZING,
    }
    return phases.get(attempt.state, Phase.RUNNING)


def _held(places: list[dict[str, Any]]) -> tuple[tuple[TaskPlace, ...], tuple[SlotRef, ...]]:  # Any: JSON
    """Places and slots as `rows.places_json` wrote them."""
    refs = tuple(SlotRef(**ref) for place in places for ref in place["slots"])
    return tuple(TaskPlace(place["node"], tuple(ref["slot"] for ref in place["slots"])) for place in places), refs


def _rank(slots: tuple[SlotRef, ...], ref: SlotRef) -> tuple[int, int]:
    """Grouped by node in order of first appearance, then by device."""
    return next(i for i, other in enumerate(slots) if other.node == ref.node), ref.device


def _ending(row: AttemptRow, job: Job, now_ms: int) -> Ending:
    """The ending that `rows.ending_known` wrote."""
    if row.outcome.startswith("start_failed:"):
        return NotStarted(row.outcome.partition(":")[2], job.error, endings.retry_at(0, now_ms), row.exit_code)
    if row.outcome in {state.value for state in JobState}:
        return Finish(JobState(row.outcome), row.exit_code, job.error)
    retry_ms = endings.retry_at(0, now_ms) if row.outcome == "crashed" else 0
    return Requeue(row.outcome, retry_ms, row.exit_code, job.error)
