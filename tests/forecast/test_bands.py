"""A what-if with run times that nobody knows: the band that it states holds as often as it says, on recorded days with an edit each.

The forecast knows of a day what a platform knows: which jobs there are, how long they have run, and the distribution of run times (here
the one that the days were drawn from). The truth is the day itself with the edit applied.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from heliostat_scheduler.core.events import Event, JobCancelled
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.forecast import Arrival, Course, whatif
from heliostat_scheduler.forecast.bands import PAIRS, Band, bands, held_share
from heliostat_scheduler.forecast.lengths import uniform

from tests.forecast.day import HOUR_MS, Day, at_noon, evening
from tests.forecast.test_whatif import NOON, UNTIL, draw, happened, starts_after_noon

SHORTEST, LONGEST = HOUR_MS // 4, 4 * HOUR_MS
SOON = NOON + 6 * HOUR_MS


def drawn_rest(seed: int, spec: JobSpec, ran_ms: int) -> int:
    """The days' own distribution, given what the job has run."""
    low = max(SHORTEST, ran_ms)
    return max(1, low + int(uniform(seed, spec.id) * max(0, LONGEST - low)) - ran_ms)


def foretold(day: Day, edit: list[Event], pairs: int) -> dict[str, Band]:
    def course(seed: int, events: list[Event]) -> Course:
        def rest(spec: JobSpec, ran_ms: int) -> int:
            return drawn_rest(seed, spec, ran_ms)

        coming = [Arrival(a.at_ms, a.spec, rest(a.spec, 0)) for a in day.coming()]
        return whatif.course_of(day.drive.engine, NOON, rest, coming, UNTIL - NOON, events)

    return bands([(course(seed, []), course(seed, edit)) for seed in range(pairs)])


def judged(day_seed: int, edit_seed: int, pairs: int) -> Iterator[tuple[Band, int | None, int | None]]:
    """For each job that waits at noon or comes within six hours: the band, its true start with the edit, and without."""
    day = at_noon(day_seed)
    edit, runs_ms = draw(day.drive.engine, random.Random(edit_seed))
    told = foretold(day, edit, pairs)
    ended = {event.job_id for event in edit if isinstance(event, JobCancelled)}
    as_it_was = starts_after_noon(evening(day_seed, UNTIL))
    as_edited = starts_after_noon(happened(edit, runs_ms, day_seed))
    asked = [*day.drive.engine.state.waiting.keys, *(a.spec.id for a in day.coming() if a.at_ms <= SOON)]
    for job in asked:
        if job in told and job not in ended:
            yield told[job], as_edited.get(job), as_it_was.get(job)


def test_a_band_counts_which_way_a_job_moves_and_where_it_starts() -> None:
    def course(**starts: int) -> Course:
        return Course(0, 100, starts=starts)

    told = bands([(course(a=50, b=10), course(a=20, b=10)), (course(a=50), course(a=60, b=30))])
    assert told == {"a": Band(20, 60, 1, 1), "b": Band(10, 30, 1, 0)}
    assert told["a"].holds(20) and told["a"].holds(60) and not told["a"].holds(61) and not told["a"].holds(None)
    assert Band(5, None, 0, 1).holds(None)
    assert held_share(PAIRS) == 0.9


def test_without_an_edit_the_two_sides_of_a_pair_are_the_same() -> None:
    assert all((band.earlier, band.later) == (0, 0) for band in foretold(at_noon(3), [], 2).values())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_band_holds_as_often_as_it_says() -> None:
    """Fifty edits, each of another day. Jobs of one day depend on each other, so the share is that of 50 days, not of 1,600 jobs."""
    held = moved = right = total = 0
    for seed in range(50):
        for band, edited, before in judged(100 + seed, seed, PAIRS):
            total += 1
            held += band.holds(edited)
            sure = max(band.earlier, band.later) > held_share(PAIRS) * PAIRS
            if sure and edited != before:
                moved += 1
                right += (band.earlier > band.later) == ((edited or UNTIL) < (before or UNTIL))
    print(f"{total} jobs, in the band {held / total:.3f}; sure of the direction and moved {moved}, right {right}")
    assert total > 1_000
    assert 0.86 <= held / total <= 0.94
    assert right >= 0.9 * moved
