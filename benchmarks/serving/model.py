"""The model that every variant serves: 16 -> 64 -> 4, on the CPU, one thread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from heliostat_serving.spec import Signature, TensorSpec
from safetensors.torch import load_file, save_file

from tests.e2e.serve_world import write_manifest

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 16)),), (TensorSpec("y", "FP32", (-1, 4)),))
CODE = "import torch\n\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))\n"


def write(folder: Path) -> tuple[str, str]:
    """The artifact; its address and digest."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "mlp.py").write_text(CODE)
    save_file(_build().state_dict(), folder / "model.safetensors")
    card = {"format": "safetensors", "factory": "mlp:build", "signature": SIGNATURE.to_json()}
    (folder / "model.json").write_text(json.dumps(card))
    return f"file://{folder}", write_manifest(folder)


def load(weights: str) -> torch.nn.Module:
    """As somebody without us would load it."""
    torch.set_num_threads(1)
    model = _build()
    model.load_state_dict(load_file(weights))
    return model.eval()


def predict(model: torch.nn.Module, rows: list[list[float]]) -> list[Any]:
    with torch.inference_mode():
        found: list[Any] = model(torch.tensor(rows)).tolist()
    return found


def _build() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
