"""Model folders as the registry would hand them out, and rows for them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from heliostat_serving.spec import Signature, VersionSpec
from heliostat_serving.wire.tensors import Tensors

from tests.serving.builders import PAIR

FACTORY = """
import torch

class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.by = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x * self.by
"""


def manifest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = [
        {"path": str(file.relative_to(folder)), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        for file in files
    ]  # fmt: skip
    raw = json.dumps({"files": entries}).encode()
    (folder / "manifest.json").write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def twice(folder: Path, code: str = FACTORY, signature: Signature = PAIR) -> VersionSpec:
    import torch
    from safetensors.torch import save_file

    (folder / "code").mkdir(parents=True)
    (folder / "code" / "twice.py").write_text(code)
    save_file({"by": torch.tensor(2.0)}, folder / "model.safetensors")
    return card(folder, {"format": "safetensors", "factory": "twice:Twice"}, signature)


def card(folder: Path, entries: dict[str, Any], signature: Signature = PAIR) -> VersionSpec:
    (folder / "model.json").write_text(json.dumps({**entries, "signature": signature.to_json()}))
    return VersionSpec("iris", 1, "iris", 1, f"file://{folder}", manifest(folder), signature)


def row(value: float, count: int = 1) -> Tensors:
    return {"x": np.full((count, 2), value, np.float32)}
