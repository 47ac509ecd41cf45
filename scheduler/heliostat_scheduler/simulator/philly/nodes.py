"""Consolidated placement on nodes of eight GPUs, as Helios and Lucid do it.

Up to eight GPUs go to the fullest node that has room; more take whole free nodes and, for the rest, the next of them.
"""

from __future__ import annotations

from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE

Held = tuple[tuple[int, int], ...]
"""(node, GPUs) pairs."""


class NodeGroup:
    """Free GPUs of a group of nodes, with the nodes of each free count in a set."""

    def __init__(self, nodes: int) -> None:
        self.total = nodes * GPUS_PER_NODE
        self.free = self.total
        self._free = [GPUS_PER_NODE] * nodes
        self._by_free: list[set[int]] = [set() for _ in range(GPUS_PER_NODE + 1)]
        self._by_free[GPUS_PER_NODE] = set(range(nodes))

    def take(self, gpus: int) -> Held | None:
        """Allocate, or None when the consolidated shape does not exist now."""
        if gpus > self.free:
            return None
        held = self._one_node(gpus) if gpus <= GPUS_PER_NODE else self._many(gpus)
        if held is not None:
            for node, count in held:
                self._set(node, self._free[node] - count)
        return held

    def give_back(self, held: Held) -> None:
        for node, count in held:
            self._set(node, self._free[node] + count)

    def _one_node(self, gpus: int) -> Held | None:
        for count in range(gpus, GPUS_PER_NODE + 1):
            if self._by_free[count]:
                return ((min(self._by_free[count]), gpus),)
        return None

    def _many(self, gpus: int) -> Held | None:
        whole, rest = divmod(gpus, GPUS_PER_NODE)
        idle = sorted(self._by_free[GPUS_PER_NODE])
        if len(idle) < whole:
            return None
        held = [(node, GPUS_PER_NODE) for node in idle[:whole]]
        if rest:
            last = idle[whole] if len(idle) > whole else self._emptiest(rest)
            if last is None:
                return None
            held.append((last, rest))
        return tuple(held)

    def _emptiest(self, gpus: int) -> int | None:
        for count in range(GPUS_PER_NODE - 1, gpus - 1, -1):
            if self._by_free[count]:
                return min(self._by_free[count])
        return None

    def _set(self, node: int, count: int) -> None:
        self.free += count - self._free[node]
        self._by_free[self._free[node]].discard(node)
        self._by_free[count].add(node)
        self._free[node] = count
