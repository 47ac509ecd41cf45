"""The urgent job of the demo: score a baseline on the digits that production needs now. Takes seconds, wants both GPUs.

Run as a plain command on its lease: it sees only the devices that it holds. numpy only, because a short job should not spend
its time on imports: ridge regression on one-hot labels, (images, 65) -> (images, 10), in closed form.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heliostat.settings import environment

Table = NDArray[np.float64]
RIDGE = 1e-2


def load() -> tuple[Table, NDArray[np.int64]]:
    """scikit-learn's digits, read from its data file without importing it: images with a bias column, and labels."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-learn is not installed: pip install 'heliostat[jobs]'")
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    images = np.hstack([table[:, :-1] / 16.0, np.ones((len(table), 1))])
    return images, table[:, -1].astype(np.int64)


def score(images: Table, labels: NDArray[np.int64], seed: int) -> float:
    """Accuracy on a held-out fifth."""
    order = np.random.default_rng(seed).permutation(len(images))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    gram = images[train].T @ images[train] + RIDGE * np.eye(images.shape[1])
    weights = np.linalg.solve(gram, images[train].T @ np.eye(10)[labels[train]])
    return float(np.mean(np.argmax(images[test] @ weights, axis=1) == labels[test]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fit a linear baseline on the digits, again and again, for some seconds."
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    sys.stdout.write(f"urgent: on devices {environment().get('CUDA_VISIBLE_DEVICES', 'none')}\n")
    images, labels = load()
    deadline, scores = time.monotonic() + seconds, [score(images, labels, 0)]
    while time.monotonic() < deadline:
        scores.append(score(images, labels, len(scores)))
    sys.stdout.write(f"urgent: {len(scores)} fits, mean accuracy {sum(scores) / len(scores):.3f}\n")


if __name__ == "__main__":
    main()
