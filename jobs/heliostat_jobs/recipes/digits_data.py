"""scikit-learn's digits: 1,797 grey images of 8 x 8, split once, in an order that depends on the seed and nothing else.

The order belongs to the run, not to the workers: a global batch is the same set of images whatever the number of workers, and
step s can be found without having run steps 0..s-1. So a run can stop anywhere and go on with another world size, and no image is
seen twice or missed in an epoch.

`python -m heliostat_jobs.recipes.digits_data --seed 7 --first 100` prints the first held-out images and their labels as JSON: no
training with this seed has seen them, so they can be used to test an endpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Images = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

HELD_OUT = 0.2


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (n, 1, 8, 8) in [0, 1] and their labels (n,), for training and held out; *_ids are places in scikit-learn's order."""

    train_x: Images
    train_y: Ids
    test_x: Images
    test_y: Ids
    train_ids: Ids
    test_ids: Ids
    sha256: str

    def split_line(self, seed: int) -> str:
        """What a training says about its split."""
        both = len(np.intersect1d(self.train_ids, self.test_ids))
        return (
            f"split of seed {seed}: {len(self.train_ids)} images to train, {len(self.test_ids)} held out for testing, {both} in both; "
            f"test split {digest(self.test_ids)}"
        )


def load(seed: int) -> Digits:
    """The split for this seed."""
    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    y = labels.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(x))
    held_out = int(len(x) * HELD_OUT)
    test, train = order[:held_out], order[held_out:]
    whole = hashlib.sha256(x.astype("<f4").tobytes() + y.astype("<i8").tobytes()).hexdigest()
    return Digits(x[train], y[train], x[test], y[test], train, test, whole)


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """Which images step s trains on. The rest of an epoch that fills no batch is left out, another one each epoch."""

    images: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch_size

    def batch(self, step: int) -> Ids:
        """Ids of the global batch of a step, (batch_size,)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
        return order[index * self.batch_size : (index + 1) * self.batch_size]

    def share(self, step: int, rank: int, world_size: int) -> Ids:
        """What one worker computes of it: every world_size-th image."""
        return self.batch(step)[rank::world_size]


def digest(ids: Ids) -> str:
    """Names a batch: equal batches, equal digests."""
    return hashlib.blake2b(ids.astype("<i8").tobytes(), digest_size=8).hexdigest()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Print the first held-out images of a split and their labels as JSON.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--inputs", action="store_true", help="only what an endpoint takes: the images")
    args = parser.parse_args(argv)
    data = load(args.seed)
    count = max(0, min(args.first, len(data.test_x)))
    if args.inputs:
        print(json.dumps({"images": data.test_x[:count].tolist()}))
        return
    body = {
        "seed": args.seed,
        "split": digest(data.test_ids),
        "held_out": len(data.test_x),
        "ids": data.test_ids[:count].tolist(),
    }
    print(json.dumps({**body, "images": data.test_x[:count].tolist(), "labels": data.test_y[:count].tolist()}))


if __name__ == "__main__":
    main()
