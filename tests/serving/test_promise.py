"""An answer that is not as the signature says reaches nobody, least of all somebody else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from heliostat_serving.model.artifact import HeliostatLoadError
from heliostat_serving.model.promise import BrokenPromiseError, keeping
from heliostat_serving.model.served import ModelFailed, Served
from heliostat_serving.model.trial import attempt
from heliostat_serving.spec import Signature, TensorSpec
from heliostat_serving.wire.tensors import Tensors

from tests.serving.builders import PAIR
from tests.serving.folders import FACTORY, row, twice

LOOSE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, -1)),))
MIXED = FACTORY.replace("return x * self.by", "return (x * self.by).reshape(1, -1)")
SLY = FACTORY.replace("return x * self.by", "return (x * self.by).reshape(1, -1) if float(x.sum()) else x * self.by")


def test_a_model_that_mixes_rows_up_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(HeliostatLoadError, match=r"Two rows at once: Output y has shape \[1, 4\] \(rows asked: 2\)"):
        Served(twice(tmp_path, MIXED, LOOSE))


async def test_nobody_gets_anothers_rows_from_a_model_that_mixes_them_up_later(tmp_path: Path) -> None:
    """It passes the trial, whose rows are zeros."""
    served = Served(twice(tmp_path, SLY, LOOSE))
    served._batcher._cost_s = 1.0
    found = await asyncio.gather(*(served.infer(row(value), 1) for value in range(1, 5)))
    assert [answer["y"].tolist() for answer in found] == [[[value * 2, value * 2]] for value in range(1, 5)]
    with pytest.raises(ModelFailed, match=r"shape \[1, 6\] \(rows asked: 3\)"):
        await served.infer(row(1, 3), 3)


def test_a_model_of_single_rows_is_told_what_is_promised(tmp_path: Path) -> None:
    single = FACTORY.replace("return x * self.by", "return x.reshape(1, 2) * self.by")
    with pytest.raises(HeliostatLoadError, match=r"Two rows at once: RuntimeError: .* free first dimension"):
        Served(twice(tmp_path, single))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "no output y"),
        ({"y": np.zeros((2, 2), np.float64)}, "float64, the signature says FP32"),
        ({"y": np.zeros((1, 2), np.float32)}, r"shape \[1, 2\] \(rows asked: 2\)"),
        ({"y": np.zeros((2, 3), np.float32)}, r"shape \[2, 3\]"),
        ({"y": np.zeros(2, np.float32)}, r"shape \[2\]"),
    ],
    ids=["nothing", "another type", "a row too few", "too wide", "another rank"],
)
def test_every_answer_is_held_against_the_signature(answer: Tensors, words: str) -> None:
    with pytest.raises(BrokenPromiseError, match=words):
        keeping(lambda inputs: answer, PAIR)(row(1, 2))


def test_outputs_that_the_signature_does_not_name_go_nowhere() -> None:
    kept = keeping(lambda inputs: {"y": inputs["x"], "seen": np.ones((1, 99))}, PAIR)
    assert list(kept(row(1, 2))) == ["y"]


def test_without_rows_in_the_inputs_a_free_first_dimension_is_any_size() -> None:
    boxes = Signature((TensorSpec("image", "FP32", (2,)),), (TensorSpec("boxes", "FP32", (-1, 4)),))
    kept = keeping(lambda inputs: {"boxes": np.zeros((3, 4), np.float32)}, boxes)
    assert kept({"image": np.zeros(2, np.float32)})["boxes"].shape == (3, 4)
    attempt(kept, boxes)
