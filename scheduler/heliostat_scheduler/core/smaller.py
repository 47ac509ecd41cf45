"""A job with less CPU or memory per task: ideas for `remedies`, the largest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from heliostat_scheduler.core.judge import structural_reason
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.core.state import State


def fitting_tasks(state: State, spec: JobSpec) -> list[JobSpec]:
    """What never fits, with the most CPU, or the most memory, per task that the cluster and every rule of its queue allow."""
    shape = spec.shape
    cpu = _most(state, shape.cpu_milli // 1000, lambda n: replace(spec, shape=replace(shape, cpu_milli=1000 * n)))
    memory = _most(state, shape.memory_bytes >> 20, lambda n: replace(spec, shape=replace(shape, memory_bytes=n << 20)))
    return [found for found in (cpu, memory) if found is not None and found != spec]


def _most(state: State, high: int, sized_so: Callable[[int], JobSpec]) -> JobSpec | None:
    """The largest of these sizes from 1 that can ever run."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        fits = structural_reason(state, sized_so(middle)) is None
        low, high = (middle, high) if fits else (low, middle - 1)
    return sized_so(low) if low else None


def small_tasks(state: State, spec: JobSpec) -> Iterator[JobSpec]:
    """What the largest node has, half of what was asked, one CPU."""
    shape = spec.shape
    cpu, memory = state.structure.largest_node(spec.flavors)
    for milli in (cpu // 1000 * 1000, shape.cpu_milli // 2000 * 1000, 1000):
        if 0 < milli < shape.cpu_milli:
            yield replace(spec, shape=replace(shape, cpu_milli=milli))
    for size in (memory >> 20 << 20, shape.memory_bytes >> 21 << 20):
        if 0 < size < shape.memory_bytes:
            yield replace(spec, shape=replace(shape, memory_bytes=size))
