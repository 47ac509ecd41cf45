"""Many possible futures of one engine: what estimates are made of, live and in the study on traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.forecast.arrivals import like_before
from heliostat_scheduler.forecast.future import Course, Future, Grid, begun_jobs
from heliostat_scheduler.forecast.lengths import Lengths

if TYPE_CHECKING:
    from heliostat_scheduler.estimate.expectation import Expectations


def futures(
    engine: Engine,
    lengths: Lengths,
    recent: Sequence[JobSpec],
    now_ms: int,
    horizon_ms: int,
    seeds: Sequence[int],
    grid: Grid,
    wanted: frozenset[str],
    expected: Expectations | None,
    enough: Callable[[int], bool] = lambda _done: False,
) -> list[Course]:
    """A future for each seed until `enough(done)`; each ends at the horizon or when all `wanted` have started. The engine stays as it is."""
    courses = []
    known = lengths.beside(begun_jobs(engine, now_ms, expected))
    for seed in seeds:
        draw = known.draw(seed)
        coming = like_before(recent, draw, now_ms, horizon_ms, seed)
        future = Future(engine.branch(), now_ms, draw, coming, grid=grid, expected=expected)
        courses.append(future.run(now_ms + horizon_ms, wanted))
        if enough(len(courses)):
            break
    return courses
