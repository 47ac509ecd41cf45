"""Lengths, arrivals, estimates and their correction: small cases, and the same in every process."""

from __future__ import annotations

import math
import random
from statistics import correlation

import pytest
from heliostat_scheduler.core.model import JobSpec, TaskShape
from heliostat_scheduler.forecast import (
    Correction,
    Course,
    Estimate,
    Grid,
    Lengths,
    Ran,
    estimates,
    like_before,
)
from heliostat_scheduler.forecast.arrivals import GOES_ON
from heliostat_scheduler.forecast.eta import ENOUGH, Scored, loss_ms, quantile, summary
from heliostat_scheduler.forecast.lengths import LONGEST_MS, SHORTEST_MS, uniform

MINUTE = 60_000


def spec(
    job: str = "j", queue: str = "q", template: str = "", limit: int | None = None, gpus: int = 1, at: int = 0
) -> JobSpec:
    return JobSpec(job, queue, at, TaskShape(1000), gpus, gpus, template=template, max_runtime_ms=limit)


def ran(minutes: int, queue: str = "q", template: str = "", gpus: int = 1) -> Ran:
    return Ran(queue, template, 1000 * gpus, minutes * MINUTE)


TENS = [ran(minutes) for minutes in range(10, 110, 10)]


@pytest.mark.parametrize(
    ("finished", "asked", "ran_ms", "u", "expected"),
    [
        pytest.param([], spec(limit=90 * MINUTE), 0, 0.5, 90 * MINUTE, id="nothing learned: the declared limit"),
        pytest.param([], spec(limit=90 * MINUTE), 60 * MINUTE, 0.5, 30 * MINUTE, id="the rest of the declared limit"),
        pytest.param(TENS, spec(), 0, 0.5, 60 * MINUTE, id="the median of its kind"),
        pytest.param(TENS, spec(), 0, 0.95, 100 * MINUTE, id="a high quantile of its kind"),
        pytest.param(TENS, spec(), 45 * MINUTE, 0.0, 5 * MINUTE, id="what it has run is known"),
        pytest.param(TENS, spec(limit=30 * MINUTE), 0, 0.9, 30 * MINUTE, id="never beyond the declared limit"),
        pytest.param(TENS, spec(), 200 * MINUTE, 0.5, 200 * MINUTE, id="it outran everything: as long again"),
        pytest.param(TENS + [ran(1, gpus=8)] * 6, spec(gpus=8), 0, 0.5, MINUTE, id="the same size before the queue"),
        pytest.param(TENS + [ran(1, template="a/b")] * 6, spec(template="a/b"), 0, 0.5, MINUTE, id="the template before the size"),
        pytest.param(TENS + [ran(1, template="a/")] * 6, spec(template="a/"), 0, 0.99, 100 * MINUTE, id="a nameless template says nothing"),
    ],
)  # fmt: skip
def test_rest(finished: list[Ran], asked: JobSpec, ran_ms: int, u: float, expected: int) -> None:
    assert Lengths(finished).rest_ms(asked, ran_ms, u) == expected


def test_without_any_knowledge_the_guess_is_wide_and_grows_with_what_it_has_run() -> None:
    lengths = Lengths()
    assert lengths.rest_ms(spec(), 0, 0.0) == SHORTEST_MS
    assert lengths.rest_ms(spec(), 0, 0.999999) == pytest.approx(LONGEST_MS, rel=0.01)
    assert lengths.rest_ms(spec(), 10 * 3_600_000, 0.5) > lengths.rest_ms(spec(), 0, 0.5)


def test_what_a_job_declares_or_a_few_have_run_is_known() -> None:
    few = [ran(1, queue="elsewhere")] * 4
    assert not Lengths(few).knows(spec()) and Lengths(few).knows(spec(limit=MINUTE))
    assert Lengths([*few, few[0]]).knows(spec()), "any five say more than nothing"


def test_a_draw_gives_one_job_the_same_length_everywhere() -> None:
    assert uniform(1, "job-a") == pytest.approx(0.9384, abs=1) and uniform(1, "job-a") == uniform(1, "job-a")
    assert Lengths(TENS).draw(7)(spec("x"), 0) == Lengths(TENS).draw(7)(spec("x"), 0)
    assert len({Lengths(TENS).draw(seed)(spec("x"), 0) for seed in range(30)}) > 3


