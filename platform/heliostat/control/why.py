"""Why each waiting job waits, kept in the store: a little of it each turn, so that 100,000 waiting jobs cost no cycle.

A change of the reason's code is written, as an event of the job's history too; a change of its numbers only is not: while a job
waits, the doors ask the engine itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from heliostat_scheduler.core.reasons import Reason
from sqlalchemy.orm import Session

from heliostat.control.outbox import Outbox
from heliostat.store import events, moves
from heliostat.store.reasons import reason_json

PER_TURN = 200


@dataclass(slots=True)
class WhySweep:
    """waiting: the jobs to look at. left: how many have not been looked at since the last cycle."""

    waiting: dict[str, None]
    reason: Callable[[str], Reason | None]
    noted: dict[str, Reason] = field(default_factory=dict)
    left: int = 0

    def cycle_done(self) -> None:
        self.left = len(self.waiting)

    def tick(self, out: Outbox, now_ms: int) -> None:
        """Look at the next few. What changed is written in one step: thousands may wait."""
        changed: list[tuple[str, Reason]] = []
        for _ in range(min(self.left, PER_TURN, len(self.waiting))):
            job_id = next(iter(self.waiting))
            del self.waiting[job_id]
            self.waiting[job_id] = None  # to the end of the round
            reason = self.reason(job_id)
            old = self.noted.get(job_id)
            if reason is not None and (old is None or old.code is not reason.code):
                self.noted[job_id] = reason
                changed.append((job_id, reason))
        self.left = max(0, self.left - PER_TURN)
        if changed:
            out.step("reasons", lambda session: _note(session, changed, now_ms))

    def forget(self, job_id: str) -> None:
        self.noted.pop(job_id, None)


def _note(session: Session, changed: list[tuple[str, Reason]], now_ms: int) -> None:
    for job_id, reason in changed:
        noted = moves.note_reason(session, job_id, reason)
        if noted is not None:
            project, attempts = noted
            events.append(
                session,
                at_ms=now_ms,
                kind="job_waits",
                job=job_id,
                project=project,
                actor="scheduler",
                attempt=attempts or None,
                reason=reason_json(reason),
            )
