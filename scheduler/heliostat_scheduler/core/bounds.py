"""Sums that refuse a search before it is made: if everybody left who could ever be asked, the wish would still not fit.

Every sum is an upper bound of what a search could take, protected work included, so a refusal here is one that a search would come to, now
or when protection ends. The numbers are those of the moment: a group is measured when its turn has come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import least_beaten, most_beaten_by
from heliostat_scheduler.core.pools import pool_in
from heliostat_scheduler.core.shortage import Shortage
from heliostat_scheduler.core.victims import VictimIndex

if TYPE_CHECKING:
    from heliostat_scheduler.core.lack import Lack
    from heliostat_scheduler.core.state import State
    from heliostat_scheduler.core.tree import QueueNode
    from heliostat_scheduler.core.waiting import Choice, Group


@dataclass(slots=True)
class Bounds:
    """The sums of one pass."""

    state: State
    victims: VictimIndex
    shortage: Shortage
    rules: dict[str, bool] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)

    def refusal(self, leaf: QueueNode, group: Group) -> Lack | None:
        """Why the head of the group stays blocked, where sums are enough to tell; None: it has to be tried."""
        state = self.state
        if group.signature.starved or group.core or group.structural is not None or self.ruled(leaf):
            return None
        if state.revocable and state.asks_back(group.head.job_id):
            return None
        first: Choice | None = None
        priority, rank = group.spec.priority, group.members[0].rank
        for choice in group.choices:
            if not choice.usable:
                continue
            if not choice.flavor or self._within_reach(leaf, choice, priority, rank):
                return None
            first = first or choice
        if first is None:
            return None
        standing = self.shortage.standing(leaf, first.flavor)
        return self.shortage.lack(standing, leaf, group.spec, first.flavor, first.needed)

    def ruled(self, leaf: QueueNode) -> bool:
        """Whether some limit may be the reason of the queue's jobs."""
        found = self.rules.get(leaf.name)
        if found is None:
            tree = self.state.book.tree
            found = bool(tree.lends or leaf.spec.user_limit) or any(node.limit for node in leaf.chain)
            self.rules[leaf.name] = found
        return found

    def _within_reach(self, leaf: QueueNode, choice: Choice, priority: int, rank: int) -> bool:
        """Whether what is free, and what the own queue and others could give, may come to what is needed."""
        state, policy, flavor = self.state, self.state.policy, choice.flavor
        gap = choice.needed - state.book.soon.free_milli.get(flavor, 0)
        if gap <= 0 or (policy.reclaim and policy.reclaim_rule == "share"):
            return True
        pool = pool_in(state, leaf, flavor)
        turns = rank > 0 and policy.rotate and leaf.spec.rotate
        least = least_beaten(policy, rank) if turns else 0
        own = pool.gives(priority) + (pool.beaten(priority, least) if turns else 0)
        if state.idle:
            own += self._idle(flavor)
        if gap <= own:
            return True
        victims = self.victims
        if not policy.reclaim or gap > own + victims.lendable(flavor):
            return False
        held = leaf.plan.get(flavor, 0) - own + choice.needed
        if held <= leaf.secured.get(flavor, 0):
            return True
        across = turns and policy.rotate_across
        others = victims.overdue(flavor, priority, least) if across else 0
        if held <= leaf.entitled.get(flavor, 0):
            others += victims.contestable(flavor, priority, most_beaten_by(policy, rank) if across else 0)
        return gap <= own + others

    def _idle(self, flavor: str) -> int:
        """What idle jobs of all queues hold."""
        found = self.idle.get(flavor)
        if found is None:
            jobs = [self.state.book.jobs[job_id] for job_id in self.state.idle]
            found = sum(rec.spec.shape.gpu_milli * len(rec.places) for rec in jobs if rec.flavor == flavor)
            self.idle[flavor] = found
        return found
