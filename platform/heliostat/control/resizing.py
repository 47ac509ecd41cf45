"""A live job's lease changes its size: the order, and what is awaited until it is complete.

    resize decided -> lease with a higher epoch, new slots, and the slots that it leaves -> the runner saves a checkpoint and ends its
    workers (`released`, verified by the bridge: the slots that are left go to others now) -> workers run in the new slots
    (`started`) -> the job is running again

Until the slots that it leaves are verified free they belong to this lease, on the board too, so nobody else gets them and the
watchdog lets their processes be. A driver outside of `fit()` has no workers: its lease changes at once. Slots that are not left
by the deadline mean that nobody obeys; then the attempt ends the hard way and the job resumes from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from heliostat_scheduler.core.decisions import Resize
from heliostat_scheduler.core.events import JobResized, PlacesReleased
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Acked

from heliostat.control import receipts, rows
from heliostat.control.attempts import Attempt, Change, Ending, Phase, Requeue
from heliostat.control.closing import Closing
from heliostat.control.outbox import Outbox
from heliostat.control.patience import ORDER_SLACK_MS, RESTART_PATIENCE_MS
from heliostat.control.slot_refs import refs_of
from heliostat.store import jobs

HOW_BEGUN = ("kept", "warm", "plain_because")
"""What a runner says of a start: processes that it kept, that were started beforehand, and why it kept none."""


@dataclass(slots=True)
class Resizing(Closing):
    """The executor's part that resizes."""

    def resize(self, decision: Resize, out: Outbox, now_ms: int) -> None:
        """Order it. An attempt that is ending anyway only learns the new epoch: the engine hears of its end."""
        attempt = self.attempts[decision.job_id]
        attempt.epoch, attempt.reason = decision.epoch, decision.reason
        if attempt.phase is not Phase.RUNNING:
            if not attempt.freed:
                out.step(attempt.job, lambda s: rows.resized(s, attempt))
                self.take_back(attempt, out)
            return
        change = Change(attempt.places, attempt.slots, len(decision.places), now_ms)
        slots = refs_of(self.nodes.values(), decision.places)
        if slots is None:
            attempt.change = change
            self.refuse_resize(attempt, "a slot went away between the decision and the order", out, now_ms)
            return
        attempt.places, attempt.slots, attempt.tasks = decision.places, slots, len(decision.places)
        attempt.node = decision.places[0].node
        attempt.leaving = tuple(ref for ref in change.slots if ref not in slots)
        attempt.leaving_places = tuple(place for place in change.places if place not in decision.places)
        attempt.phase, attempt.change, attempt.why = Phase.RESIZING, change, decision.reason.code.value
        attempt.deadline_ms = now_ms + decision.grace_ms
        attempt.due_ms = attempt.deadline_ms + ORDER_SLACK_MS
        data = {"from": change.tasks, "to": change.to, "epoch": attempt.epoch, "slots": [ref.slot for ref in slots]}
        self.moved(attempt, JobState.RESIZING, decision.reason, out, now_ms, data)
        self._write(attempt, tuple(ref for ref in slots if ref not in change.slots), out, now_ms)

    def _write(self, attempt: Attempt, new: tuple[protocol.SlotRef, ...], out: Outbox, now_ms: int) -> None:
        with self.store.read() as session:
            gpu_milli = min(1000, jobs.get(session, attempt.job).gpu_milli)
        flavors = {node.node: node.flavor for node in self.nodes.values()}
        spans = partial(
            receipts.open_slot_spans, attempt=attempt, slots=new, flavors=flavors, gpu_milli=gpu_milli, now_ms=now_ms
        )

        def write(session: Any) -> None:  # Any: SQLAlchemy's session
            rows.resized(session, attempt)
            spans(session)

        effects = [self.put(attempt)]
        if attempt.is_serving:
            effects.append(self.serving.look)
        out.step(attempt.job, write, *effects)

    def replicas_left(self, attempt: Attempt, out: Outbox) -> None:
        """Serve has ended the replicas that the lease has no place for: let the bridge look again who is in the slots left."""
        if attempt.phase is Phase.RESIZING:
            out.step(attempt.job, None, self.put(attempt))

    def resize_answered(
        self,
        attempt: Attempt,
        code: str,
        text: str,
        data: dict[str, Any],  # Any: JSON
        out: Outbox,
        now_ms: int,
    ) -> None:
        """The bridge has the new lease, or refuses it."""
        if attempt.phase is not Phase.RESIZING or attempt.change is None:
            return
        if code:
            self.refuse_resize(attempt, f"{code}: {text}", out, now_ms)
        elif attempt.leaving and data.get("left"):
            self._left(attempt, {}, out, now_ms)
        elif not attempt.leaving:
            self.complete_resize(attempt, out, now_ms)  # at once, if no workers are there to be started anew

    def resize_released(self, attempt: Attempt, acked: Acked, out: Outbox, now_ms: int) -> None:
        """The runner's workers are gone from the slots that the lease leaves; the bridge has verified it."""
        if attempt.phase is not Phase.RESIZING or attempt.change is None or acked.epoch != attempt.epoch:
            return
        self._left(attempt, acked.facts, out, now_ms)

    def resize_started(self, attempt: Attempt, acked: Acked, out: Outbox, now_ms: int) -> None:
        """Workers run in the new slots."""
        if attempt.phase is Phase.RESIZING and attempt.change is not None and acked.epoch == attempt.epoch:
            attempt.change.started = True
            attempt.change.began = {name: acked.facts[name] for name in HOW_BEGUN if name in acked.facts}
            self.complete_resize(attempt, out, now_ms)

    def complete_resize(self, attempt: Attempt, out: Outbox, now_ms: int, *, late: bool = False) -> None:
        """The order is fulfilled once its slots are left and workers run again, or nobody is there who would start any.

        late: workers are long overdue; the lease is in order all the same, and what they do is their runner's affair.
        """
        change = attempt.change
        if change is None or attempt.leaving:
            return
        if attempt.runner_seen and not change.started and not late:
            return
        attempt.phase, attempt.change, attempt.due_ms = Phase.RUNNING, None, None
        data = {"from": change.tasks, "to": change.to, "epoch": attempt.epoch, **change.seconds(now_ms), **change.began}
        self.moved(attempt, JobState.RUNNING, None, out, now_ms, data)
        out.event(JobResized(attempt.job, attempt.epoch, attempt.places))

    def refuse_resize(self, attempt: Attempt, why: str, out: Outbox, now_ms: int) -> None:
        """The new slots cannot be had: the lease stays as it was."""
        change = attempt.change
        assert change is not None, "only a resize can be refused"
        before = attempt.state
        attempt.places, attempt.slots, attempt.tasks = change.places, change.slots, change.tasks
        attempt.node = change.places[0].node
        attempt.leaving, attempt.leaving_places = (), ()
        attempt.phase, attempt.change, attempt.due_ms = Phase.RUNNING, None, None
        kept = {ref.slot for ref in change.slots}

        def write(session: Any) -> None:  # Any: SQLAlchemy's session
            rows.resized(session, attempt)
            receipts.close_spans_except(session, attempt.job, kept, now_ms)
            rows.happened(session, "resize_refused", attempt, now_ms, {"why": why, "to": change.to})

        out.step(attempt.job, write)
        if before is JobState.RESIZING:
            self.moved(attempt, JobState.RUNNING, None, out, now_ms)
        out.event(JobResized(attempt.job, attempt.epoch, attempt.places))

    def resize_overdue(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        """Its deadline is over: the slots are taken the hard way, or the workers need no more patience."""
        if attempt.leaving:
            self.kill(attempt, Requeue("resize_overdue"), out, now_ms)
        else:
            self.complete_resize(attempt, out, now_ms, late=True)

    def kill(self, attempt: Attempt, ending: Ending, out: Outbox, now_ms: int) -> None:
        """The hard way: revoke the lease, kill whoever is in its slots, end its driver."""
        attempt.order = protocol.REVOKED
        self.write_order(attempt, protocol.REVOKED, out)
        self.close(attempt, attempt.ending or ending, out, now_ms, hard=True)

    def write_order(self, attempt: Attempt, order: str, out: Outbox) -> None:
        epoch, deadline_ms = attempt.epoch, attempt.deadline_ms
        out.step(attempt.job, lambda s: rows.ordered(s, attempt, epoch, order, deadline_ms))

    def _left(self, attempt: Attempt, facts: dict[str, Any], out: Outbox, now_ms: int) -> None:  # Any: JSON
        """The slots that the lease leaves are anybody's now."""
        change = attempt.change
        assert change is not None, "only a resize leaves slots"
        places, attempt.leaving, attempt.leaving_places = attempt.leaving_places, (), ()
        if change.released_ms is None:
            change.released_ms = now_ms
            attempt.due_ms = now_ms + RESTART_PATIENCE_MS
            kept = {ref.slot for ref in attempt.slots}
            data = {**facts, "released_s": change.since(now_ms), "slots": sorted({r.slot for r in change.slots} - kept)}

            def write(session: Any) -> None:  # Any: SQLAlchemy's session
                rows.resized(session, attempt)
                receipts.close_spans_except(session, attempt.job, kept, now_ms)
                rows.happened(session, "job_released", attempt, now_ms, data)

            out.step(attempt.job, write)
            if places:
                out.event(PlacesReleased(attempt.job, attempt.epoch, places))
        self.complete_resize(attempt, out, now_ms)
