"""Before any ordering: which waiting groups certainly stay blocked in this pass, and why.

Sound because in a pass free capacity and whoever could be displaced only become fewer. A group is settled by comparing a few numbers of
its own with the *bar* of its queue on each flavor, which is looked up once; what the queue would have to show for a reason is frozen in
a *standing*, and the reason itself is made when somebody asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import core_tasks, task_amounts
from heliostat_scheduler.core.judge import candidate_flavors, rule_reason, structural_reason
from heliostat_scheduler.core.lack import Lack
from heliostat_scheduler.core.pools import Pool, pool_in
from heliostat_scheduler.core.shortage import Shortage
from heliostat_scheduler.core.victims import VictimIndex

if TYPE_CHECKING:
    from heliostat_scheduler.core.model import JobSpec
    from heliostat_scheduler.core.reasons import Reason
    from heliostat_scheduler.core.state import State
    from heliostat_scheduler.core.tree import QueueNode
    from heliostat_scheduler.core.waiting import Group


@dataclass(slots=True)
class Bar:
    """What a group of one queue would have to pass on one flavor to be worth a try.

    free: it fits into what is free. room: it stays within what the queue may call its own, so that it may reclaim. evict, surplus: it is
    above the lowest class that its own queue could give up. worst: by class, the rank of the longest work that might be rotated out.
    opened: there is no bar. ruled: some limit may be the reason.
    """

    leaf: QueueNode
    flavor: str
    free: int
    room: int
    opened: bool
    ruled: bool
    pool: Pool | None = None
    worst: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Settling:
    """The bars of one pass."""

    state: State
    victims: VictimIndex
    shortage: Shortage
    bars: dict[tuple[str, str], Bar] = field(default_factory=dict)

    def settled(self, leaf: QueueNode, group: Group) -> bool:
        """Whether the group stays blocked; if so, it has its reason."""
        state, spec = self.state, group.spec
        if group.judged_for is not state.structure:
            group.structural, group.judged_for = structural_reason(state, spec), state.structure
        if group.structural is not None:
            group.answer, group.fresh = group.structural, False
            return True
        flavors = candidate_flavors(state, spec)
        if not flavors or not all(self._below(leaf, group, flavor) for flavor in flavors):
            return False
        group.answer, group.fresh = self._why(leaf, spec, flavors[0]), False
        return True

    def _below(self, leaf: QueueNode, group: Group, flavor: str) -> bool:
        """Whether the group passes no bar of this flavor."""
        if not flavor or group.signature.starved or self.state.idle:
            return False
        spec = group.spec
        needed = spec.shape.gpu_milli * spec.min_tasks
        bar = self._bar(leaf, flavor)
        if bar.opened or needed <= bar.free or needed <= bar.room:
            return False
        pool = bar.pool
        if pool is None:
            pool = bar.pool = pool_in(self.state, leaf, flavor)
        if spec.priority > pool.evict or spec.priority >= pool.surplus:
            return False
        if self.state.revocable and self.state.asks_back(group.head.job_id):
            return False
        rank = group.members[0].rank
        return not rank or not 0 < rank * self.state.policy.rotate_hysteresis_milli < 1000 * self._worst(
            bar, pool, spec
        )

    def _worst(self, bar: Bar, pool: Pool, spec: JobSpec) -> int:
        found = bar.worst.get(spec.priority)
        if found is None:
            policy = self.state.policy
            own = pool.rank.get(spec.priority, 0) if policy.rotate else 0
            others = self.victims.longest(bar.leaf, bar.flavor, spec.priority, (bar.flavor,)) if policy.reclaim else 0
            found = bar.worst[spec.priority] = max(own, others)
        return found

    def _bar(self, leaf: QueueNode, flavor: str) -> Bar:
        found = self.bars.get((leaf.name, flavor))
        if found is None:
            policy, tree = self.state.policy, self.state.book.tree
            own = max(leaf.entitled.get(flavor, 0), leaf.secured.get(flavor, 0))
            room = own - leaf.plan.get(flavor, 0) if policy.reclaim else -1
            opened = policy.reclaim and policy.reclaim_rule == "share"
            ruled = bool(tree.lends or leaf.spec.user_limit) or any(node.limit for node in leaf.chain)
            free = self.state.book.soon.free_milli.get(flavor, 0)
            found = Bar(leaf, flavor, free, room, opened, ruled)
            self.bars[(leaf.name, flavor)] = found
        return found

    def _why(self, leaf: QueueNode, spec: JobSpec, flavor: str) -> Reason | Lack:
        bar = self._bar(leaf, flavor)
        core = core_tasks(spec, spec.min_tasks)
        if bar.ruled or core:
            need = task_amounts(spec, flavor, spec.min_tasks)
            rule = rule_reason(self.state, leaf, spec, need, task_amounts(spec, flavor, core))
            if rule is not None:
                return rule
        needed = spec.shape.gpu_milli * spec.min_tasks
        return self.shortage.lack(self.shortage.standing(leaf, flavor), leaf, spec, flavor, needed)
