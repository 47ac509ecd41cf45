"""Curves from reported throughput: measured where it was measured, optimistic where it was not."""

from __future__ import annotations

import pytest
from heliostat_scheduler.estimate.throughput import EPOCHS, SAMPLES, Meter, curve, sizes_of


@pytest.mark.parametrize(
    ("measured", "size", "least", "most"),
    [
        pytest.param({1: 100.0}, 4, 400.0, 400.0, id="one size measured: the others are free"),
        pytest.param({4: 100.0}, 1, 25.0, 25.0, id="smaller ones too"),
        pytest.param({1: 100.0, 2: 110.0}, 2, 110.0, 110.0, id="a measured size keeps its value"),
        pytest.param({1: 100.0, 2: 110.0}, 4, 130.0, 200.0, id="what synchronisation cost is expected to cost again"),
        pytest.param({1: 100.0, 2: 196.0}, 4, 340.0, 401.0, id="who scaled well is expected to go on"),
        pytest.param({1: 100.0, 2: 180.0, 4: 150.0}, 4, 150.0, 150.0, id="more can be worse"),
    ],
)
def test_a_curve(measured: dict[int, float], size: int, least: float, most: float) -> None:
    found = dict(curve(measured, [1, 2, 4], 8))
    assert 0.999 * least <= found[size] <= 1.001 * most


def heard(
    meter: Meter, tasks: int, pace: float, reports: int, at_s: float, every_s: float = 20.0, attempt: int = 1
) -> float:
    for _ in range(reports):
        at_s += every_s
        meter.heard(attempt, tasks, at_s, samples_per_s=pace)
    return at_s


def test_the_first_report_after_a_change_and_single_outliers_do_not_count() -> None:
    meter = Meter()
    meter.heard(1, 2, 0.0, samples_per_s=1.0)
    at_s = heard(meter, 2, 100.0, 5, 0.0)
    meter.heard(1, 2, at_s + 20.0, samples_per_s=9_000.0)
    meter.heard(1, 4, at_s + 40.0, samples_per_s=1.0)
    assert meter.measured() == {2: 100.0} and meter.unit == SAMPLES
    assert meter.done() == 6 * 20 * 100.0


@pytest.mark.parametrize(("reports", "every_s"), [(4, 60.0), (12, 4.0)], ids=["few reports", "short time"])
def test_a_size_counts_once_enough_was_heard(reports: int, every_s: float) -> None:
    meter = Meter()
    heard(meter, 2, 100.0, reports + 1, 0.0, every_s)
    assert not meter.measured()
    heard(meter, 2, 100.0, 5, 10_000.0, 20.0)
    assert meter.measured() == {2: 100.0}


def test_epochs_stand_in_where_no_samples_are_reported_and_a_repeated_epoch_is_no_progress() -> None:
    meter = Meter()
    for step in range(25):
        meter.heard(1, 4, 10.0 * step, epoch=float(step // 4))
    assert meter.unit == EPOCHS and meter.measured() == {4: pytest.approx(1 / 40)}
    meter.heard(1, 4, 300.0, epoch=0.0)
    assert meter.measured() == {4: pytest.approx(1 / 40)}
    heard(meter, 4, 100.0, 6, 400.0)
    assert meter.unit == SAMPLES and meter.measured() == {4: 100.0}


@pytest.mark.parametrize(
    ("fewest", "most", "held", "tried", "sizes"),
    [
        pytest.param(1, 8, 2, 2, [1, 2, 3, 4], id="up to twice the largest tried"),
        pytest.param(1, 8, 6, 2, [1, 2, 3, 4, 5, 6], id="up to the present one"),
        pytest.param(2, 3, 3, 3, [2, 3], id="the valid ones"),
        pytest.param(1, 3, 4, 2, [1, 2, 3, 4], id="the present one, valid or not"),
        pytest.param(30, 100, 0, 20, [30, 31, 32, 40], id="above, whole nodes"),
    ],
)
def test_sizes(fewest: int, most: int, held: int, tried: int, sizes: list[int]) -> None:
    assert sizes_of(fewest, most, held, tried, 8) == sizes


@pytest.mark.parametrize("pace", [5e-324, 1e-300, 1e9, 1e307])
def test_a_pace_beyond_all_bounds_is_not_believed(pace: float) -> None:
    """A script may report any finite number; no curve and no whole number comes of these."""
    meter = Meter()
    heard(meter, 2, pace, 12, 0.0)
    assert meter.measured() == {} and meter.done() == 0
    heard(meter, 2, 1e8, 12, 1_000.0)
    assert dict(curve(meter.measured(), [1, 2, 4], 8))[1] == pytest.approx(5e7, rel=0.01)
