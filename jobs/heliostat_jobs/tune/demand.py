"""What one trial asks for, and whether a lease can give it. No Ray here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from heliostat_scheduler.live.protocol import Lease

from heliostat_jobs.errors import NeverFits, NotYetSupported, UndeclaredGPU, metadata_line
from heliostat_jobs.slots.ledger import WHOLE


def gpus_of_trial(bundles: Sequence[Mapping[str, float]]) -> float:
    """GPUs of a trial's own process, 0 to 1. Raises what no slot can hold."""
    gpus = [float(bundle.get("GPU", 0)) for bundle in bundles]
    if any(gpus[1:]):
        raise NotYetSupported(
            f"A trial asks for a group of {len(gpus)} bundles with {sum(gpus):g} GPUs; a trial's own process gets one slot.",
            "Build a TorchTrainer inside the trial (its workers take the lease's slots), or use one GPU per trial.",
        )
    if gpus[0] > 1:
        raise NeverFits(
            f"A trial asks for {gpus[0]:g} GPUs; a slot is one GPU, and a trial's process runs in one slot.",
            "Build a TorchTrainer inside the trial: ScalingConfig(num_workers=..., use_gpu=True).",
        )
    return gpus[0]


def check(gpus: float, lease: Lease) -> None:
    """Raise when trials want GPUs and the job was submitted without."""
    if gpus > 0 and not lease.slots:
        raise UndeclaredGPU(
            f"A trial asks for {gpus:g} GPU, but job {lease.job} was submitted without any.",
            f"Add {metadata_line(1)} when you submit it; trials run one per GPU at once.",
        )


MANY = 1000
"""Trials at once of a search that names no number."""


def at_once(samples: float, limit: int) -> int:
    """How many trials may run at the same time: all samples (0 or less: no end), but no more than the search's own limit (0: none)."""
    most = int(min(samples, MANY)) if samples > 0 else MANY
    return max(1, min(most, limit) if limit > 0 else most)


def share_of(gpus: float) -> int:
    """A trial's share of a slot, in thousandths."""
    return max(1, round(gpus * WHOLE))


def gpus_for(trials: int, gpus: float) -> int:
    """GPUs that so many trials of this part of a GPU fill: as many as fit into one slot share it."""
    return max(1, math.ceil(trials / (WHOLE // share_of(gpus))))
