"""Whether a file of weights is what its name says: looked at, never executed, and no framework imported for it.

safetensors: the header is parsed and every tensor's bytes must lie in the file, without gaps or overlaps, as the format demands.
skops: a zip with a schema.json, no entry that leaves it, no pickle inside. ONNX: a whole protobuf message with a graph (weights
in other files of the folder are for onnxruntime to find; it refuses paths that leave the folder). A pickle is told by its
first byte and is never opened here.
"""

from __future__ import annotations

import json
import struct
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

from heliostat.artifacts.manifest import unsafe
from heliostat.registry.errors import RegistryError

MAX_HEADER = 100 * 2**20
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
MAX_SCHEMA = 256 * 2**20


def check_weights(path: Path, kind: str) -> None:
    """Raises RegistryError (bad_weights) for a file that is not of this format."""
    checks = {"safetensors": _safetensors, "skops": _skops, "onnx": _onnx, "pickle": _pickle}
    if not path.is_file():
        raise _bad(path, f"is missing; format {kind} needs it")
    try:
        with path.open("rb") as file:
            checks[kind](path, file, path.stat().st_size)
    except (ValueError, KeyError, TypeError, struct.error, zipfile.BadZipFile, EOFError, RecursionError) as error:
        raise _bad(path, f"is no {kind} file: {error}") from error


def _safetensors(path: Path, file: IO[bytes], size: int) -> None:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(MAX_HEADER, size - 8):
        raise _bad(path, "is cut off or no safetensors file: its header is longer than the file")
    header = json.loads(file.read(length))
    spans = sorted(_span(path, name, tensor) for name, tensor in header.items() if name != "__metadata__")
    at = 0
    for begin, end in spans:
        if begin != at:
            raise _bad(path, "has tensors that overlap or leave gaps")
        at = end
    if at != size - 8 - length:
        raise _bad(path, f"is cut off or too long: its tensors take {at} bytes, {size - 8 - length} are there")


def _span(path: Path, name: str, tensor: dict[str, Any]) -> tuple[int, int]:  # Any: JSON
    begin, end = tensor["data_offsets"]
    bits = BITS[tensor["dtype"]] * prod(tensor["shape"])
    if not 0 <= begin <= end or (end - begin) * 8 != bits or any(type(n) is not int or n < 0 for n in tensor["shape"]):
        raise _bad(path, f"has a tensor {name[:80]!r} whose shape does not match its bytes")
    return begin, end


def _skops(path: Path, file: IO[bytes], size: int) -> None:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if "schema.json" not in names:
            raise _bad(path, "is a zip, but not of skops: it has no schema.json")
        odd = [name for name in names if unsafe(name) or name.endswith((".pkl", ".pickle"))]
        if odd or archive.getinfo("schema.json").file_size > MAX_SCHEMA:
            raise _bad(path, f"holds {odd[0][:80]!r}" if odd else "has a schema.json beyond all measure")
        json.loads(archive.read("schema.json"))


def _onnx(path: Path, file: IO[bytes], size: int) -> None:
    """The top level of ModelProto: ir_version (1), graph (7); lengths must add up to the file."""
    fields, at = set(), 0
    while at < size:
        file.seek(at)
        head = file.read(20)
        key, used = _varint(head)
        number, wire = key >> 3, key & 7
        if wire == 0:
            used += _varint(head[used:])[1]
        elif wire == 2:
            length, more = _varint(head[used:])
            used += more + length
        elif wire in (1, 5):
            used += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        fields.add(number)
        at += used
    if at != size or not {1, 7} <= fields:
        raise _bad(path, "is cut off or no ONNX model")


def _varint(data: bytes) -> tuple[int, int]:
    """(value, bytes used)"""
    value = 0
    for index, byte in enumerate(data[:10]):
        value |= (byte & 127) << (7 * index)
        if not byte & 128:
            return value, index + 1
    raise ValueError("a number is cut off")


def _pickle(path: Path, file: IO[bytes], size: int) -> None:
    if file.read(1) != b"\x80":
        raise _bad(path, "is no pickle of protocol 2 or newer")


def _bad(path: Path, text: str) -> RegistryError:
    return RegistryError("bad_weights", f"{path.name} {text}.", "Save the model again; docs/models.md has the formats.")
