"""What is missing when the queues would allow a job and no place can be found or taken for it.

Everything that many groups share is looked up once per pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliostat_scheduler.core.harm import Wish
from heliostat_scheduler.core.judge import room_in
from heliostat_scheduler.core.lack import Lack, Standing
from heliostat_scheduler.core.model import Amounts, JobSpec, TaskShape
from heliostat_scheduler.core.placement import ANY, largest
from heliostat_scheduler.core.reasons import ReasonCode
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.tree import QueueNode

BLOCKERS = 8


@dataclass(slots=True)
class Shortage:
    """Reasons of capacity, for one pass."""

    state: State
    highest: dict[str, int] = field(default_factory=dict)
    holders: dict[str, list[str]] = field(default_factory=dict)
    full: dict[str, bool] = field(default_factory=dict)
    standings: dict[tuple[str, str], tuple[int, Standing]] = field(default_factory=dict)
    fitting: dict[tuple[TaskShape, str, tuple[str, ...], str, int], int] = field(default_factory=dict)

    def lack_of(self, leaf: QueueNode, spec: JobSpec, wish: Wish) -> Lack:
        if wish.flavor:
            needs = spec.shape.gpu_milli * wish.count
            return self.lack(self.standing(leaf, wish.flavor), leaf, spec, wish.flavor, needs)
        key, needs = max(wish.need, key=lambda pair: pair[1], default=("", 0))
        at = self._standing(leaf, key, self.free(key, wish), needs + self._slack(leaf, wish.need), "")
        return self.lack(at, leaf, spec, "", needs)

    def standing(self, leaf: QueueNode, flavor: str) -> Standing:
        """The queue's standing for GPUs of one flavor, kept until something is taken or given."""
        version = self.state.book.version
        known = self.standings.get((leaf.name, flavor))
        if known is None or known[0] != version:
            free = self.state.book.soon.free_milli.get(flavor, 0)
            fresh = self._standing(leaf, flavor, free, self._slack(leaf, ((flavor, 0),)), flavor)
            known = self.standings[(leaf.name, flavor)] = (version, fresh)
        return known[1]

    @staticmethod
    def _slack(leaf: QueueNode, need: Amounts) -> int:
        """What the tightest queue of the chain would have left of its share with `need` on top."""
        left = (node.entitled.get(key, 0) - node.plan.get(key, 0) - more for node in leaf.chain for key, more in need)
        return min(left, default=0)

    def _standing(self, leaf: QueueNode, key: str, free: int, share_left: int, flavor: str) -> Standing:
        used = leaf.plan.get(key, 0)
        others_hold = self.state.book.tree.root.plan.get(key, 0) > used
        entitled = leaf.entitled.get(key, 0)
        blockers, bound = self._blockers(flavor), self._all_there(flavor)
        return Standing(leaf.name, key, free, share_left, entitled, used, others_hold, blockers, bound)

    def _all_there(self, flavor: str) -> int | None:
        pool = self.state.node_pools.get(flavor)
        if pool is None:
            return None
        if pool.flavor not in self.full:
            self.full[pool.flavor] = not room_in(self.state, pool)
        return pool.max_nodes if self.full[pool.flavor] else None

    def lack(self, at: Standing, leaf: QueueNode, spec: JobSpec, flavor: str, needs: int) -> Lack:
        if at.free >= needs:
            code = ReasonCode.FRAGMENTED if spec.spread == ANY else ReasonCode.TOPOLOGY_UNSATISFIED
            return Lack(code, at, spec, needs, self._largest(spec, flavor))
        first = self.highest.get(leaf.name)
        if first is None:
            first = self.highest[leaf.name] = self._highest_waiting(leaf)
        if first > spec.priority:
            return Lack(ReasonCode.BELOW_PRIORITY, at, spec, needs, 0, first)
        if needs > at.share_left and at.others_hold:
            return Lack(ReasonCode.FAIR_SHARE_EXCEEDED, at, spec, needs)
        fits = self._largest(spec, flavor) if spec.min_tasks > 1 else 0
        code = ReasonCode.GANG_INCOMPLETE if 0 < fits < spec.min_tasks else ReasonCode.INSUFFICIENT_FREE
        return Lack(code, at, spec, needs, fits)

    def _largest(self, spec: JobSpec, flavor: str) -> int:
        """How many tasks would fit now (looked up once per shape while the free amount is the same)."""
        soon = self.state.book.soon
        free = soon.free_milli.get(flavor, 0) if flavor else -1
        if flavor and free < spec.shape.gpu_milli:
            return 0
        key = (spec.shape, spec.spread, spec.flavors, flavor, free)
        found = self.fitting.get(key)
        if found is None:
            flavors = (flavor,) if flavor else spec.flavors
            found = self.fitting[key] = largest(soon, spec.shape, flavors, spec.spread)
        return found

    def free(self, key: str, wish: Wish) -> int:
        book = self.state.book
        if wish.flavor:
            return book.soon.free_milli.get(wish.flavor, 0)
        nodes = [node for node in book.soon.nodes.values() if node.opened]
        return sum(max(0, node.cpu if key == "cpu" else node.memory) for node in nodes)

    def _blockers(self, flavor: str) -> list[str]:
        """Who holds what is missing, the largest holder first."""
        found = self.holders.get(flavor)
        if found is None:
            version = self.state.book.version
            known = self.state.largest_holders.get(flavor)
            if known is None or known[0] != version:
                known = self.state.largest_holders[flavor] = (version, self._holders_by_size(flavor))
            found = self.holders[flavor] = known[1]
        return found

    def _holders_by_size(self, flavor: str) -> list[str]:
        """The largest of all are among the largest of each queue."""
        found: list[tuple[int, str]] = []
        for leaf in self.state.book.tree.leaves:
            version = self.state.book.leaf_version.get(leaf.name, 0)
            known = self.state.largest_in.get((leaf.name, flavor))
            if known is None or known[0] != version:
                known = self.state.largest_in[leaf.name, flavor] = (version, self._largest_in(leaf, flavor))
            found += known[1]
        return [job_id for _, job_id in sorted(found)[:BLOCKERS]]

    def _largest_in(self, leaf: QueueNode, flavor: str) -> list[tuple[int, str]]:
        sizes = [
            (-len(rec.places) * max(rec.spec.shape.gpu_milli, 1), rec.id) for rec in self.state.holders(leaf.name)
            if rec.places and bool(rec.spec.shape.gpu_milli) == bool(flavor) and (not flavor or rec.flavor == flavor)
        ]  # fmt: skip
        return sorted(sizes)[:BLOCKERS]

    def _highest_waiting(self, leaf: QueueNode) -> int:
        """The highest class that waits in this queue and could ever start."""
        groups = self.state.waiting.line(leaf.name).groups.values()
        return max((group.spec.priority for group in groups if group.feasible), default=0)
