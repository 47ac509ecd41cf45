"""What is missing when the queues would allow a job and no place can be found or taken for it.

Everything that many groups share is looked up once per pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliostat_scheduler.core.book import reason as make_reason
from heliostat_scheduler.core.harm import Wish, within
from heliostat_scheduler.core.judge import room_in
from heliostat_scheduler.core.model import JobSpec, TaskShape
from heliostat_scheduler.core.placement import ANY, largest
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.tree import QueueNode


@dataclass(slots=True)
class Shortage:
    """Reasons of capacity, for one pass."""

    state: State
    highest: dict[str, int] = field(default_factory=dict)
    holders: dict[str, list[str]] = field(default_factory=dict)
    full: dict[str, bool] = field(default_factory=dict)
    fitting: dict[tuple[TaskShape, str, tuple[str, ...], str, int], int] = field(default_factory=dict)

    def reason(self, leaf: QueueNode, spec: JobSpec, wish: Wish) -> Reason:
        blockers = self._blockers(wish)
        key, needs = max(wish.need, key=lambda pair: pair[1], default=(wish.flavor, 0))
        free = self.free(key, wish)
        facts: tuple[tuple[str, int | str], ...] = (
            ("needs", needs), ("free", free), ("gap", max(0, needs - free)), ("resource", key), ("tasks", spec.min_tasks),
            ("queue", leaf.name),
        )  # fmt: skip
        fits = self._largest(wish)
        if free >= needs:
            code = ReasonCode.FRAGMENTED if spec.spread == ANY else ReasonCode.TOPOLOGY_UNSATISFIED
            return make_reason(code, *facts, ("best", fits), ("spread", spec.spread), blockers=blockers)
        facts += self._all_there(wish)
        higher = self._highest_waiting(leaf)
        if higher > spec.priority:
            return make_reason(
                ReasonCode.BELOW_PRIORITY, *facts, ("priority", spec.priority), ("first", higher), blockers=blockers
            )
        if not within(leaf.chain, wish.need, quota=False) and self._others_hold(leaf, key):
            entitled = leaf.entitled.get(key, 0)
            used = leaf.plan.get(key, 0)
            return make_reason(
                ReasonCode.FAIR_SHARE_EXCEEDED, *facts, ("entitled", entitled), ("used", used), blockers=blockers
            )
        if 0 < fits < spec.min_tasks:
            return make_reason(ReasonCode.GANG_INCOMPLETE, *facts, ("ready", fits), blockers=blockers)
        return make_reason(ReasonCode.INSUFFICIENT_FREE, *facts, blockers=blockers)

    def _all_there(self, wish: Wish) -> tuple[tuple[str, int | str], ...]:
        """Says that no more nodes of the flavor can be had, where others could be until now."""
        pool = self.state.node_pools.get(wish.flavor)
        if pool is None:
            return ()
        if pool.flavor not in self.full:
            self.full[pool.flavor] = not room_in(self.state, pool)
        return (("max_nodes", pool.max_nodes),) if self.full[pool.flavor] else ()

    def _largest(self, wish: Wish) -> int:
        """How many tasks would fit now (looked up once per shape while the free amount is the same)."""
        soon, spec = self.state.book.soon, wish.spec
        free = soon.free_milli.get(wish.flavor, 0) if wish.flavor else -1
        if wish.flavor and free < spec.shape.gpu_milli:
            return 0
        key = (spec.shape, spec.spread, spec.flavors, wish.flavor, free)
        found = self.fitting.get(key)
        if found is None:
            flavors = (wish.flavor,) if wish.flavor else spec.flavors
            found = self.fitting[key] = largest(soon, spec.shape, flavors, spec.spread)
        return found

    def free(self, key: str, wish: Wish) -> int:
        book = self.state.book
        if wish.flavor:
            return book.soon.free_milli.get(wish.flavor, 0)
        nodes = [node for node in book.soon.nodes.values() if node.opened]
        return sum(max(0, node.cpu if key == "cpu" else node.memory) for node in nodes)

    def _others_hold(self, leaf: QueueNode, key: str) -> bool:
        return self.state.book.tree.root.plan.get(key, 0) > leaf.plan.get(key, 0)

    def _blockers(self, wish: Wish) -> list[str]:
        """Who holds what is missing, the largest holder first."""
        found = self.holders.get(wish.flavor)
        if found is None:
            version = self.state.book.version
            known = self.state.largest_holders.get(wish.flavor)
            if known is None or known[0] != version:
                known = self.state.largest_holders[wish.flavor] = (version, self._holders_by_size(wish.flavor))
            found = self.holders[wish.flavor] = known[1]
        return found

    def _holders_by_size(self, flavor: str) -> list[str]:
        jobs = [
            rec for leaf in self.state.book.tree.leaves for rec in self.state.holders(leaf.name)
            if rec.places and bool(rec.spec.shape.gpu_milli) == bool(flavor) and (not flavor or rec.flavor == flavor)
        ]  # fmt: skip
        size = {rec.id: len(rec.places) * max(rec.spec.shape.gpu_milli, 1) for rec in jobs}
        return sorted(size, key=lambda job_id: (-size[job_id], job_id))[:8]

    def _highest_waiting(self, leaf: QueueNode) -> int:
        """The highest class that waits in this queue and could ever start."""
        found = self.highest.get(leaf.name)
        if found is None:
            groups = self.state.waiting.line(leaf.name).groups.values()
            found = max((group.spec.priority for group in groups if group.feasible), default=0)
            self.highest[leaf.name] = found
        return found
