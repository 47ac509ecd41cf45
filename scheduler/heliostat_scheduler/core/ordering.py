"""Who is looked at next: heads of queues, compared level by level down the tree.

A starved head goes first. Then, at each level, the child whose head would stay within its quota, then within its entitlement, then the
queue of higher priority, then the smaller dominant share (head included) over weight, then the longer wait of the head, then creation
order. A head that accepts several flavors is compared on the one where its claim is best.

A child's key only changes when something below it changed, so keys are kept in one heap per level and renewed along one path.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import within
from heliostat_scheduler.core.model import Amounts
from heliostat_scheduler.core.tree import QueueNode
from heliostat_scheduler.core.waiting import Choice, Group, OrderKey, Signature

if TYPE_CHECKING:
    from heliostat_scheduler.core.settling import Settling
    from heliostat_scheduler.core.state import State

LevelKey = tuple[bool, bool, bool, int, int, int, int]
SHARE_UNIT = 1_000_000


@dataclass(slots=True)
class _Line:
    """The groups of one leaf that are still to be tried in this pass, best head first."""

    heap: list[tuple[OrderKey, Signature]] = field(default_factory=list)


class Merge:
    """All heads of all queues, best first."""

    def __init__(self, state: State, full: bool, settling: Settling) -> None:
        self.state = state
        self.lines: dict[str, _Line] = {}
        self.heaps: dict[str, list[tuple[LevelKey, int, str]]] = {}
        self.versions: dict[str, int] = {}
        self.best: dict[str, Group | None] = {}
        for leaf in state.book.tree.leaves:
            line = state.waiting.lines.get(leaf.name)
            if line is None or not line.groups:
                continue
            chosen = line.groups.values() if full else [line.groups[s] for s in line.fresh if s in line.groups]
            heap = [(group.head, group.signature) for group in settling.worth_a_try(leaf, chosen)]
            if heap:
                heapq.heapify(heap)
                self.lines[leaf.name] = _Line(heap)
        for leaf in state.book.tree.leaves:
            if leaf.name in self.lines:
                self.renew(leaf)

    def next(self) -> tuple[QueueNode, Group] | None:
        """The best head, without removing it."""
        node = self.state.book.tree.root
        while True:
            child = self._top(node.name)
            if child is None:
                return None
            node = self.state.book.tree.by_name[child]
            if not node.children:
                group = self.best[node.name]
                assert group is not None
                return node, group

    def drop(self, leaf: QueueNode, group: Group) -> None:
        """This group has had its turn."""
        line = self.lines[leaf.name]
        if line.heap and line.heap[0][1] == group.signature:
            heapq.heappop(line.heap)
        self.renew(leaf)

    def advance(self, leaf: QueueNode, group: Group) -> None:
        """The group's head left; its next member takes its turn in order."""
        line = self.lines[leaf.name]
        if line.heap and line.heap[0][1] == group.signature:
            if group.members:
                heapq.heapreplace(line.heap, (group.head, group.signature))
            else:
                heapq.heappop(line.heap)
        self.renew(leaf)

    def _top(self, parent: str) -> str | None:
        heap = self.heaps.get(parent, [])
        while heap:
            _, version, name = heap[0]
            if version == self.versions.get(name):
                return name
            heapq.heappop(heap)
        return None

    def renew(self, leaf: QueueNode) -> None:
        line = self.lines.get(leaf.name)
        if line is None:
            return
        groups = self.state.waiting.lines[leaf.name].groups
        self.best[leaf.name] = groups[line.heap[0][1]] if line.heap else None
        for node in leaf.chain:
            assert node.parent is not None
            if node.children:
                below = self._top(node.name)
                self.best[node.name] = None if below is None else self.best[below]
            best = self.best[node.name]
            version = self.versions.get(node.name, 0) + 1
            self.versions[node.name] = version
            if best is not None:
                heapq.heappush(self.heaps.setdefault(node.parent.name, []), (self._key(node, best), version, node.name))

    def _key(self, node: QueueNode, group: Group) -> LevelKey:
        capacity = self.state.book.capacity
        over_quota = over_share = False
        dominant = 0
        for key, amount in group.asks if len(group.choices) < 2 else self._best(group):
            plan = node.plan.get(key, 0) + amount
            have = max(1, capacity.get(key, 0))
            over_quota |= plan > node.secured.get(key, 0)
            over_share |= plan > node.entitled.get(key, 0)
            dominant = max(dominant, plan * SHARE_UNIT // have)
        share = dominant // node.spec.weight if node.spec.weight else dominant * SHARE_UNIT
        return (
            not group.signature.starved,
            over_quota,
            over_share,
            -node.spec.priority,
            share,
            group.head.submitted_at_ms,
            node.rank,
        )

    def _best(self, group: Group) -> Amounts:
        """What the head takes out of its queue on the flavor where its claim is best, of those that have nodes enough for it."""
        chain = self.state.book.tree.by_name[group.signature.queue].chain
        usable = [choice for choice in group.choices if choice.usable]
        if not usable:
            return group.asks
        best = min(usable, key=lambda choice: self._claim(chain, choice))
        return ((best.flavor, best.needed),) if best.flavor else group.asks

    def _claim(self, chain: tuple[QueueNode, ...], choice: Choice) -> tuple[bool, bool, int, str]:
        """Smaller is better: within every quota of its queues, within every share, the part of the flavor that the queue would have."""
        key, need = choice.flavor, ((choice.flavor, choice.needed),)
        part = (chain[0].plan.get(key, 0) + choice.needed) * SHARE_UNIT // max(1, self.state.book.capacity.get(key, 0))
        return not within(chain, need, quota=True), not within(chain, need, quota=False), part, key
