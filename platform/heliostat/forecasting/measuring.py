"""How well live elastic jobs scale, from what their runners reported: goodput curves for the engine, which grows by them.

The reports are in the store (`metric`): nothing is remembered here that could not be read again, and what the engine was told last
stands in the mirrored engine. A job of which too little was measured has no curve; the engine then grows it as it grows everybody of
whom nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from heliostat_scheduler.core import Engine
from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.space import WHOLE
from heliostat_scheduler.estimate.expectation import GROWTH, MOVED
from heliostat_scheduler.estimate.throughput import Meter, curve, sizes_of
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from heliostat.control.learned import MILLI
from heliostat.store.jobs import SERVE
from heliostat.store.tables import Metric

Report = Row[int, str, int, int, str, float]
Curve = tuple[tuple[int, int], ...]
WORLD, PACE, EPOCH = "world_size", "samples_per_s", "epoch"
NAMES = (WORLD, PACE, EPOCH)
PAGE = 5_000
PAGES = 4
"""Read at once; the rest at the next look."""
KEPT = 3_000
"""Rows of a job that ran before this process."""
FITS = 20
"""Curves fitted at once."""


@dataclass(slots=True)
class Measured:
    """One elastic job. read: up to which row its past was read, -1: not yet. shown: what its curve was made of; curve: (tasks, work per second)."""

    meter: Meter = field(default_factory=Meter)
    read: int = -1
    shown: tuple[tuple[int, float], ...] = ()
    sizes: tuple[int, ...] = ()
    curve: Curve = ()


class Measuring:
    """Not thread-safe."""

    def __init__(self, read: Callable[[], AbstractContextManager[Session]]) -> None:
        self._read = read
        self._jobs: dict[str, Measured] = {}
        self._last: int | None = None
        self.left = False
        """Whether the last look left something to the next one."""

    def look(self, engine: Engine) -> list[list[Any]]:  # Any: JSON
        """[job, [[tasks, work per second], ...] or [] where that has not moved, work done, unit], both in thousandths."""
        recs = {job: rec for job in sorted(engine.state.elastic) if measurable(rec := engine.state.book.jobs[job])}
        self._jobs = {job: self._jobs.get(job) or Measured() for job in recs}
        self.left = False
        self._listen(recs)
        found, fits = [], 0
        for job, rec in recs.items():
            known = self._jobs[job]
            if self._is_new(known, rec, engine):
                self.left |= fits >= FITS
                if fits >= FITS:
                    continue
                fits += 1
                _fit(known, engine, rec)
            if known.curve and (told := _told(known, rec)):
                found.append([job, *told])
        return found

    # -- what was reported

    def _listen(self, recs: dict[str, JobRec]) -> None:
        with self._read() as session:
            if self._last is None:
                self._last = session.execute(select(func.max(Metric.id))).scalar() or 0
            for job, rec in recs.items():
                if rec.attempt and self._jobs[job].read < 0:
                    self._jobs[job].read = self._last
                    self._hear(_before(session, job, self._last))
            for _ in range(PAGES):
                rows = _after(session, self._last)
                self._last = rows[-1].id if rows else self._last
                self._hear(row for row in rows if row.job in self._jobs and row.id > self._jobs[row.job].read)
                if len(rows) < PAGE:
                    return
        self.left = True

    def _hear(self, rows: Iterable[Report]) -> None:
        """The rows of one report stand together."""
        key: tuple[str, int, int] | None = None
        facts: dict[str, float] = {}
        for row in rows:
            if (row.job, row.attempt, row.at_ms) != key:
                self._report(key, facts)
                key, facts = (row.job, row.attempt, row.at_ms), {}
            facts[row.name] = row.value
        self._report(key, facts)

    def _report(self, key: tuple[str, int, int] | None, facts: dict[str, float]) -> None:
        if key is not None and WORLD in facts:
            job, attempt, at_ms = key
            meter = self._jobs[job].meter
            meter.heard(attempt, int(facts[WORLD]), at_ms / 1000, facts.get(PACE), facts.get(EPOCH))

    # -- curves

    def _is_new(self, known: Measured, rec: JobRec, engine: Engine) -> bool:
        """Whether its curve has to be made, or made again: other sizes were measured or are asked for, or a measured one has changed."""
        measured = known.meter.measured()
        if not measured:
            return False
        shown = dict(known.shown)
        if shown.keys() != measured.keys() or _sizes(known, engine, rec) != known.sizes:
            return True
        return any(abs(per_s - shown[tasks]) > MOVED / 2 * shown[tasks] for tasks, per_s in measured.items())


def measurable(rec: JobRec) -> bool:
    """Whether its size is a matter of goodput: a job on whole GPUs that may change it."""
    spec = rec.spec
    return (
        spec.elastic
        and spec.kind != SERVE
        and spec.shape.gpu_milli >= WHOLE
        and max(spec.max_tasks, rec.tasks) > spec.min_tasks
    )


def _sizes(known: Measured, engine: Engine, rec: JobRec) -> tuple[int, ...]:
    spec, tried = rec.spec, max(known.meter.measured())
    return tuple(sizes_of(spec.min_tasks, spec.max_tasks, rec.tasks, tried, _per_node(engine, rec)))


def _per_node(engine: Engine, rec: JobRec) -> int:
    """Tasks of the job that a node of its flavor holds."""
    nodes = engine.state.book.nodes.values()
    slots = max((len(node.spec.slots) for node in nodes if not rec.flavor or node.spec.flavor == rec.flavor), default=1)
    return max(1, slots * WHOLE // rec.spec.shape.gpu_milli)


def _fit(known: Measured, engine: Engine, rec: JobRec) -> None:
    measured = known.meter.measured()
    milli = MILLI[known.meter.unit]
    known.shown, known.sizes = tuple(measured.items()), _sizes(known, engine, rec)
    points = curve(measured, known.sizes, _per_node(engine, rec))
    known.curve = tuple((tasks, max(1, round(milli * per_s))) for tasks, per_s in points)


def _told(known: Measured, rec: JobRec) -> list[Any] | None:  # Any: JSON
    """What the engine does not know yet; None: nothing that counts."""
    done = round(MILLI[known.meter.unit] * known.meter.done())
    before = dict(rec.goodput)
    moved = before.keys() != dict(known.curve).keys() or any(
        abs(goodput - before[tasks]) > MOVED * before[tasks] for tasks, goodput in known.curve
    )
    if not moved and done <= GROWTH * rec.done_milli:
        return None
    return [[list(point) for point in known.curve] if moved else [], max(done, rec.done_milli), known.meter.unit]


def _after(session: Session, last: int) -> list[Report]:
    query = _columns().where(Metric.id > last, Metric.name.in_(NAMES)).order_by(Metric.id).limit(PAGE)
    return list(session.execute(query).all())


def _before(session: Session, job: str, last: int) -> list[Report]:
    query = (
        _columns()
        .where(Metric.job == job, Metric.id <= last, Metric.name.in_(NAMES))
        .order_by(Metric.id.desc())
        .limit(KEPT)
    )
    return list(reversed(session.execute(query).all()))


def _columns() -> Any:  # Any: a select of Report's columns
    return select(Metric.id, Metric.job, Metric.attempt, Metric.at_ms, Metric.name, Metric.value)
