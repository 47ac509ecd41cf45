"""A random forest on scikit-learn's wine: `python -m heliostat_jobs.recipes.wine_forest --trees 200`.

One process, no GPU, no Ray. The model is saved with skops: nothing in it is executed when it is loaded. result.json and the model's
folder lie in the run folder, as with every recipe.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skops.io
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, log_loss

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.spec import RECIPES, ModelCard, ModelEntry, Result, Signature, Tensor

HELD_OUT = 0.3
MODEL_DIR = "model"
SIGNATURE = Signature(
    (Tensor("features", "FP64", (-1, 13)),),
    (Tensor("label", "INT64", (-1,)), Tensor("probabilities", "FP64", (-1, 3))),
)
"""outputs: predict, then predict_proba."""


@dataclass(frozen=True, slots=True)
class Wine:
    """Features (n, 13) and classes (n,), for training and held out; *_ids are places in scikit-learn's order."""

    train_x: npt.NDArray[np.float64]
    train_y: npt.NDArray[np.int64]
    test_x: npt.NDArray[np.float64]
    test_y: npt.NDArray[np.int64]
    train_ids: npt.NDArray[np.int64]
    test_ids: npt.NDArray[np.int64]
    sha256: str


def load(seed: int) -> Wine:
    """The split for this seed."""
    x, y = load_wine(return_X_y=True)
    x, y = x.astype(np.float64), y.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = order[: int(len(x) * HELD_OUT)], order[int(len(x) * HELD_OUT) :]
    whole = hashlib.sha256(x.astype("<f8").tobytes() + y.astype("<i8").tobytes()).hexdigest()
    return Wine(x[train], y[train], x[test], y[test], train, test, whole)


def write(folder: Path, *, seed: int = 7, trees: int = 200, max_depth: int = 0) -> dict[str, float]:
    """Train, write the artifact folder, and return the metrics on the held-out part."""
    data = load(seed)
    forest = RandomForestClassifier(n_estimators=trees, max_depth=max_depth or None, random_state=seed, n_jobs=1)
    forest.fit(data.train_x, data.train_y)
    ModelCard("skops", SIGNATURE, skops_trusted=save(forest, folder)).write(folder)
    chances = forest.predict_proba(data.test_x)
    return {
        "accuracy": float(accuracy_score(data.test_y, forest.predict(data.test_x))),
        "loss": float(log_loss(data.test_y, chances)),
    }


def save(model: Any, folder: Path) -> tuple[str, ...]:  # Any: a scikit-learn estimator
    """Write model.skops; returns the types that skops does not trust by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.skops"
    skops.io.dump(model, path)
    return tuple(skops.io.get_untrusted_types(file=path))


def code_digest() -> str:
    """SHA-256 of this file."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for option in RECIPES["wine-forest"].options:
        kind = int if option.kind == "int" else float
        parser.add_argument(f"--{option.name}", type=kind, default=option.default, help=option.help)
    parser.add_argument("--register", default="", metavar="NAME", help="register the model under this name")
    parser.add_argument("--run-dir", type=Path, default=None, help="default: the job's folder, or runs/wine-<time>")
    args = parser.parse_args(argv)
    if args.trees < 1 or args.max_depth < 0:
        parser.error("--trees must be at least 1, --max-depth at least 0")
    attempt = Attempt.from_environment()
    by_hand = Path("runs") / f"wine-{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = (args.run_dir or (attempt.run_dir if attempt else by_hand)).resolve()
    data = load(args.seed)
    both = len(np.intersect1d(data.train_ids, data.test_ids))
    print(
        f"split of seed {args.seed}: {len(data.train_ids)} wines to train, {len(data.test_ids)} held out, {both} in both"
    )
    metrics = write(run_dir / MODEL_DIR, seed=args.seed, trees=args.trees, max_depth=args.max_depth)
    params = {"seed": args.seed, "trees": args.trees, "max_depth": args.max_depth}
    entry = ModelEntry(MODEL_DIR, args.register, code_digest=code_digest(), data_digest=data.sha256)
    Result(metrics, entry, params).write(run_dir)
    print(f"accuracy {metrics['accuracy']:.4f} on {len(data.test_ids)} held-out wines; results in {run_dir}")


if __name__ == "__main__":
    main()
