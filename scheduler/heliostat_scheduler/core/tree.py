"""The tree of queues and what is counted in it.

Each queue keeps, per resource key, four sums over its subtree:
`used` what is occupied now; `plan` what will be occupied once everybody told to leave has left and every promised place is
taken; `core` the part of `plan` that may never be evicted; `want` what running and waiting work asks for.
Limits bind `used` and `plan`; policy (entitlement, reclaim) looks at `plan` and `want`.
"""

from __future__ import annotations

from collections.abc import Iterable

from heliostat_scheduler.core.model import UNLIMITED, Amounts, QueueSpec

ROOT = ""


class QueueNode:
    """One queue. `rank` is its place in creation order.

    Set by each cycle: `entitled`, its share of what there is; `secured`, the part of it that is guaranteed (quota, as far as it is
    wanted, scaled down where the quotas sum above what there is). `usage` is decayed use so far, `pull` what of it counts now."""

    __slots__ = (
        "chain", "children", "core", "entitled", "lend", "limit", "name", "parent", "plan", "pull", "quota", "rank", "secured",
        "spec", "usage", "used", "want",
    )  # fmt: skip

    def __init__(self, spec: QueueSpec, rank: int) -> None:
        self.spec = spec
        self.name = spec.name
        self.parent: QueueNode | None = None
        self.children: list[QueueNode] = []
        self.rank = rank
        self.quota = dict(spec.quota)
        self.limit = {key: amount for key, amount in spec.limit if amount != UNLIMITED}
        self.lend = {key: amount for key, amount in spec.lending_limit if amount != UNLIMITED}
        self.used: dict[str, int] = {}
        self.plan: dict[str, int] = {}
        self.core: dict[str, int] = {}
        self.want: dict[str, int] = {}
        self.entitled: dict[str, int] = {}
        self.secured: dict[str, int] = {}
        self.usage: dict[str, int] = {}
        self.pull: dict[str, int] = {}
        self.chain: tuple[QueueNode, ...] = ()

    def quota_of(self, key: str, capacity: int) -> int:
        """The guaranteed amount; an unlimited quota guarantees everything there is."""
        quota = self.quota.get(key, 0)
        return capacity if quota == UNLIMITED else quota


class BadQueues(ValueError):
    """The queue tree is not a tree, or a queue is named twice."""


class QueueTree:
    """Queues by name, in creation order. `root` stands for the whole cluster and has no name."""

    def __init__(self, specs: Iterable[QueueSpec]) -> None:
        self.specs = tuple(specs)
        self.root = QueueNode(QueueSpec(ROOT), -1)
        self.by_name: dict[str, QueueNode] = {}
        for rank, spec in enumerate(self.specs):
            if not spec.name or spec.name in self.by_name:
                raise BadQueues(f"queue {spec.name!r} is named twice or has no name")
            self.by_name[spec.name] = QueueNode(spec, rank)
        for node in self.by_name.values():
            parent = self.root if not node.spec.parent else self.by_name.get(node.spec.parent)
            if parent is None:
                raise BadQueues(f"queue {node.name} has the unknown parent {node.spec.parent!r}")
            node.parent = parent
            parent.children.append(node)
        for node in self.by_name.values():
            node.chain = self._chain(node)
        self.leaves = [node for node in self.by_name.values() if not node.children]
        self.budgeted = any(spec.preemption_budget != UNLIMITED for spec in self.specs)
        self.lends = {key for node in self.by_name.values() for key in node.lend}

    def _chain(self, node: QueueNode) -> tuple[QueueNode, ...]:
        """The queue and its ancestors, leaf first, without the root."""
        chain: list[QueueNode] = []
        at: QueueNode | None = node
        while at is not None and at is not self.root:
            if at in chain:
                raise BadQueues(f"queue {node.name} is its own ancestor")
            chain.append(at)
            at = at.parent
        return tuple(chain)

    def leaf(self, name: str) -> QueueNode | None:
        node = self.by_name.get(name)
        return node if node is not None and not node.children else None

    def below_common(self, one: QueueNode, other: QueueNode) -> tuple[tuple[QueueNode, ...], tuple[QueueNode, ...]]:
        """The parts of both chains below their lowest common ancestor, leaf first."""
        if one.parent is other.parent and one is not other:
            return (one,), (other,)
        shared = {node.name for node in one.chain} & {node.name for node in other.chain}
        return (
            tuple(node for node in one.chain if node.name not in shared),
            tuple(node for node in other.chain if node.name not in shared),
        )

    def add(self, leaf: QueueNode, account: str, amounts: Amounts, sign: int) -> None:
        for node in (*leaf.chain, self.root):
            sums: dict[str, int] = getattr(node, account)
            for key, amount in amounts:
                sums[key] = sums.get(key, 0) + sign * amount

    def limit_gap(self, leaf: QueueNode, need: Amounts, account: str) -> tuple[QueueNode, str, int] | None:
        """The first queue of the chain whose limit `need` would break, the resource, and by how much."""
        for node in leaf.chain:
            if not node.limit:
                continue
            sums: dict[str, int] = getattr(node, account)
            for key, amount in need:
                bound = node.limit.get(key)
                if bound is not None and amount and sums.get(key, 0) + amount > bound:
                    return node, key, sums.get(key, 0) + amount - bound
        return None

    def core_gap(self, leaf: QueueNode, need: Amounts, capacity: dict[str, int]) -> tuple[QueueNode, str, int] | None:
        """As `limit_gap`, for work that may not be evicted: it must stay within quota at every level."""
        for node in leaf.chain:
            for key, amount in need:
                bound = node.quota_of(key, capacity.get(key, 0))
                if amount and node.core.get(key, 0) + amount > bound:
                    return node, key, node.core.get(key, 0) + amount - bound
        return None

    def lending_gap(
        self, leaf: QueueNode, need: Amounts, account: str, capacity: dict[str, int], empty: bool = False
    ) -> tuple[QueueNode, str, int] | None:
        """The sibling whose lending limit stands in the way, the resource, and how much is missing."""
        for key, amount in need:
            if key not in self.lends or not amount:
                continue
            available = capacity.get(key, 0)
            for node in reversed(leaf.chain):
                assert node.parent is not None
                lender, kept_most = None, 0
                for sibling in node.parent.children:
                    if sibling is node:
                        continue
                    sums: dict[str, int] = getattr(sibling, account)
                    taken = 0 if empty else sums.get(key, 0)
                    kept = self._unlendable(sibling, key, capacity)
                    available -= max(taken, kept)
                    if kept - taken > kept_most:
                        lender, kept_most = sibling, kept - taken
                own: dict[str, int] = getattr(node, account)
                total = (0 if empty else own.get(key, 0)) + amount
                if lender is not None and total > max(available, node.quota_of(key, capacity.get(key, 0))):
                    return lender, key, total - available
        return None

    @staticmethod
    def _unlendable(node: QueueNode, key: str, capacity: dict[str, int]) -> int:
        if key not in node.lend:
            return 0
        return max(0, node.quota_of(key, capacity.get(key, 0)) - node.lend[key])
