"""What a script's `fit()` asks for, held against its lease. Each refusal says what to change. No Ray here.

`scaling` is duck-typed as ray.train.ScalingConfig (num_workers, min_workers, max_workers, use_gpu, use_tpu and its resources).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heliostat_scheduler.live.protocol import Lease

from heliostat_jobs.errors import JobError, NotYetSupported, UndeclaredGPU, WorkerCountMismatch, metadata_line
from heliostat_jobs.train.places import ACCELERATOR, places_of

IN_A_SLOT = frozenset(("CPU", "GPU", "memory"))


@dataclass(frozen=True, slots=True)
class Request:
    """What one `fit()` wants: workers (min, max) and GPUs for each. custom: other resources for each that no slot holds."""

    min_workers: int
    max_workers: int
    gpus_per_worker: float
    tpu: bool = False
    custom: tuple[str, ...] = ()

    @classmethod
    def of(cls, scaling: Any) -> Request:  # Any: ray.train.ScalingConfig, which is untyped
        resources = scaling._resources_per_worker_not_none
        custom = [
            n for n, amount in resources.items() if amount and n not in IN_A_SLOT and not n.startswith(ACCELERATOR)
        ]
        gpus = float(resources.get("GPU", 0))
        return cls(scaling.min_workers, scaling.max_workers, gpus, bool(scaling.use_tpu), tuple(custom))


def floats(request: Request, lease: Lease) -> bool:
    """Whether this run takes the cluster's floating CPUs as under plain Ray: it wants no GPU, and the lease has not as many places.

    A range without GPUs takes the places of a GPU lease when their number lies in it.
    """
    if request.gpus_per_worker > 0 or request.tpu:
        return False
    held = len(places_of(lease))
    return not request.min_workers <= held <= request.max_workers if lease.slots else held != request.max_workers


def has_gpus(request: Request) -> bool:
    """Whether the workers want GPUs."""
    return request.gpus_per_worker > 0


def check_in_trial(request: Request, lease: Lease) -> None:
    """Raise when no part of this lease could ever hold the workers of a trainer inside a trial."""
    error = _kind_refusal(request, lease)
    if error is None and request.min_workers > len(lease.slots):
        error = _size_refusal(request.min_workers, request.max_workers, len(lease.slots), lease.job)
    if error is not None:
        raise error


def check(request: Request, lease: Lease) -> None:
    """Raise the refusal of this request under this lease, if there is one."""
    error = refusal(request, lease)
    if error is not None:
        raise error


def refusal(request: Request, lease: Lease) -> JobError | None:
    """Why `fit()` cannot run in this lease, or None. It takes what the lease has, up to its own maximum."""
    held = min(len(places_of(lease)), request.max_workers) if lease.slots else len(places_of(lease))
    return _kind_refusal(request, lease) or _size_refusal(request.min_workers, request.max_workers, held, lease.job)


def _kind_refusal(request: Request, lease: Lease) -> JobError | None:
    fewest, most = request.min_workers, request.max_workers
    if request.tpu:
        return NotYetSupported(
            "ScalingConfig(use_tpu=True) cannot run in a lease: slots hold GPUs.", "Use use_gpu=True."
        )
    if request.custom:
        return NotYetSupported(
            f"fit() asks for {', '.join(request.custom)} for each worker; a slot holds a GPU, CPUs and memory.",
            "Leave them out of resources_per_worker; a kind of hardware is chosen with the job's flavor (helio submit --flavor).",
        )
    if request.gpus_per_worker > 1:
        total = int(request.gpus_per_worker * most)
        return NotYetSupported(
            f"fit() asks for {request.gpus_per_worker:g} GPUs for each worker; a worker runs in one slot, which is one GPU.",
            f"Use one worker per GPU: ScalingConfig(num_workers={total}, use_gpu=True).",
        )
    if request.gpus_per_worker > 0 and not lease.slots:
        return UndeclaredGPU(
            f"fit() asks for {_count(fewest, most)} workers with a GPU, but job {lease.job} was submitted without any.",
            f"Add {metadata_line(fewest, most)} when you submit it.",
        )
    return None


def check_size(scaling: Any, held: int, job: str) -> None:  # Any: as above
    """Raise when a lease of `held` places cannot run this script's worker count."""
    error = _size_refusal(scaling.min_workers, scaling.max_workers, held, job)
    if error is not None:
        raise error


def _size_refusal(fewest: int, most: int, held: int, job: str) -> WorkerCountMismatch | None:
    if fewest <= held <= most:
        return None
    remedy = f"Submit it with {metadata_line(fewest, most)}"
    if held > 0:
        remedy += f", or use ScalingConfig(num_workers={held})"
    message = f"fit() asks for {_count(fewest, most)} workers, but job {job} holds {held} GPUs."
    return WorkerCountMismatch(message, remedy + ".")


def _count(fewest: int, most: int) -> str:
    return str(most) if fewest == most else f"{fewest} to {most}"
