"""The digits model as an artifact folder: model.json, model.safetensors, and the code that builds the module.

`write` trains one in seconds in this process, without Ray: for tests of serving and registry, and to try them by hand.
`python -m heliostat_jobs.recipes.digits_artifact FOLDER --epochs 6`
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from heliostat_jobs.recipes import digits_data, digits_model
from heliostat_jobs.recipes.digits_model import CLASSES, DigitsCNN, accuracy
from heliostat_jobs.spec import ModelCard, Signature, Tensor

SIGNATURE = Signature(
    (Tensor("images", "FP32", (-1, 1, 8, 8)),),
    (Tensor("logits", "FP32", (-1, CLASSES)),),
)


def card(width: int) -> ModelCard:
    return ModelCard("safetensors", SIGNATURE, factory="digits_model:DigitsCNN", args={"width": width})


def put_beside(weights: Path, folder: Path, width: int) -> None:
    """Make an artifact folder around a file of weights."""
    made = card(width)
    made.write(folder)
    shutil.copyfile(weights, folder / made.weights)
    (folder / "code").mkdir(exist_ok=True)
    shutil.copyfile(str(digits_model.__file__), folder / "code" / "digits_model.py")


def save(state: Mapping[str, torch.Tensor], folder: Path, width: int) -> None:
    """Make an artifact folder from a state dict."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.part"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, weights)
    put_beside(weights, folder, width)
    weights.unlink()


def code_digest() -> str:
    """SHA-256 over the sources of this recipe."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("digits_*.py")):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def write(folder: Path, *, seed: int = 7, epochs: int = 6, width: int = 8, batch_size: int = 48) -> float:
    """Train a small model in this process and write its artifact folder; returns its accuracy on the held-out images."""
    torch.manual_seed(seed)
    data = digits_data.load(seed)
    model = DigitsCNN(width)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    order = digits_data.BatchOrder(len(images), batch_size, seed)
    for step in range(epochs * order.steps_per_epoch):
        ids = torch.from_numpy(order.batch(step))
        loss = nn.functional.cross_entropy(model(images[ids]), labels[ids])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    save(model.state_dict(), folder, width)
    return accuracy(model, torch.from_numpy(data.test_x), torch.from_numpy(data.test_y))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train a small digits model without Ray and write its artifact folder."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args(argv)
    print(digits_data.load(args.seed).split_line(args.seed))
    print(f"accuracy {write(args.folder, seed=args.seed, epochs=args.epochs):.4f} in {args.folder}")


if __name__ == "__main__":
    main()
