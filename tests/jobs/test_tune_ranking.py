"""Which trial is kept when there is room for fewer."""

from __future__ import annotations

import math

import pytest
from heliostat_jobs.tune.ranking import Standing, best_first, number_or_none

A, B = Standing("a", 0.5, 3), Standing("b", 0.9, 1)


@pytest.mark.parametrize(
    ("standings", "mode", "expected"),
    [
        pytest.param([A, B], "max", ["b", "a"], id="the larger metric is better"),
        pytest.param([A, B], "min", ["a", "b"], id="the smaller metric is better"),
        pytest.param([B, A], None, ["a", "b"], id="without a metric the further one is kept"),
        pytest.param([Standing("new", None, 0), A], "max", ["a", "new"], id="who has no result yet comes last"),
        pytest.param([Standing("nan", math.nan, 9), A], "max", ["a", "nan"], id="a metric that broke comes last"),
        pytest.param(
            [Standing("x", 1.0, 1), Standing("y", 1.0, 2)], "max", ["y", "x"], id="equal ones: the further first"
        ),
    ],
)
def test_best_first(standings: list[Standing], mode: str | None, expected: list[str]) -> None:
    assert best_first(standings, mode) == expected


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (0.5, 0.5), (True, None), ("0.5", None), (None, None)])
def test_only_numbers_rank(value: object, expected: float | None) -> None:
    assert number_or_none(value) == expected
