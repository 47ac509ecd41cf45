"""A second engine, in another process, that follows the live one by its decision log.

It is restored from the newest snapshot and then does what every record says was done: the events at their times, then the decision. Its
state is the live engine's after the last committed cycle, and following costs the control plane nothing: no snapshot, no lock. On the
way each cycle is checked: another state digest than the recorded one is a `Diverged`. A control plane that starts writes a snapshot of
what it begins with; the mirror sees it and begins there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from heliostat_scheduler.core import Engine, codec
from heliostat_scheduler.core.events import Event
from sqlalchemy import select
from sqlalchemy.orm import Session

from heliostat.store.tables import DecisionLog, Snapshot

PAGE = 500


class Diverged(Exception):
    """The engine came to another state than the log says: another program version wrote it, or the log was changed."""

    def __init__(self, cycle: int, what: str) -> None:
        super().__init__(f"cycle {cycle}: {what}")
        self.cycle = cycle
        self.what = what


def events_of(row: DecisionLog) -> list[tuple[int, Event]]:
    """(time, event) in the order in which they were applied."""
    return [(at_ms, codec.decode(codec.TAGGED[event["type"]], event)) for at_ms, event in codec.loads(row.events)]


def again(engine: Engine, row: DecisionLog, *, digest: bool = True) -> None:
    """Do what the record says was done. Raises Diverged unless the plan's bytes and the state's digest are the recorded ones."""
    for at_ms, event in events_of(row):
        engine.apply(event, at_ms)
    plan = engine.decide(row.at_ms)
    if codec.to_json(plan.decisions) != codec.to_json(codec.from_json(row.decisions).decisions):
        raise Diverged(row.cycle, "other decisions")
    if digest and engine.digest() != row.state_digest:
        raise Diverged(row.cycle, "the same decisions, but another state")


class Mirror:
    """Not thread-safe. `engine` is the live one as of `at_ms`, the time of cycle `cycle`; it must not be changed by others."""

    def __init__(self, read: Callable[[], AbstractContextManager[Session]], *, digest: bool = False) -> None:
        self.engine = Engine()
        self.cycle = -1
        self.at_ms = 0
        self._read = read
        self._digest = digest
        self._base: tuple[int, int] | None = None

    def catch_up(self) -> int:
        """Follow to the newest committed cycle; how many cycles that were."""
        done = 0
        with self._read() as session:
            self._begin(session)
            while rows := self._next(session):
                for row in rows:
                    again(self.engine, row, digest=self._digest)
                    self.cycle, self.at_ms = row.cycle, row.at_ms
                    done += 1
        return done

    def _begin(self, session: Session) -> None:
        """Begin at the newest snapshot, unless we are past it already."""
        newest = session.execute(
            select(Snapshot.cycle, Snapshot.at_ms).order_by(Snapshot.cycle.desc()).limit(1)
        ).one_or_none()
        if newest is None or self._base == (newest.cycle, newest.at_ms):
            return
        started_anew = newest.cycle >= self.cycle
        self._base = (newest.cycle, newest.at_ms)
        if not started_anew:
            return
        row = session.execute(select(Snapshot).where(Snapshot.cycle == newest.cycle)).scalar_one()
        self.engine = Engine.restore(row.body)
        self.cycle, self.at_ms = row.cycle, row.at_ms

    def _next(self, session: Session) -> list[DecisionLog]:
        query = select(DecisionLog).where(DecisionLog.cycle > self.cycle).order_by(DecisionLog.cycle).limit(PAGE)
        return list(session.execute(query).scalars())
