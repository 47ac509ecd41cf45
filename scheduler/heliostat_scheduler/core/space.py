"""Free capacity, node by node, indexed for placement.

Two spaces exist side by side: `now` (what is free this instant) and `soon` (the same after all work that was told to leave
has left). Both subtract claims, that is places promised to a job that waits for others to leave. Amounts may go below zero
for a moment (a place that is promised and still occupied counts twice in `now`); below zero means "not free".

Placement asks two indexes per flavor: nodes by their number of wholly free devices, and partly used devices by free milli.
Every change is a `take` or a `give`, so a search can undo what it tried by doing the opposite in reverse order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import ClassVar, Protocol, TypeVar

from heliostat_scheduler.core.model import NodeSpec, TaskPlace, TaskShape

T = TypeVar("T", str, tuple[int, str, int])

WHOLE = 1000
BLOCKED = -1_000_000
MEMO_LIMIT = 1_000_000


State = tuple[str, int, tuple[int, ...]]
"""(flavor, free milli-CPU or -1 when CPU comes with the slot, free milli of every device that has any, ascending)."""


class NodeState:
    """An interned State: equal states are the same object, compared and hashed by identity."""

    __slots__ = ("key",)
    _all: ClassVar[dict[State, NodeState]] = {}

    def __init__(self, key: State) -> None:
        self.key = key

    @classmethod
    def of(cls, key: State) -> NodeState:
        found = cls._all.get(key)
        if found is None:
            if len(cls._all) > MEMO_LIMIT:
                cls._all.clear()
            found = cls._all[key] = cls(key)
        return found


class NodeSpace:
    """Free amounts of one node. `free[i]` is the milli-GPU left on device `slots[i]`."""

    __slots__ = ("cpu", "flavor", "free", "id", "memory", "opened", "slots", "spec", "state", "whole")

    def __init__(self, spec: NodeSpec, blocked: frozenset[str], opened: bool) -> None:
        self.id = spec.id
        self.flavor = spec.flavor
        self.spec = spec
        ordered = sorted(spec.slots, key=lambda slot: (slot.device, slot.id))
        self.slots: list[str] = [slot.id for slot in ordered]
        self.free: list[int] = [BLOCKED if slot.id in blocked else WHOLE for slot in ordered]
        self.cpu = spec.cpu_milli
        self.memory = spec.memory_bytes
        self.whole = sum(1 for left in self.free if left >= WHOLE)
        self.opened = opened
        self.state: NodeState | None = None

    def copy(self) -> NodeSpace:
        twin = object.__new__(NodeSpace)
        twin.id, twin.flavor, twin.spec, twin.slots = self.id, self.flavor, self.spec, self.slots
        twin.free = self.free.copy()
        twin.cpu, twin.memory, twin.whole, twin.opened, twin.state = (
            self.cpu,
            self.memory,
            self.whole,
            self.opened,
            self.state,
        )
        return twin

    def draws_floating(self, shape: TaskShape) -> bool:
        """Whether a task takes CPU and memory from the node's floating part (else they come with the slot)."""
        return shape.gpu_milli == 0 or self.spec.slot_cpu_milli == 0

    def admits(self, shape: TaskShape) -> bool:
        """Whether the kind of device and slot suits the task, apart from what is free."""
        spec = self.spec
        if shape.gpu_milli == 0:
            return True
        if spec.gpu_memory_bytes and shape.gpu_memory_bytes * WHOLE > spec.gpu_memory_bytes * shape.gpu_milli:
            return False
        slot_memory = spec.slot_memory_bytes
        if spec.slot_cpu_milli and slot_memory:
            return shape.memory_bytes * WHOLE <= slot_memory * max(shape.gpu_milli, WHOLE)
        return True

    def room(self, shape: TaskShape) -> int:
        """How many tasks of this shape fit now."""
        if not self.opened or not self.admits(shape):
            return 0
        milli = shape.gpu_milli
        if milli == 0:
            count = 1_000_000
        elif milli >= WHOLE:
            count = self.whole // (milli // WHOLE)
        else:
            count = sum(left // milli for left in self.free if left >= milli)
        if count and self.draws_floating(shape):
            if shape.cpu_milli:
                count = min(count, max(0, self.cpu) // shape.cpu_milli)
            if shape.memory_bytes:
                count = min(count, max(0, self.memory) // shape.memory_bytes)
        return count


class Chooser(Protocol):
    """Picks the node and devices of a single task so that what stays free remains useful."""

    def choose(self, space: Space, shape: TaskShape, flavors: tuple[str, ...]) -> TaskPlace | None: ...


class Space:
    """All nodes of one view."""

    __slots__ = ("by_whole", "chooser", "free_milli", "nodes", "partial", "slot_at")

    def __init__(self) -> None:
        self.nodes: dict[str, NodeSpace] = {}
        self.slot_at: dict[str, int] = {}
        self.by_whole: dict[str, list[list[str]]] = {}
        self.partial: dict[str, list[tuple[int, str, int]]] = {}
        self.free_milli: dict[str, int] = {}
        self.chooser: Chooser | None = None

    def copy(self) -> Space:
        twin = Space()
        twin.nodes = {name: node.copy() for name, node in self.nodes.items()}
        twin.slot_at = self.slot_at.copy()
        twin.by_whole = {flavor: [ids.copy() for ids in rows] for flavor, rows in self.by_whole.items()}
        twin.partial = {flavor: rows.copy() for flavor, rows in self.partial.items()}
        twin.free_milli = self.free_milli.copy()
        twin.chooser = self.chooser
        return twin

    def put_node(self, node: NodeSpace) -> None:
        """Add or replace a node."""
        self.drop_node(node.id)
        self.nodes[node.id] = node
        for index, slot in enumerate(node.slots):
            self.slot_at[slot] = index
        if node.opened:
            self._enter(node)

    def drop_node(self, node_id: str) -> None:
        old = self.nodes.pop(node_id, None)
        if old is None:
            return
        for slot in old.slots:
            self.slot_at.pop(slot, None)
        if old.opened:
            self._leave(old)

    def _enter(self, node: NodeSpace) -> None:
        rows = self.by_whole.setdefault(node.flavor, [])
        while len(rows) <= len(node.slots):
            rows.append([])
        insort(rows[node.whole], node.id)
        partial = self.partial.setdefault(node.flavor, [])
        for index, left in enumerate(node.free):
            if 0 < left < WHOLE:
                insort(partial, (left, node.id, index))
        self.free_milli[node.flavor] = self.free_milli.get(node.flavor, 0) + sum(max(0, left) for left in node.free)

    def _leave(self, node: NodeSpace) -> None:
        _remove(self.by_whole[node.flavor][node.whole], node.id)
        partial = self.partial[node.flavor]
        for index, left in enumerate(node.free):
            if 0 < left < WHOLE:
                _remove(partial, (left, node.id, index))
        self.free_milli[node.flavor] -= sum(max(0, left) for left in node.free)

    def take(self, places: Iterable[TaskPlace], shape: TaskShape) -> None:
        for place in places:
            self._shift(place, shape, -1)

    def give(self, places: Iterable[TaskPlace], shape: TaskShape) -> None:
        for place in places:
            self._shift(place, shape, 1)

    def _shift(self, place: TaskPlace, shape: TaskShape, sign: int) -> None:
        node = self.nodes.get(place.node)
        if node is None:
            return
        node.state = None
        amount = sign * min(shape.gpu_milli, WHOLE)
        for slot in place.slots:
            index = self.slot_at.get(slot)
            if index is not None and index < len(node.slots) and node.slots[index] == slot:
                self._shift_device(node, index, amount)
        if node.draws_floating(shape):
            node.cpu += sign * shape.cpu_milli
            node.memory += sign * shape.memory_bytes

    def _shift_device(self, node: NodeSpace, index: int, amount: int) -> None:
        old = node.free[index]
        new = old + amount
        node.free[index] = new
        was, now = old >= WHOLE, new >= WHOLE
        if not node.opened:
            node.whole += now - was
            return
        if was != now:
            rows = self.by_whole[node.flavor]
            _remove(rows[node.whole], node.id)
            node.whole += now - was
            insort(rows[node.whole], node.id)
        if 0 < old < WHOLE:
            _remove(self.partial[node.flavor], (old, node.id, index))
        if 0 < new < WHOLE:
            insort(self.partial[node.flavor], (new, node.id, index))
        self.free_milli[node.flavor] += max(0, new) - max(0, old)

    def can_hold(self, places: Iterable[TaskPlace], shape: TaskShape) -> bool:
        """Whether exactly these places are free (asked of a claim whose amounts were given back first)."""
        done: list[TaskPlace] = []
        fits = True
        for place in places:
            node = self.nodes.get(place.node)
            if node is None or not node.opened:
                fits = False
                break
            need = min(shape.gpu_milli, WHOLE)
            if any(slot not in self.slot_at or node.free[self.slot_at[slot]] < need for slot in place.slots):
                fits = False
                break
            if node.draws_floating(shape) and (
                (shape.cpu_milli and node.cpu < shape.cpu_milli)
                or (shape.memory_bytes and node.memory < shape.memory_bytes)
            ):
                fits = False
                break
            self._shift(place, shape, -1)
            done.append(place)
        for place in reversed(done):
            self._shift(place, shape, 1)
        return fits


def _remove(rows: list[T], item: T) -> None:
    index = bisect_left(rows, item)
    if index >= len(rows) or rows[index] != item:
        raise AssertionError(f"the free index lost {item!r}")
    del rows[index]
