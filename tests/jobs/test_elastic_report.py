"""What `benchmarks.elastic` says of its figures: medians, and each promise held or missed."""

from __future__ import annotations

from typing import Any

from benchmarks.elastic.report import promises

BASE = {"before": 4, "after": 2, "released": 0.4, "lost": 0}


def row(side: str, pause: float, again: float, **more: Any) -> dict[str, Any]:  # Any: JSON
    return {**BASE, "side": side, "pause": pause, "again": again, **more}


def test_promises_are_judged_by_the_median() -> None:
    rows = [row("warm", pause, 2.0) for pause in (1.0, 9.0, 1.2)] + [row("stock", 8.0, 9.0), row("plain", 10.0, 1.5)]
    assert promises(rows, 4, 2) == [
        "pause: plain is 1.25x stock's (at most 1.15): MISSED",
        "pause: warm is 0.15x stock's (at most 0.5): held",
        "again: warm is 1.33x plain's (at most 1.25): MISSED",
        "plain released after 0.40 s (at most 1.5): held",
        "plain lost at most 0 steps (0): held",
        "warm released after 0.40 s (at most 1.5): held",
        "warm lost at most 0 steps (0): held",
    ]


def test_one_lost_step_in_any_run_is_missed() -> None:
    rows = [row("warm", 1.0, 2.0), row("warm", 1.0, 2.0, lost=1)]
    assert promises(rows, 4, 2)[-1] == "warm lost at most 1 steps (0): MISSED"


def test_nothing_is_said_of_a_side_that_was_not_measured() -> None:
    assert promises([row("stock", 1.0, 2.0)], 4, 2) == [] and promises([row("warm", 1.0, 2.0)], 2, 4) == []
