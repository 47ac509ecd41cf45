"""Before any ordering: which waiting groups certainly stay blocked in this pass, and why.

Sound because in a pass free capacity and whoever could be displaced only become fewer. A group is settled by comparing a few numbers of
its own with the *bar* of its queue on each flavor, which is looked up once; what the queue would have to show for a reason is frozen in
a *standing*, and the reason itself is made when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import core_tasks, task_amounts
from heliostat_scheduler.core.judge import judge, rule_reason
from heliostat_scheduler.core.pools import Pool, pool_in

if TYPE_CHECKING:
    from heliostat_scheduler.core.bounds import Bounds
    from heliostat_scheduler.core.lack import Standing
    from heliostat_scheduler.core.reasons import Reason
    from heliostat_scheduler.core.tree import QueueNode
    from heliostat_scheduler.core.waiting import Group


@dataclass(slots=True)
class Bar:
    """What a group of one queue would have to pass on one flavor to be worth a try.

    least: it fits into what is free, or stays within what the queue may call its own, so that it may reclaim. pool: it is above the lowest
    class that its own queue could give up (`below`, by class: it is not). worst: by class, the rank of the longest work that might be rotated
    out. standing: what the queue has to show for a reason.
    """

    flavor: str
    least: int
    pool: Pool | None = None
    standing: Standing | None = None
    below: dict[int, bool] = field(default_factory=dict)
    worst: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Settling:
    """The bars of one pass."""

    bounds: Bounds

    def worth_a_try(self, leaf: QueueNode, groups: Iterable[Group]) -> list[Group]:
        """The groups of a queue that may start in this pass; the others have their reason."""
        state = self.bounds.state
        structure = state.structure
        bars: dict[str, Bar] = {}
        anything = bool(state.idle) or (state.policy.reclaim and state.policy.reclaim_rule == "share")
        ruled, shortage = self.bounds.ruled(leaf), self.bounds.shortage
        found = []
        for group in groups:
            if group.judged_for is not structure:
                judge(state, group)
            if group.structural is not None:
                group.answer, group.fresh = group.structural, False
            elif anything or group.signature.starved or not self._settled(leaf, group, bars):
                found.append(group)
            else:
                first = group.choices[0]
                rule = self._rule(leaf, group) if ruled or group.core else None
                if rule is None:
                    standing = self._standing(leaf, bars[first.flavor])
                    group.answer = shortage.lack(standing, leaf, group.spec, first.flavor, first.needed)
                else:
                    group.answer = rule
                group.fresh = False
        return found

    def stays(self, leaf: QueueNode, group: Group) -> bool:
        """Whether the group certainly stays blocked, whatever its reason."""
        state = self.bounds.state
        if group.judged_for is not state.structure:
            judge(state, group)
        if group.structural is not None:
            return True
        anything = bool(state.idle) or (state.policy.reclaim and state.policy.reclaim_rule == "share")
        return not anything and not group.signature.starved and self._settled(leaf, group, {})

    def _settled(self, leaf: QueueNode, group: Group, bars: dict[str, Bar]) -> bool:
        """Whether the group passes no bar of any flavor."""
        priority, rank = group.spec.priority, group.members[0].rank
        for choice in group.choices:
            bar = bars.get(choice.flavor)
            if bar is None:
                if not choice.flavor:
                    return False
                bar = bars[choice.flavor] = self._bar(leaf, choice.flavor)
            if choice.needed <= bar.least:
                return False
            below = bar.below.get(priority)
            if below is None:
                below = bar.below[priority] = self._below(leaf, bar, priority)
            if not below:
                return False
            state = self.bounds.state
            if state.revocable and state.asks_back(group.head.job_id):
                return False
            if rank and 0 < rank * state.policy.rotate_hysteresis_milli < 1000 * self._worst(leaf, bar, priority):
                return False
        return bool(group.choices)

    def _below(self, leaf: QueueNode, bar: Bar, priority: int) -> bool:
        """Whether the class is not above the lowest that its own queue could give up."""
        pool = self._pool(leaf, bar)
        return priority <= pool.evict and priority < pool.surplus

    def _pool(self, leaf: QueueNode, bar: Bar) -> Pool:
        if bar.pool is None:
            bar.pool = pool_in(self.bounds.state, leaf, bar.flavor)
        return bar.pool

    def _standing(self, leaf: QueueNode, bar: Bar) -> Standing:
        if bar.standing is None:
            bar.standing = self.bounds.shortage.standing(leaf, bar.flavor)
        return bar.standing

    def _worst(self, leaf: QueueNode, bar: Bar, priority: int) -> int:
        found = bar.worst.get(priority)
        if found is None:
            policy, victims = self.bounds.state.policy, self.bounds.victims
            own = self._pool(leaf, bar).rank.get(priority, 0) if policy.rotate else 0
            others = victims.longest(leaf, bar.flavor, priority, (bar.flavor,)) if policy.reclaim else 0
            found = bar.worst[priority] = max(own, others)
        return found

    def _bar(self, leaf: QueueNode, flavor: str) -> Bar:
        state = self.bounds.state
        own = max(leaf.entitled.get(flavor, 0), leaf.secured.get(flavor, 0))
        room = own - leaf.plan.get(flavor, 0) if state.policy.reclaim else -1
        least = max(state.book.soon.free_milli.get(flavor, 0), room)
        return Bar(flavor, least)

    def _rule(self, leaf: QueueNode, group: Group) -> Reason | None:
        spec = group.spec
        core = task_amounts(spec, group.choices[0].flavor, core_tasks(spec, spec.min_tasks))
        return rule_reason(self.bounds.state, leaf, spec, group.asks, core)