def test_jobs_of_a_queue_are_long_or_short_together() -> None:
    known = Lengths([*TENS, *(ran(minutes, "other") for minutes in range(10, 110, 10))])
    draws = [known.draw(seed) for seed in range(2_000)]
    one, two, other = (
        [float(draw(spec(job, queue), 0)) for draw in draws] for job, queue in (("a", "q"), ("b", "q"), ("c", "other"))
    )
    assert 0.18 < correlation(one, two) < 0.3 and abs(correlation(one, other)) < 0.06
    assert sum(one) / len(one) == pytest.approx(55 * MINUTE, rel=0.03), "and each is as long as ever"


def test_arrivals_repeat_the_past_without_its_names() -> None:
    past = [spec(f"p{i}", at=i * MINUTE) for i in range(60)]
    coming = like_before(past, lambda _spec, _ran: 5, 60 * MINUTE, 3 * 3_600_000, seed=3)
    assert 150 <= len(coming) <= 180
    assert all(60 * MINUTE < arrival.at_ms <= 240 * MINUTE and arrival.spec.id.startswith("~") for arrival in coming)
    assert len({arrival.spec.id for arrival in coming}) == len(coming)
    assert coming == like_before(past, lambda _spec, _ran: 5, 60 * MINUTE, 3 * 3_600_000, seed=3)


