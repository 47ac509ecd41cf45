"""Where the workers of a lease run: one place a worker, in rank order. No Ray here.

A place is a bundle of a permanent placement group: bundle 0 of a GPU's slot, or a share of the one bundle that a CPU-only
lease has. `Lease.slots` is grouped by node and sorted by device, so place i is rank i. A worker gets what the script asks
for, but never more than its place holds: the rest of a node belongs to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from heliostat_scheduler.live.protocol import RUN, Lease, SlotRef

MILLI = 1000
ACCELERATOR = "accelerator_type:"
"""Begins the resource by which Ray names a kind of GPU. In a lease the job's flavor has chosen it; slots do not hold it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's place. `slot` is the slot's id, or `cpu` for a share of a CPU-only lease; resources in Ray's units."""

    slot: str
    group: str
    node: str
    device: int
    cpu: float
    memory: int
    gpu: float = 1.0


def places_of(lease: Lease) -> tuple[Place, ...]:
    """The lease's places in rank order; empty when it holds neither slots nor a CPU group."""
    if lease.slots:
        return tuple(place_of(slot) for slot in lease.slots)
    if lease.cpu_group and lease.tasks > 0:
        share = Place("cpu", lease.cpu_group, lease.node, -1, lease.cpu_milli / MILLI / lease.tasks, 0, gpu=0.0)
        return (share,) * lease.tasks
    return ()


def no_more_than(lease: Lease, most: int) -> Lease:
    """The lease as a run of at most that many workers sees it: the first slots. The rest is the job's, but not this run's."""
    return lease if len(lease.slots) <= most else replace(lease, slots=lease.slots[:most], tasks=most)


def place_of(slot: SlotRef) -> Place:
    """A GPU's slot as a place."""
    return Place(slot.slot, slot.group, slot.node, slot.device, slot.cpu_milli / MILLI, slot.memory_bytes)


def may_run(lease: Lease) -> bool:
    """Whether workers may be in this lease's places now."""
    return lease.order == RUN


def clipped(asked: Mapping[str, float], place: Place) -> dict[str, float]:
    """`asked` (Ray's resources for one worker) cut down to what the place holds. Memory 0 in a place means: not counted."""
    limits = {"CPU": place.cpu, "GPU": place.gpu}
    granted = {name: min(amount, limits.get(name, amount)) for name, amount in asked.items()}
    granted = {name: amount for name, amount in granted.items() if not name.startswith(ACCELERATOR)}
    if place.memory == 0:
        granted.pop("memory", None)
    elif "memory" in granted:
        granted["memory"] = min(granted["memory"], float(place.memory))
    return granted


def cuts(asked: Mapping[str, float], place: Place) -> str:
    """What `clipped` took away, for a warning; empty when nothing."""
    granted = clipped(asked, place)
    cut = [
        f"{name} {amount:g} -> {granted[name]:g}"
        for name, amount in asked.items()
        if granted.get(name, amount) < amount
    ]
    dropped = [f"{name} is left out: the job's flavor chose its GPUs" for name in asked if name.startswith(ACCELERATOR)]
    return ", ".join(cut + dropped)
