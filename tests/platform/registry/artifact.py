"""Model folders made by hand: no torch, no training, milliseconds."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

CARD: dict[str, Any] = {
    "format": "safetensors",
    "factory": "net:Net",
    "args": {"width": 2},
    "signature": {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1, 2]}],
        "allow_nan": False,
    },
}


def zipped(content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def safetensors(seed: int = 0) -> bytes:
    """One tensor `w` of 2 x 4 floats."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<8f", *range(seed, seed + 8))


def skops() -> bytes:
    return zipped({"schema.json": b"{}"})


def onnx() -> bytes:
    """ir_version 8, a graph of three bytes."""
    return bytes([0x08, 8, 0x3A, 3, 0x12, 1, 0x67])


WEIGHTS = {
    "safetensors": ("model.safetensors", safetensors()),
    "skops": ("model.skops", skops()),
    "onnx": ("model.onnx", onnx()),
    "pickle": ("model.pkl", b"\x80\x04N."),
}


def files(seed: int = 0, kind: str = "safetensors", **card: Any) -> dict[str, bytes]:
    """What is in a good folder; `card` overrides fields of model.json."""
    name, weights = WEIGHTS[kind]
    body = {**CARD, "format": kind, **card}
    made = {name: safetensors(seed) if kind == "safetensors" else weights, "model.json": json.dumps(body).encode()}
    return made | ({"code/net.py": b"class Net: ...\n"} if kind == "safetensors" else {})


def write(folder: Path, content: dict[str, bytes] | None = None) -> Path:
    for name, data in (files() if content is None else content).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
