"""A model is called once with made-up rows before it counts as loaded: what does not answer by its signature gets no traffic."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from heliostat_serving.model.artifact import HeliostatLoadError
from heliostat_serving.model.loading import Predict
from heliostat_serving.spec import Signature, TensorSpec
from heliostat_serving.wire.tensors import NUMPY, Array, Tensors

ROUNDS = 3
"""The first call of a model pays for lazy starts; the fastest of the rounds says what a call costs."""


def attempt(predict: Predict, signature: Signature, clock_s: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a call of one row takes. HeliostatLoadError when the answer is not what the signature promises."""
    inputs = {tensor.name: _example(tensor) for tensor in signature.inputs}
    best_s = float("inf")
    for _ in range(ROUNDS):
        begun_s = clock_s()
        outputs = predict(dict(inputs))
        best_s = min(best_s, clock_s() - begun_s)
    promised(outputs, signature, 1)
    return best_s


def promised(outputs: Tensors, signature: Signature, rows: int) -> None:
    for spec in signature.outputs:
        array = outputs.get(spec.name)
        if array is None:
            raise HeliostatLoadError(f"The model gives no output {spec.name}; it gives {', '.join(outputs)}.")
        if array.dtype != NUMPY[spec.dtype]:
            raise HeliostatLoadError(f"Output {spec.name} is {array.dtype}, the signature says {spec.dtype}.")
        wanted = (rows, *spec.shape[1:]) if spec.batched else spec.shape
        if len(array.shape) != len(wanted) or any(
            want not in (-1, have) for have, want in zip(array.shape, wanted, strict=True)
        ):
            raise HeliostatLoadError(
                f"Output {spec.name} has shape {list(array.shape)}, the signature says {list(spec.shape)}."
            )


def _example(spec: TensorSpec) -> Array:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if spec.dtype == "BYTES":
        array = np.empty(shape, dtype=np.object_)
        array.fill(b"")
        return array
    return np.zeros(shape, dtype=NUMPY[spec.dtype])
