"""A burst that ends slower than its kind is seen before any of it has ended; the same in every process."""

from __future__ import annotations

import math

import pytest
from heliostat_scheduler.core.model import JobSpec, TaskShape
from heliostat_scheduler.forecast import Lengths, Ran
from heliostat_scheduler.forecast.cohort import LEAST, PRIOR, Cohort, cohort, stretched
from heliostat_scheduler.forecast.lengths import uniform

MINUTE = 60_000
HISTORY = [minutes * MINUTE for minutes in range(1, 101)]
NOW = 10_000 * MINUTE


def spec(job: str = "j") -> JobSpec:
    return JobSpec(job, "q", 0, TaskShape(1000), 1, 1)


def learned() -> Lengths:
    """A hundred jobs of one to a hundred minutes, that ended long ago."""
    return Lengths(Ran("q", "", 1000, ran_ms, ended_ms=200 * MINUTE + ran_ms) for ran_ms in HISTORY)


def burst(count: int, ran_minutes: int) -> list[tuple[JobSpec, int]]:
    return [(spec(f"b{index}"), ran_minutes * MINUTE) for index in range(count)]


def test_a_cohort_counts_what_ended_and_what_should_have() -> None:
    half = [(100, 50 * MINUTE)] * 10
    long_ago = [(0, 99 * MINUTE)] * 2
    found = cohort(HISTORY, [*half[:4], *long_ago], [*half[4:], long_ago[0]])
    assert found.ended == 4, "what started before the burst is no part of it"
    assert found.expected == pytest.approx(10 * math.log(100.5 / 50.5), rel=0.01)
    assert cohort(HISTORY, half, half[:3]) == Cohort(0, 0.0), "three are no burst"
    assert Cohort(0, 0.0).ratio() == 1.0
    assert Cohort(0, 1000.0).ratio() == Cohort(0, 1000.0).draw("1 a") == LEAST, "four times slower at most"


@pytest.mark.parametrize(
    ("running", "longer"),
    [
        pytest.param(burst(100, 50), True, id="a hundred run for fifty minutes and none has ended"),
        pytest.param([], False, id="nobody runs"),
    ],
)
def test_a_burst_that_does_not_end_is_thought_to_be_longer(running: list[tuple[JobSpec, int]], longer: bool) -> None:
    before, now = learned(), learned().beside(running, NOW)
    plain, told = before.rest_ms(spec(), 50 * MINUTE, 0.5), now.rest_ms(spec(), 50 * MINUTE, 0.5)
    assert told > 1.5 * plain if longer else told == pytest.approx(plain, rel=0.25)


def test_a_draw_from_the_cohort_is_another_draw_from_history() -> None:
    assert stretched(0.3, 1.0) == pytest.approx(0.3)
    assert stretched(0.5, 0.5) == pytest.approx(0.75) and stretched(0.0, 0.1) == 0.0
    assert 0.999 < stretched(0.999, 0.02) <= 1.0


def test_futures_differ_in_whether_the_whole_burst_is_short_or_long() -> None:
    ratios = sorted(Cohort(3, 3.0).draw(f"{seed} size q 1000") for seed in range(200))
    assert ratios[20] < 0.6 and ratios[180] > 1.4
    assert sum(ratios) / 200 == pytest.approx((PRIOR + 3) / (PRIOR + 3.0), rel=0.1)
    assert Cohort(3, 3.0).draw("7 a") == Cohort(3, 3.0).draw("7 a") == pytest.approx(1.1, abs=1.0)
    means = []
    for seed in range(12):
        draw = learned().beside(burst(5, 10), NOW).draw(seed)
        means.append(sum(draw(spec(f"x{index}"), 0) for index in range(200)) / 200)
    alone = [uniform(seed, "x") for seed in range(12)]
    assert len(set(alone)) == 12 and max(means) > 1.3 * min(means), "not the average of independent draws"


def test_who_ended_at_an_unknown_time_belongs_to_no_cohort() -> None:
    old = Lengths(Ran("q", "", 1000, ran_ms) for ran_ms in HISTORY)
    assert old.beside([], NOW).rest_ms(spec(), 0, 0.5) == old.rest_ms(spec(), 0, 0.5)
