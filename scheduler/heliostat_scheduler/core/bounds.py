"""Sums that refuse a search before it is made: if everybody left who could ever be asked, the wish would still not fit.

Every sum is an upper bound of what a search could take, protected work included, so a refusal here is one that a search would come to, now
or when protection ends. The numbers are those of the moment: a group is measured when its turn has come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from heliostat_scheduler.core.harm import least_beaten, most_beaten_by
from heliostat_scheduler.core.pools import pool_in
from heliostat_scheduler.core.shortage import Shortage
from heliostat_scheduler.core.victims import VictimIndex

if TYPE_CHECKING:
    from heliostat_scheduler.core.lack import Lack
    from heliostat_scheduler.core.state import State
    from heliostat_scheduler.core.tree import QueueNode
    from heliostat_scheduler.core.waiting import Choice, Group


class Sums(NamedTuple):
    """How much (milli-GPU) wishes of one kind may ask for, as of one state of the book.

    own: what is free and what their own queue could give; all: and what all others could lend; secured, entitled: until their queue, when it
    has given, is above its guarantee or its share.
    """

    version: int
    own: int
    all: int
    secured: int
    entitled: int


@dataclass(slots=True)
class Bounds:
    """The sums of one pass."""

    state: State
    victims: VictimIndex
    shortage: Shortage
    rules: dict[str, bool] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    sums: dict[tuple[str, str, int, int], Sums] = field(default_factory=dict)

    def refusal(self, leaf: QueueNode, group: Group) -> Lack | None:
        """Why the head of the group stays blocked, where sums are enough to tell; None: it has to be tried."""
        state = self.state
        if group.core or group.signature.starved or group.structural is not None or self.ruled(leaf):
            return None
        head = group.members[0]
        if state.revocable and state.asks_back(head.job_id):
            return None
        first: Choice | None = None
        for choice in group.choices:
            if not choice.usable:
                continue
            if not choice.flavor or self._within_reach(leaf, choice, group.spec.priority, head.rank):
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
        policy, flavor, victims = self.state.policy, choice.flavor, self.victims
        if policy.reclaim and policy.reclaim_rule == "share":
            return True
        turns = rank > 0 and policy.rotate and leaf.spec.rotate
        least = least_beaten(policy, rank) if turns else 0
        at = (leaf.name, flavor, priority, least)
        sums = self.sums.get(at)
        if sums is None or sums.version != self.state.book.version:
            sums = self.sums[at] = self._sums(leaf, flavor, priority, least)
        needed = choice.needed
        if needed <= sums.own:
            return True
        if needed > sums.all:
            return False
        if needed <= sums.secured:
            return True
        across = turns and policy.rotate_across
        others = victims.overdue(flavor, priority, least) if across else 0
        if needed <= sums.entitled:
            others += victims.contestable(flavor, priority, most_beaten_by(policy, rank) if across else 0)
        return needed <= sums.own + others

    def _sums(self, leaf: QueueNode, flavor: str, priority: int, least: int) -> Sums:
        """least: the smallest rank that gives its turn to the wish (0: there are no turns)."""
        state = self.state
        pool = pool_in(state, leaf, flavor)
        gives = pool.gives(priority) + (pool.beaten(priority, least) if least else 0)
        if state.idle:
            gives += self._idle(flavor)
        own = state.book.soon.free_milli.get(flavor, 0) + gives
        most = own + self.victims.lendable(flavor) if state.policy.reclaim else own
        held = leaf.plan.get(flavor, 0) - gives
        return Sums(
            state.book.version, own, most, leaf.secured.get(flavor, 0) - held, leaf.entitled.get(flavor, 0) - held
        )

    def _idle(self, flavor: str) -> int:
        """What idle jobs of all queues hold."""
        found = self.idle.get(flavor)
        if found is None:
            jobs = [self.state.book.jobs[job_id] for job_id in self.state.idle]
            found = sum(rec.spec.shape.gpu_milli * len(rec.places) for rec in jobs if rec.flavor == flavor)
            self.idle[flavor] = found
        return found
