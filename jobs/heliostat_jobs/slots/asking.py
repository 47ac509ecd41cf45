"""What a plain task or actor asks for, and whether the lease can give it. No Ray here.

`options` are the merged options of `.remote()`; strategies are told apart by their attributes, as Ray's own classes have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heliostat_scheduler.live.protocol import Lease, SlotRef

from heliostat_jobs.errors import NeverFits, NotYetSupported, ReservedResource, UndeclaredGPU, metadata_line
from heliostat_jobs.train.places import clipped, cuts, place_of

GROUP_MARK = "_group_"
"""Ray names the resources of a placement group `<resource>_group_<id>`; asking for one is a way around the lease."""
DEFAULT_CPUS = 1
"""What Ray gives a task or actor that names GPUs and no CPUs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that belongs into the lease. gpus: more than 0, at most 1. node: Ray's id of the one it must be on ("" any)."""

    what: str
    gpus: float
    node: str = ""


def asked(what: str, options: Mapping[str, Any]) -> Asked | None:  # Any: Ray's options are whatever the user gave
    """The request for a slot, or None for what stays outside the lease. Raises what can never be placed."""
    refuse_group_names(what, options.get("resources") or {})
    gpus = options.get("num_gpus") or 0
    if gpus <= 0 or names_a_group(options):
        return None
    if gpus > 1:
        raise NeverFits(
            f"{what} asks for num_gpus={gpus:g}; a slot is one GPU, and a process runs in one slot.",
            "Use one process per GPU (num_gpus=1), or ray.train with num_workers for work over several.",
        )
    if options.get("lifetime") == "detached":
        raise NotYetSupported(
            f"{what} is detached and asks for num_gpus={gpus:g}; it would outlive the lease that it runs in.",
            "Leave lifetime out, or give a detached actor no GPU (num_gpus=0).",
        )
    strategy = options.get("scheduling_strategy")
    pinned = getattr(strategy, "node_id", "") if not getattr(strategy, "soft", True) else ""
    return Asked(what, float(gpus), pinned)


def refuse_group_names(what: str, resources: Mapping[str, float]) -> None:
    """Raise when a placement group's own resource is asked for by name."""
    reserved = sorted(name for name in resources if GROUP_MARK in name)
    if reserved:
        raise ReservedResource(
            f"{what} asks for {reserved[0]}, the resource of a placement group.",
            "GPUs are placed by the lease: declare them when you submit and ask for no `_group_` resource.",
        )


def names_a_group(options: Mapping[str, Any]) -> bool:  # Any: as above
    """Whether the request has a placement group of its own."""
    strategy = options.get("scheduling_strategy")
    if getattr(strategy, "placement_group", None) is not None:
        return True
    return options.get("placement_group") not in (None, "default")


def nothing_to_give(request: Asked, lease: Lease) -> Exception:
    """Why the lease has no slot for this."""
    if not lease.slots:
        return UndeclaredGPU(
            f"{request.what} asks for num_gpus={request.gpus:g}, but job {lease.job} was submitted without any.",
            f"Add {metadata_line(1)} when you submit it.",
        )
    nodes = sorted({slot.node[:12] for slot in lease.slots})
    return NeverFits(
        f"{request.what} must run on node {request.node[:12]}, where job {lease.job} holds no GPU.",
        f"Leave the node out, or name one of the lease's: {', '.join(nodes)}.",
    )


def blocked(trial: str, workers: int, held: str) -> NeverFits:
    """Why a trainer inside a trial would wait for ever."""
    return NeverFits(
        f"The trainer in trial {trial} needs {workers} slots, and all trials that hold one wait for further ones, too ({held}).",
        'Give the trials no GPU of their own (tune.with_resources(trial, {"cpu": 1})): only the workers of their trainers need one.',
    )


def options_in_slot(options: Mapping[str, Any], slot: SlotRef, gpus: float = 1) -> tuple[dict[str, Any], str]:
    """What changes in the options for this slot (all but the strategy), and what was cut, for a warning.

    A part of a GPU gets at most that part of the slot's CPU and memory, or the other parts could never run beside it.
    """
    whole = place_of(slot)
    place = replace(whole, cpu=whole.cpu * gpus, memory=int(whole.memory * gpus))
    wanted = {"CPU": DEFAULT_CPUS if options.get("num_cpus") is None else options["num_cpus"]}
    if options.get("memory"):
        wanted["memory"] = options["memory"]
    granted = clipped(wanted, place)
    changed: dict[str, Any] = {"num_cpus": granted["CPU"]}
    if "memory" in wanted:
        changed["memory"] = granted.get("memory")
    cut = cuts({name: amount for name, amount in wanted.items() if name in granted}, place)
    return changed, cut if options.get("num_cpus") is not None else ""
