"""A model is called with made-up rows before it counts as loaded: what does not answer by its signature gets no traffic."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from heliostat_serving.model.artifact import HeliostatLoadError
from heliostat_serving.model.loading import Predict
from heliostat_serving.model.promise import BrokenPromiseError
from heliostat_serving.spec import Signature, TensorSpec
from heliostat_serving.wire.tensors import NUMPY, Array, Tensors

ROUNDS = 3
"""The first call of a model pays for lazy starts; the fastest of the rounds says what a call costs."""
ANY = "The signature's -1 promises any number of rows, each answered by itself: export the model with a free first dimension."


def attempt(predict: Predict, signature: Signature, clock_s: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a call of one row takes. `predict` keeps its promise (`promise`), or HeliostatLoadError is raised."""
    best_s = float("inf")
    try:
        for _ in range(ROUNDS):
            inputs = _example(signature, 1)
            begun_s = clock_s()
            predict(inputs)
            best_s = min(best_s, clock_s() - begun_s)
    except BrokenPromiseError as error:
        raise HeliostatLoadError(str(error)) from error
    if any(tensor.batched for tensor in signature.inputs):
        _together(predict, _example(signature, 2))
    return best_s


def _together(predict: Predict, inputs: Tensors) -> None:
    """Two rows in one call: a model that mixes them up would answer one caller with another's."""
    try:
        predict(inputs)
    except Exception as error:
        what = str(error) if isinstance(error, BrokenPromiseError) else f"{type(error).__name__}: {error}."
        raise HeliostatLoadError(f"Two rows at once: {what} {ANY}") from error


def _example(signature: Signature, rows: int) -> Tensors:
    return {tensor.name: _rows(tensor, rows) for tensor in signature.inputs}


def _rows(spec: TensorSpec, rows: int) -> Array:
    """That many rows alike."""
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    values = [value.encode() if isinstance(value, str) else value for value in spec.row()]
    array = np.array(values, dtype=NUMPY[spec.dtype] if spec.dtype != "BYTES" else np.object_).reshape(shape)
    return np.repeat(array, rows, axis=0) if spec.batched else array
