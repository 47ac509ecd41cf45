"""result.json, the recount of steps.jsonl, and the recipes."""

import importlib.util
import json
from pathlib import Path

import pytest
from heliostat_jobs.spec import (
    RECIPES,
    RESULT_FILE,
    STEPS_FILE,
    BadResult,
    Field,
    Result,
    StepCount,
    read_result,
    recount,
    recount_run,
)

GOOD = Result({"accuracy": 0.97}, "model.safetensors", "torch-safetensors", (Field("x", "float32", (-1, 1, 8, 8)),))


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    GOOD.write(tmp_path)
    assert read_result(tmp_path) == GOOD
    assert [path.name for path in tmp_path.iterdir()] == [RESULT_FILE]


def test_no_result_is_none(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("{", "not JSON", id="half a file"),
        pytest.param("[]", "metrics", id="no object"),
        pytest.param('{"metrics": {"accuracy": "high"}}', "metrics.accuracy", id="a metric that is no number"),
        pytest.param('{"metrics": {"loss": NaN}}', "metrics.loss", id="a metric that is no finite number"),
        pytest.param('{"metrics": {}, "model": "/etc/passwd"}', "leaves the run folder", id="an absolute model"),
        pytest.param('{"metrics": {}, "model": "../other/model"}', "leaves the run folder", id="a model outside"),
        pytest.param('{"metrics": {}, "model": 3}', "strings", id="a model that is no path"),
        pytest.param('{"metrics": {}, "inputs": [{"name": "x"}]}', "inputs", id="an input without a type"),
        pytest.param(
            '{"metrics": {}, "inputs": [{"name": "x", "dtype": "pickle", "shape": []}]}', "pickle", id="a strange type"
        ),
    ],
)
def test_bad_results_say_which_field(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(BadResult, match=words):
        read_result(tmp_path)


def rows(*steps: tuple[int, str]) -> list[str]:
    return [json.dumps({"step": step, "batch": batch, "world_size": 2}) + "\n" for step, batch in steps]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], StepCount(0, 0, 0, 0, 0), id="nothing ran"),
        pytest.param(rows((0, "a"), (1, "b"), (2, "c")), StepCount(3, 3, 0, 0, 0), id="each step once"),
        pytest.param(rows((0, "a"), (1, "b"), (1, "b"), (2, "c")), StepCount(4, 3, 1, 0, 0), id="one step again"),
        pytest.param(rows((0, "a"), (2, "c")), StepCount(2, 2, 0, 1, 0), id="a gap"),
        pytest.param(rows((0, "a"), (0, "z")), StepCount(2, 1, 1, 0, 1), id="the same step on another batch"),
        pytest.param([*rows((0, "a")), '{"step": 1, "ba'], StepCount(1, 1, 0, 0, 0), id="a line cut off by a kill"),
    ],
)
def test_recount(lines: list[str], expected: StepCount) -> None:
    assert recount(lines) == expected


def test_recount_of_a_run_folder(tmp_path: Path) -> None:
    assert recount_run(tmp_path) == StepCount(0, 0, 0, 0, 0)
    (tmp_path / STEPS_FILE).write_text("".join(rows((0, "a"), (1, "b"))))
    assert recount_run(tmp_path).executed == 2


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_exist(recipe: object) -> None:
    assert importlib.util.find_spec(recipe.module) is not None  # type: ignore[attr-defined]
