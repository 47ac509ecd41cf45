"""What the empty cluster could hold: the yardstick for "this can never run here".

Nodes are counted by *kind* (equal hardware), so that the answer for one shape costs as many steps as there are kinds, not
nodes. Two clusters are kept: every *known* node (also those that are down, cordoned or partly blocked just now, and those that
can still be had), and the *usable* ones of this moment. Of a flavor that can be had, a node without slots is gone: another takes its place.
"""

from __future__ import annotations

from dataclasses import replace

from heliostat_scheduler.core.book import NodeRec
from heliostat_scheduler.core.model import CPU, MEMORY, NodePool, NodeSpec, TaskShape
from heliostat_scheduler.core.placement import ANY, ONE_NODE
from heliostat_scheduler.core.space import NodeSpace
from heliostat_scheduler.core.waiting import Choice

Kind = tuple[NodeSpec, int]
"""A node's hardware (its record without id, slots and labels) and its number of usable devices."""


class Structure:
    """Kinds of nodes with their counts, and the largest gang of a shape, remembered."""

    def __init__(self, nodes: dict[str, NodeRec], blocked: dict[str, str], pools: tuple[NodePool, ...] = ()) -> None:
        self.nodes = nodes
        self.blocked = blocked
        self.known: dict[Kind, int] = {}
        self.usable: dict[Kind, int] = {}
        room = {pool.flavor: pool.max_nodes for pool in pools}
        for node_id in sorted(nodes):
            rec = nodes[node_id]
            bare = replace(rec.spec, id="", slots=(), labels=())
            if rec.spec.flavor not in room:
                _count(self.known, (bare, len(rec.spec.slots)))
            elif not rec.let_go:
                _count(self.known, (bare, len(rec.spec.slots)))
                room[rec.spec.flavor] -= 1
            if rec.opened:
                _count(self.usable, (bare, sum(1 for slot in rec.spec.slots if slot.id not in blocked)))
        for pool in pools:
            if room[pool.flavor] > 0:
                kind = (replace(pool.node, id="", slots=(), labels=()), len(pool.node.slots))
                self.known[kind] = self.known.get(kind, 0) + room[pool.flavor]
        self.capacity = self._capacity()
        self.flavors = tuple(sorted({kind.flavor for kind, devices in self.known if devices}))
        self.node_flavors = tuple(sorted({kind.flavor for kind, _ in self.known}))
        self._drawing = {kind.flavor for kind, _ in (*self.known, *self.usable) if kind.slot_cpu_milli == 0}
        self._alike: dict[TaskShape, TaskShape] = {}
        self._largest: dict[tuple[TaskShape, str, str, bool], int] = {}
        self._choices: dict[tuple[TaskShape, int, str, tuple[str, ...]], tuple[Choice, ...]] = {}

    def _capacity(self) -> dict[str, int]:
        """What all known nodes sum to."""
        total: dict[str, int] = {}
        for (kind, devices), count in self.known.items():
            for key, amount in ((kind.flavor, devices * 1000), (CPU, kind.cpu_milli), (MEMORY, kind.memory_bytes)):
                total[key] = total.get(key, 0) + amount * count
        return total

    def largest(self, shape: TaskShape, flavor: str, spread: str, usable: bool) -> int:
        """The largest gang of this shape on nodes of this flavor ('' = any node, for CPU-only tasks)."""
        key = (shape, flavor, spread, usable)
        found = self._largest.get(key)
        if found is None:
            found = self._largest[key] = self._measure(shape, flavor, spread, usable)
        return found

    def choices(self, shape: TaskShape, tasks: int, spread: str, flavors: tuple[str, ...]) -> tuple[Choice, ...]:
        """The flavors that a gang of this shape may run on."""
        key = (shape, tasks, spread, flavors)
        found = self._choices.get(key)
        if found is None:
            found = self._choices[key] = tuple(
                Choice(
                    flavor,
                    shape.gpu_milli * tasks,
                    self.alike(shape, flavor),
                    self.largest(shape, flavor, spread, usable=True) >= tasks,
                )
                for flavor in flavors
            )
        return found

    def alike(self, shape: TaskShape, flavor: str) -> TaskShape:
        """The shape that stands for all which fit wherever this one fits: where CPU comes with the GPU, it makes no difference."""
        if not shape.cpu_milli or not shape.gpu_milli or not flavor or flavor in self._drawing:
            return shape
        found = self._alike.get(shape)
        if found is None:
            found = self._alike[shape] = replace(shape, cpu_milli=0)
        return found

    def largest_task_milli(self, flavors: tuple[str, ...]) -> int:
        """Devices of the biggest node, in milli-GPU."""
        return max((devices * 1000 for kind, devices in self.known if not flavors or kind.flavor in flavors), default=0)

    def largest_node(self, flavors: tuple[str, ...]) -> tuple[int, int]:
        """The most CPU (milli) and the most memory (bytes) that any one known node gives to jobs without GPUs."""
        kinds = [kind for kind, _ in self.known if not flavors or kind.flavor in flavors]
        most_cpu = max((kind.cpu_milli for kind in kinds), default=0)
        return most_cpu, max((kind.memory_bytes for kind in kinds), default=0)

    def _measure(self, shape: TaskShape, flavor: str, spread: str, usable: bool) -> int:
        if spread not in (ANY, ONE_NODE):
            return self._measure_domains(shape, flavor, spread, usable)
        rooms = [
            (room_of(kind, shape), count)
            for kind, count in (self.usable if usable else self.known).items()
            if flavor in ("", kind[0].flavor)
        ]
        if spread == ONE_NODE:
            return max((room for room, _ in rooms), default=0)
        return sum(room * count for room, count in rooms)

    def _measure_domains(self, shape: TaskShape, flavor: str, spread: str, usable: bool) -> int:
        sums: dict[str, int] = {}
        for rec in self.nodes.values():
            value = dict(rec.spec.labels).get(spread)
            if value is None or flavor not in ("", rec.spec.flavor) or (usable and not rec.opened):
                continue
            free = sum(1 for slot in rec.spec.slots if not usable or slot.id not in self.blocked)
            sums[value] = sums.get(value, 0) + room_of((rec.spec, free), shape)
        return max(sums.values(), default=0)


def room_of(kind: Kind, shape: TaskShape) -> int:
    """How many tasks an empty node of this kind holds."""
    spec, devices = kind
    node = NodeSpace(replace(spec, slots=()), frozenset(), True)
    node.free = [1000] * devices
    node.whole = devices
    return node.room(shape)


def _count(counts: dict[Kind, int], kind: Kind) -> None:
    counts[kind] = counts.get(kind, 0) + 1
