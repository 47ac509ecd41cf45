"""What a model takes and gives: names, Open Inference Protocol dtypes, shapes (-1 = any; the first dimension is the batch).

It is read from `model.json` files too, into which people and newer jobs may write more (a description): that is passed over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from heliostat_serving.spec.reading import Plain, SpecError

DTYPES: dict[str, int] = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "FP32": 4, "FP64": 8, "BYTES": 0,
}  # fmt: skip
"""Bytes per element; BYTES elements carry their own length."""


@dataclass(frozen=True)
class TensorSpec(Plain):
    IGNORES_MORE: ClassVar[bool] = True

    name: str
    dtype: str
    shape: tuple[int, ...]
    example: tuple[object, ...] | None = None
    """The values of one row, in order, for trials and smoke requests; the registry has checked them. None: zeros, or empty texts."""

    def __post_init__(self) -> None:
        if not self.name:
            raise SpecError("A tensor has no name.")
        if self.dtype not in DTYPES:
            raise SpecError(f"Tensor {self.name}: unknown dtype {self.dtype}; known are {', '.join(DTYPES)}.")
        if any(size == 0 or size < -1 for size in self.shape):
            raise SpecError(f"Tensor {self.name}: a dimension of {list(self.shape)} is neither positive nor -1.")

        if self.example is not None and len(self.example) != self.row_size:
            raise SpecError(
                f"Tensor {self.name}: its example has {len(self.example)} values, a row has {self.row_size}."
            )

    @property
    def batched(self) -> bool:
        return bool(self.shape) and self.shape[0] == -1

    @property
    def row_size(self) -> int:
        """Elements of one row (of all, where nothing is batched); each -1 counts as 1."""
        return math.prod(max(1, size) for size in self.shape)

    def row(self) -> list[object]:
        """A made-up row: the example, or zeros. BYTES are texts."""
        if self.example is not None:
            return list(self.example)
        nothing: object = {"BOOL": False, "BYTES": ""}.get(self.dtype, 0 if "INT" in self.dtype else 0.0)
        return [nothing] * self.row_size


@dataclass(frozen=True)
class Signature(Plain):
    IGNORES_MORE: ClassVar[bool] = True

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    allow_nan: bool = False
    """Whether NaN and infinities may come in."""

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise SpecError("A signature needs at least one input and one output.")
        for side in (self.inputs, self.outputs):
            if len({tensor.name for tensor in side}) != len(side):
                raise SpecError("A signature names two tensors alike.")

    @property
    def batched(self) -> bool:
        """Whether requests can be put together along the first dimension."""
        return all(tensor.batched for tensor in (*self.inputs, *self.outputs))
