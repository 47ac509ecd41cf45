"""Placing one task so that what stays free remains useful: FGD's fragmentation (ATC 2023) with a CPU-deficit term.

A node's fragment for a demand kind is the sum of device leftovers too small for it, or all its idle GPUs when the kind cannot run
there; F is the mean over the demand mix (the kinds that arrive, learned by `estimate`, weights in parts per million). To this is
added the deficit: idle GPU milli that the node's free CPU could not feed at the mix's own ratio of CPU to GPU. The node and device
with the largest fall of F + deficit win; ties go to the node left with least CPU and GPU, then to the smaller id. Rejected: FGD's
integer score, whose ties hide a packing rule worth five points.

F depends on a node only through its *state* (flavor, free CPU, sorted free milli of its devices), so every answer is kept by state.
"""

from __future__ import annotations

from dataclasses import dataclass

from heliostat_scheduler.core.model import DemandKind, TaskPlace, TaskShape
from heliostat_scheduler.core.space import WHOLE, NodeSpace, NodeState, Space, State

MEMO_LIMIT = 2_000_000

UNBOUND = -1
"""CPU comes with the slot: it never runs short."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The best way to put a task on a node of some state."""

    fall: int
    device_free: int
    left: int


class Fragmentation:
    """Scores under one demand mix. Pure: the same states give the same answers; the memos only save time."""

    def __init__(self, mix: tuple[DemandKind, ...]) -> None:
        self.mix = mix
        gpu = sum(kind.gpu_milli * kind.weight_ppm for kind in mix)
        cpu = sum(kind.cpu_milli * kind.weight_ppm for kind in mix)
        self.cpu_per_gpu = cpu * WHOLE // gpu if gpu else 0
        self._fraction: list[int] = sorted({kind.gpu_milli for kind in mix if 0 < kind.gpu_milli < WHOLE})
        self._by_flavor: dict[str, tuple[DemandKind, ...]] = {}
        self._costs: dict[State, int] = {}
        self._fits: dict[TaskShape, dict[NodeState, Fit | None]] = {}

    def cost(self, state: State) -> int:
        """F plus the CPU deficit of a node in this state, in milli-GPU x parts per million."""
        found = self._costs.get(state)
        if found is None:
            if len(self._costs) > MEMO_LIMIT:
                self._costs.clear()
            found = self._costs[state] = self._cost(state)
        return found

    def _cost(self, state: State) -> int:
        flavor, cpu, free = state
        idle = sum(free)
        if not idle:
            return 0
        small = {milli: sum(left for left in free if left < milli) for milli in (*self._fraction, WHOLE)}
        whole = free.count(WHOLE)
        largest = free[-1]
        total = 0
        for kind in self._kinds(flavor):
            milli = kind.gpu_milli
            room = whole * WHOLE if milli >= WHOLE else largest
            fits = (cpu == UNBOUND or cpu >= kind.cpu_milli) and 0 < milli <= room
            total += kind.weight_ppm * (small[min(milli, WHOLE)] if fits else idle)
        foreign = 1_000_000 - sum(kind.weight_ppm for kind in self._kinds(flavor))
        return total + foreign * idle + 1_000_000 * self._deficit(cpu, idle)

    def _kinds(self, flavor: str) -> tuple[DemandKind, ...]:
        """The part of the mix that may run on a flavor; the rest counts all idle milli."""
        if flavor not in self._by_flavor:
            self._by_flavor[flavor] = tuple(kind for kind in self.mix if not kind.flavors or flavor in kind.flavors)
        return self._by_flavor[flavor]

    def _deficit(self, cpu: int, idle: int) -> int:
        if cpu == UNBOUND or not self.cpu_per_gpu:
            return 0
        return max(0, idle - max(0, cpu) * WHOLE // self.cpu_per_gpu)

    def _fit(self, state: State, shape: TaskShape) -> Fit | None:
        """The device choice with the largest fall of the cost, or None when the task does not fit."""
        flavor, cpu, free = state
        if cpu != UNBOUND:
            if cpu < shape.cpu_milli:
                return None
            cpu -= shape.cpu_milli
        before, best = self.cost(state), None
        for device, after in _ways(free, shape.gpu_milli):
            fall = before - self.cost((flavor, cpu, after))
            if best is None or fall > best.fall:
                best = Fit(fall, device, sum(after) * max(1, self.cpu_per_gpu) // WHOLE + max(0, cpu))
        return best

    def choose(self, space: Space, shape: TaskShape, flavors: tuple[str, ...]) -> TaskPlace | None:
        """The best place for one task among all nodes of the accepted flavors, or None."""
        fits = self._fits.setdefault(shape, {})
        if len(fits) > MEMO_LIMIT:
            fits.clear()
        best: tuple[int, int, str] | None = None
        found: tuple[NodeSpace, Fit] | None = None
        for node in space.nodes.values():
            state = node.state or state_of(node)
            if state in fits:
                fit = fits[state]
            else:
                fit = fits[state] = self._fit(state.key, shape)
            if fit is None or (best is not None and fit.fall < -best[0]) or not node.opened:
                continue
            rank = (-fit.fall, fit.left, node.id)
            if (best is None or rank < best) and (not flavors or node.flavor in flavors) and node.room(shape):
                best, found = rank, (node, fit)
        return None if found is None else _place(found[0], shape, found[1].device_free)


def state_of(node: NodeSpace) -> NodeState:
    """The state of a node now (kept on the node until it changes). Equal states are one object, so that a lookup is cheap."""
    if node.state is None:
        cpu = UNBOUND if node.spec.slot_cpu_milli else node.cpu
        key = (node.flavor, cpu, tuple(sorted(left for left in node.free if left > 0)))
        node.state = NodeState.of(key)
    return node.state


def _ways(free: tuple[int, ...], milli: int) -> list[tuple[int, tuple[int, ...]]]:
    """(free milli of the device used, states after) for every different device choice, the fullest device first."""
    if milli == 0:
        return [(0, free)]
    if milli >= WHOLE:
        count = milli // WHOLE
        return [(WHOLE, free[:-count])] if free.count(WHOLE) >= count else []
    ways = []
    for left in sorted({left for left in free if left >= milli}):
        rest = list(free)
        rest.remove(left)
        if left > milli:
            rest.append(left - milli)
        ways.append((left, tuple(sorted(rest))))
    return ways


def _place(node: NodeSpace, shape: TaskShape, device_free: int) -> TaskPlace:
    if shape.gpu_milli == 0:
        return TaskPlace(node.id)
    count = max(1, shape.gpu_milli // WHOLE)
    slots = [slot for slot, left in zip(node.slots, node.free, strict=True) if left == device_free]
    return TaskPlace(node.id, tuple(slots[:count]))
