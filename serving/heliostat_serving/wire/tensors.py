"""Tensors from JSON and from bytes, checked against the signature. What passed `checked` cannot hurt a model.

Nothing is guessed: a string is no number, a fraction is no integer, a ragged list is no tensor. Numbers that the declared type
cannot hold are `wrong_dtype`; NaN and infinities, also those that arise when a number is narrowed, are `not_finite` unless allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final  # Any: JSON, and numpy's element types

import numpy as np

from heliostat_serving.spec import Signature, TensorSpec
from heliostat_serving.wire.faults import Fault

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]

NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_), "UINT8": np.dtype(np.uint8), "UINT16": np.dtype(np.uint16), "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64), "INT8": np.dtype(np.int8), "INT16": np.dtype(np.int16), "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64), "FP16": np.dtype(np.float16), "FP32": np.dtype(np.float32), "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}  # fmt: skip
LEAVES: Final[dict[str, set[type]]] = {"f": {float, int, type(None)}, "i": {int}, "u": {int}, "b": {bool}}
WORDS = {
    "float": "fractions",
    "int": "integers",
    "bool": "booleans",
    "str": "strings",
    "NoneType": "null",
    "dict": "objects",
}
MAX_DEPTH = 32
LENGTH = 4
"""Bytes of the little-endian length before each element of a BYTES tensor."""


def from_json(data: object, spec: TensorSpec) -> Array:
    """Nested or flat JSON lists -> array of the declared type; the shape is whatever the nesting says.

    The types of the leaves are looked at first: numpy would make numbers of strings, and of one long string among many short
    ones an array of terabytes.
    """
    kinds = _kinds(data, spec, 0)
    if spec.dtype == "BYTES":
        if not kinds <= {str}:
            raise Fault("wrong_dtype", f"Input {spec.name} holds something that is no string.")
        return _texts(data, spec)
    wanted = NUMPY[spec.dtype]
    if not kinds <= LEAVES[wanted.kind]:
        strange = min(kind.__name__ for kind in kinds - LEAVES[wanted.kind])
        raise Fault("wrong_dtype", f"Input {spec.name} holds {WORDS.get(strange, strange)}, not {spec.dtype}.")
    try:
        with np.errstate(over="ignore"):
            return np.array(data, dtype=wanted)
    except OverflowError as error:
        raise Fault("wrong_dtype", f"Input {spec.name} holds a number outside {spec.dtype}.") from error
    except (ValueError, TypeError) as error:
        raise _ragged(spec) from error


def from_bytes(raw: memoryview, shape: tuple[int, ...], spec: TensorSpec) -> Array:
    """Row-major little-endian bytes of the binary tensor extension -> array of `shape`."""
    count = 1
    for size in shape:
        count *= size
    if spec.dtype == "BYTES":
        return _elements(raw, count, spec).reshape(shape)
    wanted = NUMPY[spec.dtype]
    if len(raw) != count * wanted.itemsize:
        raise Fault(
            "bad_binary",
            f"Input {spec.name}: {len(raw)} bytes, but {list(shape)} of {spec.dtype} are {count * wanted.itemsize}.",
        )
    if spec.dtype == "BOOL":
        return np.asarray(np.frombuffer(raw, dtype=np.uint8).reshape(shape) != 0)
    return np.frombuffer(raw, dtype=wanted.newbyteorder("<")).astype(wanted, copy=False).reshape(shape)


def to_bytes(array: Array, dtype: str) -> bytes:
    if dtype != "BYTES":
        wanted = NUMPY[dtype].newbyteorder("<")
        return np.ascontiguousarray(array, dtype=wanted).tobytes()
    parts = []
    for element in array.reshape(-1).tolist():
        raw = element if isinstance(element, bytes) else str(element).encode()
        parts.append(len(raw).to_bytes(LENGTH, "little"))
        parts.append(raw)
    return b"".join(parts)


def to_json(array: Array) -> Any:  # Any: nested lists
    """Nested lists; bytes become text; NaN and infinities, which JSON does not have, become null."""
    if array.dtype.kind == "O":
        return _decoded(array.tolist())
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        loose = array.astype(np.object_)
        loose[~np.isfinite(array)] = None
        return loose.tolist()
    return array.tolist()


def checked(tensors: Mapping[str, Array], signature: Signature, max_rows: int) -> int:
    """Names, shapes and finiteness; the number of rows. The types were fixed when the arrays were made."""
    rows = -1
    for spec in signature.inputs:
        array = tensors.get(spec.name)
        if array is None:
            raise Fault("missing_input", f"Input {spec.name} is missing.", f"Inputs are {_names(signature)}.")
        _fits(array.shape, spec)
        if spec.batched:
            if rows not in (-1, array.shape[0]):
                raise Fault("wrong_shape", f"Input {spec.name} has {array.shape[0]} rows, another one {rows}.")
            rows = array.shape[0]
        if not signature.allow_nan and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Fault("not_finite", f"Input {spec.name} holds NaN or an infinity.", "This model forbids them.")
    if len(tensors) != len(signature.inputs):
        extra = next(name for name in tensors if all(spec.name != name for spec in signature.inputs))
        raise Fault("unknown_input", f"There is no input {extra[:100]}.", f"Inputs are {_names(signature)}.")
    if rows > max_rows:
        raise Fault("too_many_rows", f"{rows} rows in one call.", f"At most {max_rows}; send them in parts.")
    return max(1, rows)


def input_spec(signature: Signature, name: object) -> TensorSpec:
    for spec in signature.inputs:
        if spec.name == name:
            return spec
    raise Fault("unknown_input", f"There is no input {str(name)[:100]}.", f"Inputs are {_names(signature)}.")


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> None:
    good = len(shape) == len(spec.shape) and all(
        have == want or (want == -1 and have > 0) for have, want in zip(shape, spec.shape, strict=True)
    )
    if not good:
        raise Fault(
            "wrong_shape",
            f"Input {spec.name} has shape {list(shape)[:16]}, not {list(spec.shape)}.",
            "-1 stands for any size from 1.",
        )


def _kinds(data: object, spec: TensorSpec, depth: int) -> set[type]:
    """The types of the leaves."""
    if type(data) is not list:
        return {type(data)}
    if depth >= MAX_DEPTH:
        raise Fault("bad_tensor", f"Input {spec.name} is nested too deeply.", _nested(spec))
    kinds: set[type] = set(map(type, data))
    if list in kinds:
        if len(kinds) > 1:
            raise _ragged(spec)
        kinds = set()
        for entry in data:
            kinds |= _kinds(entry, spec, depth + 1)
    return kinds


def _ragged(spec: TensorSpec) -> Fault:
    return Fault("bad_tensor", f"Input {spec.name} is ragged, or no tensor.", _nested(spec))


def _texts(data: object, spec: TensorSpec) -> Array:
    shape: list[int] = []
    level = data
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    flat: list[bytes] = []
    _flatten(data, shape, flat, spec)
    array = np.empty(len(flat), dtype=np.object_)
    array[:] = flat
    return array.reshape(shape)


def _flatten(data: object, shape: list[int], flat: list[bytes], spec: TensorSpec) -> None:
    if isinstance(data, str) and not shape:
        flat.append(data.encode("utf-8", "surrogatepass"))
        return
    if not isinstance(data, list) or not shape or len(data) != shape[0]:
        raise _ragged(spec)
    for entry in data:
        _flatten(entry, shape[1:], flat, spec)


def _elements(raw: memoryview, count: int, spec: TensorSpec) -> Array:
    if count * LENGTH > len(raw):
        raise Fault("bad_binary", f"Input {spec.name}: {len(raw)} bytes cannot hold {count} elements.")
    array = np.empty(count, dtype=np.object_)
    at = 0
    for index in range(count):
        if at + LENGTH > len(raw):
            raise Fault("bad_binary", f"Input {spec.name} ends inside element {index}.")
        size = int.from_bytes(raw[at : at + LENGTH], "little")
        at += LENGTH
        if at + size > len(raw):
            raise Fault("bad_binary", f"Input {spec.name} ends inside element {index}.")
        array[index] = bytes(raw[at : at + size])
        at += size
    if at != len(raw):
        raise Fault("bad_binary", f"Input {spec.name}: {len(raw) - at} bytes after its last element.")
    return array


def _decoded(value: Any) -> Any:  # Any: nested lists of bytes
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _names(signature: Signature) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in signature.inputs)


def _nested(spec: TensorSpec) -> str:
    return f"Send nested lists of shape {list(spec.shape)}."
