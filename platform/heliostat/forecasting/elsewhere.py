"""A remedy that only time can show: in another queue the job would start sooner, though not at once.

`explain` in the core tries what starts a job within one cycle. Here the job is moved on a copy, the copy runs forward at the median run
times, and the queue where it starts first is told with the time, if that is worth a move. Somebody who loses GPUs by it is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from heliostat_scheduler.core import Engine, ReasonCode, Remedy, RemedyKind
from heliostat_scheduler.core.editing import edit_command
from heliostat_scheduler.core.events import JobChanged
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.estimate.expectation import Expectations
from heliostat_scheduler.forecast import Course, Future
from heliostat_scheduler.forecast import whatif as what
from heliostat_scheduler.forecast.future import Rest

SHARED = frozenset(
    {
        ReasonCode.LIMIT_REACHED,
        ReasonCode.QUOTA_EXHAUSTED,
        ReasonCode.BORROW_BLOCKED,
        ReasonCode.FAIR_SHARE_EXCEEDED,
        ReasonCode.USER_LIMIT,
        ReasonCode.BELOW_PRIORITY,
        ReasonCode.INSUFFICIENT_FREE,
        ReasonCode.FRAGMENTED,
        ReasonCode.GANG_INCOMPLETE,
    }
)
"""Reasons for which another queue may be the answer: policy and capacity."""
MOST_QUEUES = 4
WORTH_MS = 60_000
"""It must start this much sooner, and in two thirds of the time."""


def sooner_elsewhere(
    engine: Engine,
    spec: JobSpec,
    rest: Rest,
    now_ms: int,
    horizon_ms: int,
    expected: Expectations | None,
    enough: Callable[[], bool],
) -> Remedy | None:
    """The best other queue for a waiting job, or None. The engine stays as it is; `enough` ends the search."""
    here = _course(engine, spec, rest, now_ms, horizon_ms, expected)
    mine = here.starts.get(spec.id, now_ms + horizon_ms)
    best: tuple[int, JobSpec, Course] | None = None
    for queue in _other_queues(engine, spec):
        if enough():
            break
        moved = replace(spec, queue=queue)
        course = _course(engine, moved, rest, now_ms, min(horizon_ms, mine - now_ms), expected)
        at_ms = course.starts.get(spec.id)
        if at_ms is not None and (best is None or at_ms < best[0]):
            best = at_ms, moved, course
    if best is None or best[0] > mine - WORTH_MS or 3 * (best[0] - now_ms) > 2 * (mine - now_ms):
        return None
    at_ms, moved, course = best
    command, text = edit_command(spec, moved)
    losers = sorted({eviction.job_id for eviction in course.evictions if eviction.beneficiary == spec.id})
    return Remedy(RemedyKind.APPLY, "change_queue", text, command, at_ms, tuple(losers))


def _other_queues(engine: Engine, spec: JobSpec) -> list[str]:
    """Leaves, the one with the most of its share unused first."""
    parents = {row.parent for row in engine.queue_usage()}
    leaves = [row for row in engine.queue_usage() if row.name not in parents and row.name != spec.queue]
    slack = {row.name: sum(row.entitled.values()) - sum(row.used.values()) for row in leaves}
    return [row.name for row in sorted(leaves, key=lambda row: (-slack[row.name], row.name))][:MOST_QUEUES]


def _course(
    engine: Engine, spec: JobSpec, rest: Rest, now_ms: int, horizon_ms: int, expected: Expectations | None
) -> Course:
    copy = engine.branch()
    if copy.state.book.jobs[spec.id].spec != spec:
        copy.apply(JobChanged(spec), now_ms)
    grid = what.grid_for(engine, horizon_ms)
    return Future(copy, now_ms, rest, grid=grid, expected=expected).run(now_ms + horizon_ms, frozenset({spec.id}))


def deadline(budget_s: float) -> Callable[[], bool]:
    """Says whether so many seconds have passed since now."""
    until = time.monotonic() + budget_s
    return lambda: time.monotonic() > until
