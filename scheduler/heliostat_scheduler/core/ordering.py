"""Who is looked at next: heads of queues, compared level by level down the tree.

A starved head goes first. Then, at each level, the child whose head would stay within its quota, then within its entitlement, then the
queue of higher priority, then the smaller dominant share (head included) over weight, then the longer wait of the head, then creation
order. A head that accepts several flavors is compared on the one where its claim is best.

A child's key only changes when something below it changed, so keys are kept in one heap per level; whoever had its turn is on top of the
heaps along its path, and is put into its new place there.
"""

from __future__ import annotations

import heapq
from bisect import insort
from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import within
from heliostat_scheduler.core.model import Amounts
from heliostat_scheduler.core.tree import QueueNode
from heliostat_scheduler.core.waiting import Choice, Group, OrderKey

if TYPE_CHECKING:
    from heliostat_scheduler.core.settling import Settling
    from heliostat_scheduler.core.state import State

LevelKey = tuple[bool, bool, bool, int, int, int, int]
SHARE_UNIT = 1_000_000


class Merge:
    """All heads of all queues, best first.

    lines: by leaf, the groups to be tried in this pass, in order; turns: where in it the next one is. levels: by parent, its children with the
    best group below each.
    """

    def __init__(self, state: State, full: bool, settling: Settling) -> None:
        self.state = state
        self.lines: dict[str, list[tuple[OrderKey, Group]]] = {}
        self.turns: dict[str, int] = {}
        self.levels: dict[str, list[tuple[LevelKey, QueueNode, Group]]] = {}
        for leaf in state.book.tree.leaves:
            line = state.waiting.lines.get(leaf.name)
            if line is None or not line.groups:
                continue
            chosen = line.groups.values() if full else [line.groups[s] for s in line.fresh if s in line.groups]
            rows = [(group.members[0], group) for group in settling.worth_a_try(leaf, chosen)]
            if rows:
                rows.sort()
                self.lines[leaf.name], self.turns[leaf.name] = rows, 0
        self._fill(state.book.tree.root)

    def next(self) -> tuple[QueueNode, Group] | None:
        """The best head, without removing it."""
        level = self.levels[self.state.book.tree.root.name]
        while level:
            _, node, group = level[0]
            if not node.children:
                return node, group
            level = self.levels[node.name]
        return None

    def drop(self, leaf: QueueNode) -> None:
        """The best head has had its turn, and so has its group."""
        self.turns[leaf.name] += 1
        self._renew(leaf)

    def advance(self, leaf: QueueNode, group: Group) -> None:
        """The best head left; the next member of its group takes its turn in order."""
        rows, at = self.lines[leaf.name], self.turns[leaf.name]
        self.turns[leaf.name] = at + 1
        if group.members:
            insort(rows, (group.head, group), at + 1)
        self._renew(leaf)

    def _fill(self, node: QueueNode) -> Group | None:
        """The best group below a queue."""
        if not node.children and node.parent is not None:
            rows = self.lines.get(node.name)
            return rows[0][1] if rows else None
        level = []
        for child in node.children:
            best = self._fill(child)
            if best is not None:
                level.append((self._key(child, best), child, best))
        heapq.heapify(level)
        self.levels[node.name] = level
        return level[0][2] if level else None

    def _renew(self, leaf: QueueNode) -> None:
        """Find the place of the leaf that had its turn, and of its ancestors, all of which are on top of their level."""
        rows, at = self.lines[leaf.name], self.turns[leaf.name]
        best = rows[at][1] if at < len(rows) else None
        for node in leaf.chain:
            assert node.parent is not None
            if node.children:
                below = self.levels[node.name]
                best = below[0][2] if below else None
            level = self.levels[node.parent.name]
            if best is None:
                heapq.heappop(level)
                continue
            entry = (self._key(node, best), node, best)
            if any(entry > other for other in level[1:3]):
                heapq.heapreplace(level, entry)
            else:
                level[0] = entry  # before both that follow the first of a heap: usually it is its turn again

    def _key(self, node: QueueNode, group: Group) -> LevelKey:
        capacity = self.state.book.capacity
        over_quota = over_share = False
        dominant = 0
        for key, amount in group.asks if len(group.choices) < 2 else self._best(group):
            plan = node.plan.get(key, 0) + amount
            if plan > node.secured.get(key, 0):
                over_quota = True
            if plan > node.entitled.get(key, 0):
                over_share = True
            part = plan * SHARE_UNIT // (capacity.get(key, 0) or 1)
            if part > dominant:
                dominant = part
        spec = node.spec
        share = dominant // spec.weight if spec.weight else dominant * SHARE_UNIT
        submitted = group.members[0].submitted_at_ms
        return not group.signature.starved, over_quota, over_share, -spec.priority, share, submitted, node.rank

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
