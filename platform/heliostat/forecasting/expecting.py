"""How long live jobs are expected to run, learned from the finished ones in the store; for the engine, which ranks equals by it.

`Expectations` is the simulator's; here it is fed from two sides. The mirrored engine says who waits and who runs, and what it was told last:
that is the only memory, so neither a restart of this process nor one of the control plane loses an estimate or tells it twice. The store says how
long jobs have run. A queue of which fewer than FEWEST jobs have finished is left alone: its jobs keep the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from heliostat_scheduler.core import Engine
from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.lifecycle import LIVE, JobState
from heliostat_scheduler.estimate.expectation import MOVED, Expectations
from heliostat_scheduler.estimate.history import RunHistory
from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from heliostat.store.jobs import SERVE
from heliostat.store.tables import Job

Json = dict[str, Any]  # Any: JSON
Record = Row[Any]  # Any: columns of different types
FEWEST = 20
FINISHED = 5_000
RELOAD = 50_000
"""Arrivals after which history is read anew, so that what is long past does not fill the memory."""
MOST = 500
"""Jobs looked at, and told, at once."""
PIECE = 500
RAN = (JobState.SUCCEEDED.value, JobState.FAILED.value)
RUNS = (JobState.RUNNING.value, JobState.RESIZING.value, JobState.PREEMPTING.value)


@dataclass(slots=True)
class Followed:
    """A live job as it was at the last look. run: the attempt that runs, 0 while it waits."""

    queue: str
    run: int = 0


class Expecting:
    """Not thread-safe. `look` follows the mirrored engine and answers what is to be told."""

    def __init__(self, read: Callable[[], AbstractContextManager[Session]], fewest: int = FEWEST) -> None:
        self._read = read
        self._fewest = fewest
        self._engine: Engine | None = None
        self._expected = Expectations(RunHistory(), fewest)
        self._followed: dict[str, Followed] = {}
        self._arrivals = 0
        self._unlearned: list[str] = []
        self._fresh: dict[str, int] = {}
        self._turns: dict[str, bool] = {}

    @property
    def expected(self) -> Expectations | None:
        """As of the last look; for futures, which take copies. None while there was no look."""
        return None if self._engine is None else self._expected

    def due(self, now_ms: int) -> bool:
        """Whether time alone, or what was left over last, makes a look worth while."""
        look = self._expected.next_look()
        return bool(self._unlearned) or (look is not None and look <= now_ms / 1000)

    def look(self, engine: Engine, now_ms: int, most: int = MOST) -> Json | None:
        """rests: [job, expected rest in ms; 0: nothing is known any more]. fresh: queue -> [expected run time of a new job, finished jobs that
        it is learned from]. None: nothing new."""
        if engine is not self._engine or self._arrivals > RELOAD:
            self._load(engine, now_ms)
        else:
            self._follow(engine, now_ms)
        self._see_turns(engine)
        rests: list[list[Any]] = [[job, 0] for job in self._unlearned[:most]]  # Any: a name and a number
        self._unlearned = self._unlearned[most:]
        rests += [
            [job, max(1, round(1000 * rest))] for job, rest in self._expected.moved(now_ms / 1000, most - len(rests))
        ]
        fresh = self._see_fresh(now_ms)
        return {"rests": rests, "fresh": fresh} if rests or fresh else None

    # -- from the store

    def _load(self, engine: Engine, now_ms: int) -> None:
        """Everything anew: finished jobs and live ones in the order of their arrival, and what the engine was told of them."""
        self._engine, self._followed, self._arrivals = engine, {}, 0
        self._unlearned, self._fresh, self._turns = [], {}, {}
        self._expected = Expectations(RunHistory(), self._fewest)
        with self._read() as session:
            ended = session.execute(_ended()).all()
            live = session.execute(_rows().where(Job.state.in_([state.value for state in LIVE]))).all()
        book = engine.state.book.jobs
        for row in sorted((*ended, *live), key=lambda row: int(row.seq)):
            if row.state in RAN:
                self._expected.arrived(row.id, row.queue, row.min_tasks * row.gpu_milli, f"{row.user}/{row.name}")
                self._finished(row, now_ms)
            elif row.id in book:
                self._arrived(book[row.id], now_ms)
                running_ms = now_ms - row.state_since_ms if row.state in RUNS else 0
                self._expected.history.has_run(row.id, (row.ran_ms + max(0, running_ms)) / 1000, now_ms / 1000)
        self._follow(engine, now_ms)
        for job in self._followed:
            self._adopt(engine, book[job])
        for queue in self._expected.queues():
            self._expected.everybody_of(queue)
        self._arrivals = 0

    def _ended_as(self, jobs: Sequence[str]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        with self._read() as session:
            for at in range(0, len(jobs), PIECE):
                rows = session.execute(_rows().where(Job.id.in_(jobs[at : at + PIECE]))).all()
                found |= {row.id: row for row in rows}
        return found

    # -- from the mirrored engine

    def _follow(self, engine: Engine, now_ms: int) -> None:
        """Who came, started, was stopped, changed its queue, or is gone since the last look."""
        book = engine.state.book.jobs
        gone = [job for job, known in self._followed.items() if job not in book or book[job].spec.queue != known.queue]
        if gone:
            self._gone(gone, now_ms)
        for job, rec in book.items():
            known = self._followed.get(job)
            if known is None:
                if rec.spec.kind != SERVE:
                    self._arrived(rec, now_ms)
                    self._adopt(engine, rec)
            elif (run := _run(rec)) != known.run:
                if known.run:
                    self._expected.stopped(job, now_ms / 1000)
                if run:
                    self._expected.started(job, min(now_ms, rec.running_at) / 1000)
                known.run = run

    def _arrived(self, rec: JobRec, now_ms: int) -> None:
        spec = rec.spec
        known = self._followed[rec.id] = Followed(spec.queue, _run(rec))
        self._arrivals += 1
        self._expected.arrived(rec.id, spec.queue, spec.min_tasks * spec.shape.gpu_milli, spec.template)
        if known.run:
            self._expected.started(rec.id, min(now_ms, rec.running_at) / 1000)

    def _adopt(self, engine: Engine, rec: JobRec) -> None:
        """What the engine was told of the job already, unless that fits its queue no more."""
        if not self._expected.learned(rec.spec.queue):
            if rec.rank:
                self._unlearned.append(rec.id)
        elif rec.remaining_ms is not None and bool(rec.rank) == takes_turns(engine, rec.spec.queue):
            self._expected.told[rec.id] = rec.remaining_ms / 1000

    def _gone(self, jobs: Sequence[str], now_ms: int) -> None:
        rows = self._ended_as(jobs)
        for job in jobs:
            del self._followed[job]
            row = rows.get(job)
            if row is not None and row.state in RAN and row.ran_ms:
                self._finished(row, now_ms)
            else:
                self._expected.dropped(job)

    def _finished(self, row: Record, now_ms: int) -> None:
        self._expected.history.has_run(row.id, row.ran_ms / 1000, now_ms / 1000)
        self._expected.finished(row.id, now_ms / 1000)

    def _see_turns(self, engine: Engine) -> None:
        """Where a queue was told to take turns, or not to any more, all of it is told again: with a rank, or without one."""
        for leaf in engine.state.book.tree.leaves:
            turns = takes_turns(engine, leaf.name)
            if self._turns.setdefault(leaf.name, turns) != turns:
                self._turns[leaf.name] = turns
                self._expected.anew(leaf.name)

    def _see_fresh(self, now_ms: int) -> dict[str, list[int]]:
        """What is expected of a new job, for each queue where that has moved."""
        found: dict[str, list[int]] = {}
        for queue in self._expected.queues():
            rest_ms = max(1, round(1000 * self._expected.history.fresh_s(queue, now_ms / 1000)))
            before = self._fresh.get(queue)
            if before is None or abs(rest_ms - before) > MOVED * before:
                self._fresh[queue] = rest_ms
                found[queue] = [rest_ms, self._expected.learned(queue)]
        return found


def takes_turns(engine: Engine, queue: str) -> bool:
    """Whether jobs of the queue are ranked by what is expected of them."""
    return engine.state.policy.rotate and engine.state.book.tree.by_name[queue].spec.rotate


def _run(rec: JobRec) -> int:
    return rec.attempt if rec.running_at else 0


def _rows() -> Select[*tuple[Any, ...]]:  # Any: columns of different types
    return select(
        Job.seq, Job.id, Job.queue, Job.user, Job.name, Job.state, Job.state_since_ms, Job.min_tasks, Job.gpu_milli, Job.ran_ms
    ).where(Job.kind != SERVE)  # fmt: skip


def _ended() -> Select[*tuple[Any, ...]]:  # Any: columns of different types
    """Of the newest finished jobs; those that ended by somebody's hand say nothing."""
    return _rows().where(Job.state.in_(RAN), Job.ran_ms > 0).order_by(Job.seq.desc()).limit(FINISHED)
