"""What a model answers is held against its signature, every time, not only when it is loaded.

Calls are put together and cut apart again by counting rows (`batching`). An answer with another number of rows than went in would
give one caller what belongs to another, so it is nobody's answer. Outputs that the signature does not name go nowhere: nothing is
known of their rows. Costs about a microsecond per output.
"""

from __future__ import annotations

from collections.abc import Sequence

from heliostat_serving.model.loading import Predict
from heliostat_serving.spec import Signature
from heliostat_serving.wire.tensors import NUMPY, Tensors


class BrokenPromiseError(Exception):
    """The text names output, shapes and types, nothing of the data."""


def keeping(predict: Predict, signature: Signature) -> Predict:
    """`predict`, but what is not as the signature says raises BrokenPromiseError. Where no input has rows, -1 is any size."""
    counted = next((tensor.name for tensor in signature.inputs if tensor.batched), None)
    promises = [
        (tensor.name, tensor.dtype, NUMPY[tensor.dtype], tensor.shape, counted is not None and tensor.batched)
        for tensor in signature.outputs
    ]

    def kept(inputs: Tensors) -> Tensors:
        outputs = predict(inputs)
        rows = 1 if counted is None else len(inputs[counted])
        found: Tensors = {}
        for name, said, dtype, shape, has_rows in promises:
            array = outputs.get(name)
            if array is None:
                raise BrokenPromiseError(f"The model gives no output {name}; it gives {', '.join(outputs)}.")
            if array.dtype != dtype:
                raise BrokenPromiseError(f"Output {name} is {array.dtype}, the signature says {said}.")
            wanted = (rows, *shape[1:]) if has_rows else shape
            if array.shape != wanted and not _fits(array.shape, wanted):
                of = f" (rows asked: {rows})" if has_rows else ""
                raise BrokenPromiseError(
                    f"Output {name} has shape {list(array.shape)}{of}, the signature says {list(shape)}."
                )
            found[name] = array
        return found

    return kept


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, have) for have, want in zip(shape, wanted, strict=True))
