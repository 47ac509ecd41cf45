"""result.json, the recount of steps.jsonl, and the recipes."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
from heliostat_jobs.spec import (
    RECIPES,
    RESULT_FILE,
    STEPS_FILE,
    BadModel,
    BadResult,
    ModelCard,
    ModelEntry,
    Result,
    Signature,
    StepCount,
    Tensor,
    read_result,
    recount,
    recount_run,
)

GOOD = Result({"accuracy": 0.97}, ModelEntry("model", "digits", ("champion",), {"team": "a"}), {"seed": 7})
CARD = ModelCard(
    "safetensors",
    Signature((Tensor("x", "FP32", (-1, 4)),), (Tensor("y", "FP32", (-1, 2)),)),
    factory="net:Net",
    args={"width": 2},
)


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
        pytest.param('{"metrics": {"loss": 1e999}}', "metrics.loss", id="a metric beyond all floats"),
        pytest.param('{"metrics": {"n": 1%s}}' % ("0" * 400), "metrics.n|not JSON", id="a number of 400 digits"),
        pytest.param('{"metrics": {}, "model": "model"}', "model: an object", id="a model that is no object"),
        pytest.param('{"metrics": {}, "model": {"path": "/etc"}}', "model.path", id="an absolute model"),
        pytest.param('{"metrics": {}, "model": {"path": "../other"}}', "model.path", id="a model outside"),
        pytest.param('{"metrics": {}, "model": {"path": ""}}', "model.path", id="a model without a folder"),
        pytest.param('{"metrics": {}, "model": {"path": "."}}', "model.path", id="the run folder itself"),
        pytest.param('{"metrics": {}, "model": {"path": 3}}', "model.path", id="a path that is no text"),
        pytest.param('{"metrics": {}, "model": {"path": "m", "name": "a/b"}}', "model.name", id="a name with a slash"),
        pytest.param('{"metrics": {}, "model": {"path": "m", "aliases": ["latest"]}}', "alias", id="the alias latest"),
        pytest.param('{"metrics": {}, "model": {"path": "m", "aliases": "a"}}', "aliases", id="aliases no list"),
        pytest.param('{"metrics": {}, "model": {"path": "m", "tags": {"a": 1}}}', "tags", id="a tag that is a number"),
        pytest.param('{"metrics": {}, "model": {"path": "m", "sha256": "x"}}', "sha256", id="a digest that is none"),
        pytest.param('{"metrics": {}, "params": {"a": NaN}}', "params", id="parameters that are no JSON"),
        pytest.param("[" * 100_000, "not JSON", id="brackets without end"),
    ],
)
def test_bad_results_say_which_field(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(BadResult, match=words):
        read_result(tmp_path)


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    CARD.write(tmp_path)
    assert ModelCard.parse((tmp_path / "model.json").read_text()) == CARD


def card(**changed: object) -> str:
    return json.dumps({**CARD.to_json(), **changed})


def signature(shape: object = (-1, 4), dtype: str = "FP32", **more: object) -> dict[str, object]:
    tensor = {"name": "x", "dtype": dtype, "shape": shape}
    return {"inputs": [tensor], "outputs": [tensor], **more}


def exemplified(dtype: str, example: object) -> dict[str, object]:
    tensor = {"name": "x", "dtype": dtype, "shape": [-1, 2], "example": example}
    return {**signature([-1, 4]), "inputs": [tensor]}


@pytest.mark.parametrize(("dtype", "example"), [("FP32", [1, 2.5]), ("BYTES", ["a", "b"]), ("BOOL", [True, False])])
def test_an_example_is_kept(dtype: str, example: list[object]) -> None:
    assert Signature.read(exemplified(dtype, example)).to_json()["inputs"][0]["example"] == example
    assert "example" not in Signature.read(signature([-1, 4])).to_json()["inputs"][0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("{", "not JSON", id="half a file"),
        pytest.param(card(format="pt"), "format", id="an unknown format"),
        pytest.param(card(factory=""), "factory", id="weights without a factory"),
        pytest.param(card(factory="../evil:run"), "factory", id="a factory that is a path"),
        pytest.param(card(args=[1]), "args", id="arguments that are no object"),
        pytest.param(card(signature=None), "signature", id="no signature"),
        pytest.param(card(signature=signature(shape=[4])), "-1", id="no batch dimension"),
        pytest.param(card(signature=signature(shape=[-1, 0])), "shape", id="a dimension of nothing"),
        pytest.param(card(signature=signature(shape=[-1, True])), "shape", id="a dimension that is no number"),
        pytest.param(card(signature=signature(dtype="float32")), "dtype", id="a type of numpy"),
        pytest.param(card(signature={**signature(), "inputs": []}), "inputs", id="no inputs"),
        pytest.param(card(signature={**signature(), "outputs": signature()["inputs"] * 2}), "own", id="a name twice"),  # type: ignore[operator]
        pytest.param(card(signature=signature(allow_nan="no")), "allow_nan", id="a flag that is a word"),
        pytest.param(card(signature=exemplified("FP32", 1.0)), "list", id="an example that is no list"),
        pytest.param(card(signature=exemplified("FP32", [1.0])), "one row", id="an example of another size"),
        pytest.param(card(signature=exemplified("FP32", [1, math.nan])), "FP32", id="an example that is no number"),
        pytest.param(card(signature=exemplified("INT8", [1, True])), "INT8", id="an example with a flag for a number"),
        pytest.param(card(signature=exemplified("BYTES", ["a", 1])), "BYTES", id="an example with a number for a text"),
        pytest.param(card(skops_trusted="all"), "skops_trusted", id="trust that is no list"),
    ],
)
def test_bad_cards_say_which_field(text: str, words: str) -> None:
    with pytest.raises(BadModel, match=words):
        ModelCard.parse(text)


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
