"""Plots in a terminal, and `helio metrics`."""

from __future__ import annotations

import pytest
from heliostat.cli.metrics import _curve, by_name
from heliostat.render.plot import plot
from heliostat.wire.shapes import MetricJson


def test_a_rising_line_rises_from_the_bottom_left_to_the_top_right() -> None:
    text = plot("loss", [(float(step), float(step)) for step in range(8)], width=20, height=2)
    assert text.splitlines() == [
        "loss  7  (from 0 to 7, 8 points)",
        "         7 │    ▂▄▆█",
        "         0 │▁▃▅▇████",
        "           └────────",
        "      step  0      7",
    ]


@pytest.mark.parametrize(
    ("points", "columns"),
    [
        pytest.param([(5.0, 1.0)], 1, id="one point"),
        pytest.param([(0.0, 2.0), (1.0, 2.0)], 2, id="a constant"),
        pytest.param([(float(n), float(n % 7)) for n in range(1000)], 28, id="more points than columns"),
    ],
)
def test_every_series_can_be_plotted(points: list[tuple[float, float]], columns: int) -> None:
    lines = plot("x", points, width=40).splitlines()
    assert len(lines) == 11
    assert lines[-2].count("─") == columns
    assert all(len(line) <= 40 for line in lines)


def test_a_step_that_was_done_again_counts_once_and_times_are_seconds_since_the_first() -> None:
    points: list[MetricJson] = [
        {"at": "2026-01-01T00:00:00Z", "name": "loss", "value": 3.0, "step": 1},
        {"at": "2026-01-01T00:00:02Z", "name": "loss", "value": 2.5, "step": 1},
        {"at": "2026-01-01T00:00:03Z", "name": "loss", "value": 2.0, "step": 2},
    ]
    assert by_name(points) == {"loss": points}
    assert _curve(points, steps=True) == [(1.0, 2.5), (2.0, 2.0)]
    assert _curve(points, steps=False) == [(0.0, 3.0), (2.0, 2.5), (3.0, 2.0)]
