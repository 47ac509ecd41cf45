"""scikit-learn's digits: 1,797 grey images of 8 x 8, split once, in an order that depends on the seed and nothing else.

The order belongs to the run, not to the workers: a global batch is the same set of images whatever the number of workers, and
step s can be found without having run steps 0..s-1. So a run can stop anywhere and go on with another world size, and no image is
seen twice or missed in an epoch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Images = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

HELD_OUT = 0.2
CLASSES = 10


@dataclass(frozen=True, slots=True)
class Digits:
    """Images (n, 1, 8, 8) in [0, 1] and their labels (n,), for training and held out."""

    train_x: Images
    train_y: Ids
    test_x: Images
    test_y: Ids


def load(seed: int) -> Digits:
    """The split for this seed."""
    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    y = labels.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(x))
    held_out = int(len(x) * HELD_OUT)
    test, train = order[:held_out], order[held_out:]
    return Digits(x[train], y[train], x[test], y[test])


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
