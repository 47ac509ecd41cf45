"""How a node's CPU and memory are shared out: reserve, slot parts, and the floating rest. Pure.

*Reserve* belongs to drivers, controllers and Ray Data's own tasks and is never leased. Each GPU's slot carries its *slot part*.
What is left *floats*: CPU-only jobs and Serve use it. On a node that is too small for all three, the reserve keeps at most half
of the CPUs and the slot parts shrink before any slot is given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MIN_RESERVE_CPU_MILLI = 2_000
RESERVE_SHARE = 10  # a tenth
FLAVOR_LABEL = "heliostat/flavor"
RAY_ACCELERATOR_LABEL = "ray.io/accelerator-type"


@dataclass(frozen=True, slots=True)
class Shares:
    """slot_*: what each slot's bundle holds. float_*: for CPU-only leases."""

    slot_cpu_milli: int
    slot_memory_bytes: int
    float_cpu_milli: int
    float_memory_bytes: int


def share_out(
    cpu_milli: int, memory_bytes: int, gpus: int, *, slot_cpu_milli: int = 1000, reserve_cpu_milli: int = 0
) -> Shares:
    """Split one node. reserve_cpu_milli 0: the larger of 2 cores and a tenth."""
    wanted = reserve_cpu_milli or max(MIN_RESERVE_CPU_MILLI, cpu_milli // RESERVE_SHARE)
    rest = cpu_milli - min(wanted, cpu_milli // 2)
    slot_cpu = min(slot_cpu_milli, rest // gpus) if gpus else 0
    memory = memory_bytes - memory_bytes // RESERVE_SHARE
    slot_memory = memory // 2 // gpus if gpus else 0
    return Shares(slot_cpu, slot_memory, rest - gpus * slot_cpu, memory - gpus * slot_memory)


def flavor_of(labels: Mapping[str, str], gpus: int) -> str:
    """The node's flavor: our label, else Ray's accelerator type, else `gpu` or `cpu`."""
    return labels.get(FLAVOR_LABEL) or labels.get(RAY_ACCELERATOR_LABEL) or ("gpu" if gpus else "cpu")
