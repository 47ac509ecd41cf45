"""What the cluster could give if it were empty, nodes that can be had included, from `ControlPort.cluster()`: the yardstick of NeverFits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def capacity_of(cluster: Mapping[str, Any]) -> Capacity:  # Any: JSON
    """A node that is shown without any size (gone, and nothing is known about it) says nothing about what the cluster can give."""
    shown = list(cluster.get("nodes") or ())
    rooms = [_node(node) for node in shown if node.get("state") not in GONE]
    for pool in cluster.get("pools") or ():
        rooms += [_had(pool)] * max(0, int(pool["max"]) - sum(room.flavor == pool["flavor"] for room in rooms))
    rooms += [_node(node) for node in shown if node.get("state") in GONE and node["flavor"] not in _pooled(cluster)]
    return Capacity(tuple(room for room in rooms if room.slots or room.cpu_milli))


def _pooled(cluster: Mapping[str, Any]) -> set[str]:  # Any: JSON
    return {pool["flavor"] for pool in cluster.get("pools") or ()}


def _had(pool: Mapping[str, Any]) -> NodeRoom:  # Any: JSON
    """A node that can be had."""
    return NodeRoom(
        flavor=pool["flavor"],
        slots=pool["gpus"],
        slot_cpu_milli=pool["slot_cpu_milli"],
        slot_memory_bytes=pool["slot_memory_bytes"],
        cpu_milli=pool["float_cpu_milli"],
        memory_bytes=pool["float_memory_bytes"],
    )


def _node(node: Mapping[str, Any]) -> NodeRoom:  # Any: JSON
    return NodeRoom(
        flavor=str(node.get("flavor", "")),
        slots=len(node.get("slots") or ()),
        slot_cpu_milli=int(node.get("slot_cpu_milli") or 1000),
        slot_memory_bytes=int(node.get("slot_memory_bytes") or 0),
        cpu_milli=int(node.get("cpu_milli") or 0),
        memory_bytes=int(node.get("memory_bytes") or 0),
    )
