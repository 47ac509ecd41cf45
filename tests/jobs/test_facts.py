"""Of a script's metrics, the board gets the finite numbers."""

import json

import numpy as np
from heliostat_jobs.train.facts import MAX_NUMBERS, Pace, numbers_of


def test_only_finite_numbers_pass_and_become_plain() -> None:
    reported = {
        "step": np.int64(7), "loss": np.float32(0.5), "rate": 1e-3, "done": True, "note": "x", "bad": float("nan"), "list": [1],
    }  # fmt: skip
    assert numbers_of(reported) == {"step": 7, "loss": 0.5, "rate": 1e-3}
    assert json.dumps(numbers_of(reported)) == '{"step": 7, "loss": 0.5, "rate": 0.001}'


def test_a_flood_of_metrics_is_cut() -> None:
    assert list(numbers_of({f"m{n}": n for n in range(100)})) == [f"m{n}" for n in range(MAX_NUMBERS)]


def test_pace_is_the_steps_between_two_reports() -> None:
    pace = Pace()
    assert pace.per_second(10, 100.0) is None
    assert pace.per_second(30, 104.0) == 5.0
    assert pace.per_second(20, 106.0) is None, "a restart went back"
    assert pace.per_second(21, 108.0) == 0.5
