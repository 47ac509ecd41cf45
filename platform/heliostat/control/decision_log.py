"""The decision log: what went into each engine cycle and what came out, hash-chained, so that it can be replayed and trusted.

A full snapshot of the engine is written when a control plane starts and every SNAPSHOT_CYCLES cycles. Replay begins at a
snapshot, applies the events of each record at their times, and must come to the same decisions and the same state digest.
"""

from __future__ import annotations

from dataclasses import dataclass

from heliostat_scheduler.core import codec
from heliostat_scheduler.core.decisions import Plan
from heliostat_scheduler.core.events import Event
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from heliostat.store.chain import GENESIS, link
from heliostat.store.tables import DecisionLog, Snapshot

SNAPSHOT_CYCLES = 1_000


@dataclass(frozen=True, slots=True)
class Record:
    """One cycle. events: (time, event) in the order in which they were applied."""

    cycle: int
    at_ms: int
    events: tuple[tuple[int, Event], ...]
    plan: Plan
    policy_digest: str
    state_digest: str

    def row(self, previous: str) -> DecisionLog:
        events = "[" + ",".join(f"[{at_ms},{codec.to_json(event)}]" for at_ms, event in self.events) + "]"
        decisions = codec.to_json(self.plan)
        body = {
            "cycle": self.cycle,
            "at_ms": self.at_ms,
            "events": events,
            "decisions": decisions,
            "policy_digest": self.policy_digest,
            "state_digest": self.state_digest,
        }
        return DecisionLog(
            cycle=self.cycle,
            at_ms=self.at_ms,
            events=events.encode(),
            decisions=decisions.encode(),
            policy_digest=self.policy_digest,
            state_digest=self.state_digest,
            previous=previous,
            hash=link(previous, body),
        )


def append(session: Session, record: Record) -> None:
    session.add(record.row(head(session)))
    session.flush()


def keep_snapshot(session: Session, cycle: int, at_ms: int, body: bytes, digest: str) -> None:
    """The engine as it was after `cycle`."""
    session.merge(Snapshot(cycle=cycle, at_ms=at_ms, body=body, digest=digest))


def head(session: Session) -> str:
    newest = select(DecisionLog.hash).order_by(DecisionLog.cycle.desc()).limit(1)
    return session.execute(newest).scalar() or GENESIS


def last_cycle(session: Session) -> int:
    return session.execute(select(func.max(DecisionLog.cycle))).scalar() or 0