def test_a_burst_goes_on_for_a_while() -> None:
    """One job an hour for a day, and sixty in the last hour: what comes is above the mean by half of what came last, then a quarter."""
    hour, now = 60 * MINUTE, 24 * 60 * MINUTE
    past = [spec(f"p{h}", at=h * hour) for h in range(23)] + [
        spec(f"b{i}", at=23 * hour + i * MINUTE) for i in range(60)
    ]
    counts = [0, 0, 0]
    for seed in range(1_500):
        for arrival in like_before(past, lambda _spec, _ran: 5, now, 3 * hour, seed):
            counts[min(2, (arrival.at_ms - now - 1) // hour)] += 1
    mean = (23 + 60) / 24
    expected = [mean + GOES_ON**hours * (60 - mean) for hours in (1, 2, 3)]
    assert [count / 1_500 for count in counts] == pytest.approx(expected, rel=0.1)


def test_an_estimate_is_a_quantile_over_futures() -> None:
    courses = [Course(0, 1000, starts={"a": 100 * i}, queue_of={"a": "q"}) for i in range(1, 11)]
    (told,) = estimates(courses, ["a"])
    assert (told.p50_ms, told.p90_ms, told.samples) == (550, 990, 10)


def test_a_job_that_starts_in_half_of_the_futures_has_no_p90() -> None:
    courses = [Course(0, 1000, starts={"a": 100} if i < 6 else {}) for i in range(10)]
    (told,) = estimates(courses, ["a"])
    assert (told.p50_ms, told.p90_ms) == (100, None)


def test_the_correction_learns_a_steady_error() -> None:
    correction = Correction()
    for i in range(100):
        correction.learn(Estimate("j", "q", 10 * MINUTE, 20 * MINUTE, 5), (21 + i % 3) * MINUTE)
    moved = correction.correct(Estimate("j", "q", 10 * MINUTE, 20 * MINUTE, 5))
    assert moved.p50_ms is not None and moved.p90_ms is not None
    p50, p90 = moved.p50_ms / MINUTE + 1, moved.p90_ms / MINUTE + 1
    assert 22 * math.exp(-0.15) <= p50 <= 24 * math.exp(0.15), (
        "each step of the tracker is from one of the waits, with their minute"
    )
    assert 24 * math.exp(-0.03) <= p90 <= 24 * math.exp(0.27), "from the longest: one step above, a ninth below"
    other = correction.correct(Estimate("j", "other", 10 * MINUTE, 20 * MINUTE, 5))
    assert other.p50_ms == pytest.approx(22 * MINUTE, rel=0.01), (
        "a queue of which nothing is known begins at the anchor"
    )
    assert other.p90_ms == pytest.approx(23 * MINUTE, rel=0.01)


def test_who_started_within_a_minute_teaches_the_correction_nothing() -> None:
    correction, told = Correction(), Estimate("j", "q", 10 * MINUTE, 20 * MINUTE, 5)
    for _ in range(100):
        correction.learn(told, MINUTE)
    assert correction.correct(told) == told


@pytest.mark.parametrize(
    ("waits", "p90_minutes"),
    [
        pytest.param([30], 21 * math.exp(0.27) - 1, id="a miss moves it up"),
        pytest.param([15], 21 * math.exp(-0.03) - 1, id="what held moves it down, a ninth as far"),
        pytest.param([30, 30], 21 * math.exp(0.54) - 1, id="a miss of what would be told now moves it on"),
        pytest.param([30, 26], 21 * math.exp(0.24) - 1, id="what would hold by now moves it down"),
    ],
)  # fmt: skip
def test_the_tracker(waits: list[int], p90_minutes: float) -> None:
    """Told 10 and 20 minutes each time; what the next one is told."""
    correction, raw = Correction(), Estimate("j", "q", 10 * MINUTE, 20 * MINUTE, 5)
    for _ in range(3 * ENOUGH):
        correction.learn(Estimate("c", "calm", 20 * MINUTE, 20 * MINUTE, 5), 20 * MINUTE)
    for waited in waits:
        correction.learn(raw, waited * MINUTE)
    assert correction.correct(raw).p90_ms == pytest.approx(p90_minutes * MINUTE, rel=0.001)
    other = Estimate("j", "other", 10 * MINUTE, 20 * MINUTE, 5)
    assert correction.correct(other) == other, "each queue has its own"


@pytest.mark.parametrize("misses", [3, 19, 20, 21, 30, 60, 200])
def test_the_same_misses_are_not_counted_twice(misses: int) -> None:
    """A p90 of 15 minutes whose jobs all wait for 30: once that is known, half an hour is told, a step more or less at most."""
    correction, raw = Correction(), Estimate("j", "q", 10 * MINUTE, 15 * MINUTE, 5)
    for _ in range(misses):
        correction.learn(raw, 30 * MINUTE)
    told = correction.correct(raw).p90_ms
    assert told is not None
    if misses < ENOUGH:
        assert told == raw.p90_ms, "few outcomes say nothing yet"
    else:
        assert 31 * math.exp(-0.03) * MINUTE <= told + MINUTE + 1 <= 31 * math.exp(0.27) * MINUTE


def test_nine_of_ten_hold_in_the_long_run_whatever_the_raw_estimate_is_worth() -> None:
    """Jobs wait for 2 to 120 minutes, later half as long, by turns; the raw estimate is always 1 and 2 minutes."""
    correction, raw, held = Correction(), Estimate("j", "q", MINUTE, 2 * MINUTE, 5), 0
    for index in range(600):
        waited = (2 + 17 * index % 119) * MINUTE // (1 if index < 300 else 2)
        told = correction.correct(raw).p90_ms
        held += index >= ENOUGH and told is not None and waited <= told
        correction.learn(raw, waited)
    assert 0.87 <= held / (600 - ENOUGH) <= 0.93


def test_scores() -> None:
    rows = [Scored("q", 100, 90, 200), Scored("q", 300, 100, 200)]
    assert loss_ms(rows[0]) == pytest.approx((0.5 * 10 + 0.1 * 100) / 2)
    assert summary(rows)["p90_held"] == 0.5
    assert summary([]) == {"jobs": 0}


@pytest.mark.parametrize(("q", "expected"), [(0.5, 2.0), (0.9, math.inf), (0.0, 1.0)])
def test_a_quantile_is_infinite_where_a_neighbour_is(q: float, expected: float) -> None:
    assert quantile([1.0, 2.0, math.inf], q) == expected


@pytest.mark.parametrize(("count", "held"), [(6, 6 / 7), (9, 0.9), (16, 0.9), (100, 0.9)])
def test_the_next_one_is_below_the_quantile_as_often_as_told(count: int, held: float) -> None:
    rng = random.Random(count)
    draws = [sorted(rng.random() for _ in range(count)) for _ in range(20_000)]
    assert sum(rng.random() <= quantile(values, 0.9) for values in draws) / len(draws) == pytest.approx(held, abs=0.01)


def test_a_grid_grows_with_the_distance() -> None:
    grid = Grid(10, 100)
    assert grid.next_ms(0, 0, 1) == 10
    assert grid.next_ms(0, 1000, 1001) == 1100
    assert grid.next_ms(0, 1000, 5000) == 5000
    assert Grid().next_ms(0, 1000, 1001) == 1001
