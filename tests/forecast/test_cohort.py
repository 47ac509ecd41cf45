"""A burst that ends slower than its kind is seen before any of it has ended, at the ages it has been through; the same in every process."""

from __future__ import annotations

import math

import pytest
from heliostat_scheduler.core.model import JobSpec, TaskShape
from heliostat_scheduler.forecast import Lengths, Ran
from heliostat_scheduler.forecast.cohort import NEWEST, PIECE, PIECES, PRIOR, Cohort, Ended, Pace, cohort
from heliostat_scheduler.forecast.lengths import uniform

MINUTE = 60_000
HISTORY = [minutes * MINUTE for minutes in range(1, 101)]
NOW = 10_000 * MINUTE


def spec(job: str = "j", at: int = NOW) -> JobSpec:
    return JobSpec(job, "q", at, TaskShape(1000), 1, 1)


def learned() -> Lengths:
    """A hundred jobs of one to a hundred minutes, that ended long ago."""
    return Lengths(Ran("q", "", 1000, ran_ms, ended_ms=200 * MINUTE + ran_ms) for ran_ms in HISTORY)


def burst(count: int, ran_minutes: int) -> list[tuple[JobSpec, int]]:
    return [(spec(f"b{index}"), ran_minutes * MINUTE) for index in range(count)]


def test_a_cohort_counts_what_ended_and_what_should_have_at_each_age() -> None:
    over = [Ended(100, 150 * MINUTE, 50 * MINUTE)] * 4
    long_ago = [Ended(0, 99 * MINUTE, 99 * MINUTE)] * 2
    found = cohort(HISTORY, [*over, *long_ago], [*[(100, 50 * MINUTE)] * 6, (0, 99 * MINUTE)])
    lived = math.log(100.5 / 50.5)
    assert found.ended == (0, 4, *[0] * (PIECES - 2)), "who came before the burst is no part of it"
    assert found.expected[:3] == pytest.approx((10 * PIECE, 10 * (lived - PIECE), 0.0), rel=0.01)
    assert cohort(HISTORY, over, [(100, 50 * MINUTE)] * 3) == Cohort(), "three are no burst"
    assert Cohort().pace().ratios == (1.0,) * PIECES


def test_of_a_burst_longer_than_what_is_kept_of_the_ended_only_the_known_part_counts() -> None:
    over = [Ended(100, 200 + number, MINUTE) for number in range(NEWEST)]
    begun = [(100, 50 * MINUTE)] * 40 + [(300, 50 * MINUTE)] * 10
    assert sum(cohort(HISTORY, over[1:], begun).ended) == NEWEST - 1
    assert cohort(HISTORY, over, begun).ended == (0,) * PIECES, (
        "those that ended before the first that is kept would be missing"
    )


@pytest.mark.parametrize(
    ("begun", "longer"),
    [
        pytest.param(burst(100, 50), True, id="a hundred have run for fifty minutes and none has ended"),
        pytest.param([], False, id="nobody has begun"),
    ],
)
def test_a_burst_that_does_not_end_is_thought_to_be_longer(begun: list[tuple[JobSpec, int]], longer: bool) -> None:
    before, now = learned(), learned().beside(begun)
    plain, told = before.rest_ms(spec(), 0, 0.3), now.rest_ms(spec(), 0, 0.3)
    assert told > 1.5 * plain if longer else told == plain


def test_beyond_the_oldest_of_a_burst_it_is_like_history() -> None:
    """Equal jobs: none ends for long, and then all do. How few ended young says nothing about the old."""
    now = learned().beside(burst(100, 80))
    plain, told = (lengths.rest_ms(spec(), 80 * MINUTE, 0.9) for lengths in (learned(), now))
    assert told == pytest.approx(plain, rel=0.2)


def test_a_draw_from_the_cohort_is_another_draw_from_history() -> None:
    even, slow = Pace((1.0,) * PIECES), Pace((0.5,) * PIECES)
    assert even.share(0.0, 0.3) == pytest.approx(0.3) and even.share(2.3, 0.3) == pytest.approx(0.3)
    assert slow.share(0.0, 0.5) == pytest.approx(0.75) and slow.share(1.7, 0.0) == 0.0
    late = Pace((0.5, *[2.0] * (PIECES - 1)))
    assert late.share(0.0, -math.expm1(-PIECE / 2)) == pytest.approx(-math.expm1(-PIECE)), (
        "the first piece at half the pace"
    )
    assert late.share(PIECE, 0.5) < 0.5 < slow.share(PIECE, 0.5)
    assert 0.999 < slow.share(0.0, 0.999) <= 1.0


def test_futures_differ_in_whether_the_whole_burst_is_short_or_long() -> None:
    known = Cohort((3, *[0] * (PIECES - 1)), (3.0, *[0.0] * (PIECES - 1)))
    firsts = sorted(known.draw(f"{seed} size q 1000").ratios[0] for seed in range(200))
    assert firsts[20] < 0.6 and firsts[180] > 1.4
    assert sum(firsts) / 200 == pytest.approx(1.0, rel=0.1) and PRIOR > 0
    assert known.draw("7 a") == known.draw("7 a") != known.draw("8 a")
    means = []
    for seed in range(12):
        draw = learned().beside(burst(5, 10)).draw(seed)
        means.append(sum(draw(spec(f"x{index}"), 0) for index in range(200)) / 200)
    alone = [uniform(seed, "x") for seed in range(12)]
    assert len(set(alone)) == 12 and max(means) > 1.3 * min(means), "not the average of independent draws"


def test_who_ended_at_an_unknown_time_belongs_to_no_cohort() -> None:
    old = Lengths(Ran("q", "", 1000, ran_ms) for ran_ms in HISTORY)
    assert old.beside([]).rest_ms(spec(), 0, 0.5) == old.rest_ms(spec(), 0, 0.5)
