"""What the cluster could give if it were empty, nodes that can be had included, from `ControlPort.cluster()`: the yardstick of NeverFits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heliostat_scheduler.core.model import CPU, MEMORY

from heliostat.queuefile.pools import Pool

GONE = ("lost", "down", "let_go")
"""States of nodes whose place another may take, where nodes of their flavor can be had."""


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """One node: slots it has, the share that goes with each, and what floats beside them."""

    flavor: str
    slots: int
    slot_cpu_milli: int
    slot_memory_bytes: int
    cpu_milli: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """All nodes that the control plane knows, whatever their state now: a node that is down comes back. Empty: nothing is known."""

    nodes: tuple[NodeRoom, ...] = ()

    @property
    def flavors(self) -> tuple[str, ...]:
        return tuple(sorted({node.flavor for node in self.nodes if node.slots}))

    def amounts(self) -> dict[str, int]:
        """All of it by key, as queues count: flavors and `cpu` in milli-units, `memory` in bytes. Empty while no node is known."""
        if not self.nodes:
            return {}
        found = {name: 1000 * self.gpus(name) for name in self.flavors}
        cpu, memory = sum(node.cpu_milli for node in self.nodes), sum(node.memory_bytes for node in self.nodes)
        return {**found, CPU: cpu, **({MEMORY: memory} if memory else {})}

    def gpus(self, flavor: str = "") -> int:
        """Slots in the cluster (of one flavor)."""
        return sum(node.slots for node in self.nodes if flavor in ("", node.flavor))

    def gpus_on_one_node(self, flavor: str = "") -> int:
        return max((node.slots for node in self.nodes if flavor in ("", node.flavor)), default=0)

    def slot_cpu_milli(self, flavor: str = "") -> int:
        return max((n.slot_cpu_milli for n in self.nodes if n.slots and flavor in ("", n.flavor)), default=0)

    def slot_memory_bytes(self, flavor: str = "") -> int:
        """The largest memory share of a slot; 0 when no node says."""
        return max((n.slot_memory_bytes for n in self.nodes if n.slots and flavor in ("", n.flavor)), default=0)

    def cpu_milli_on_one_node(self) -> int:
        return max((node.cpu_milli for node in self.nodes), default=0)

    def memory_on_one_node(self) -> int:
        return max((node.memory_bytes for node in self.nodes), default=0)


def capacity_of(cluster: Mapping[str, Any], pools: Mapping[str, Pool] | None = None) -> Capacity:  # Any: JSON
    """With the nodes that can be had: of their flavor, one that is gone is no room of its own, another may take its place.

    A node that is shown without any size (gone, and nothing is known about it) says nothing about what the cluster can give.
    """
    had = pools or {}
    shown = list(cluster.get("nodes") or ())
    rooms = [_node(node) for node in shown if node["flavor"] not in had or node.get("state") not in GONE]
    for flavor, pool in sorted(had.items()):
        rooms += [_had(pool)] * max(0, pool.max_nodes - sum(room.flavor == flavor for room in rooms))
    return Capacity(tuple(room for room in rooms if room.slots or room.cpu_milli))


def _had(pool: Pool) -> NodeRoom:
    """A node that can be had."""
    node = pool.to_core().node
    slots = len(node.slots)
    return NodeRoom(pool.flavor, slots, node.slot_cpu_milli, node.slot_memory_bytes, node.cpu_milli, node.memory_bytes)


def _node(node: Mapping[str, Any]) -> NodeRoom:  # Any: JSON
    return NodeRoom(
        flavor=str(node.get("flavor", "")),
        slots=len(node.get("slots") or ()),
        slot_cpu_milli=int(node.get("slot_cpu_milli") or 1000),
        slot_memory_bytes=int(node.get("slot_memory_bytes") or 0),
        cpu_milli=int(node.get("cpu_milli") or 0),
        memory_bytes=int(node.get("memory_bytes") or 0),
    )
