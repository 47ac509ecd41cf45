"""What one queue may be asked for by one wish: its jobs, as far as they are not protected and the wish may have a right to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import Unit, asked_back, least_beaten, min_runtime_ms, own_harm

if TYPE_CHECKING:
    from heliostat_scheduler.core.recovery import Search
    from heliostat_scheduler.core.tree import QueueNode
    from heliostat_scheduler.core.victims import Victim

OfferKey = tuple[str, int, int, int, bool, int, int, str]
"""Flavor; class, rank, user step and starvation of the wish; protection as of; rights; own job left out."""


@dataclass(slots=True)
class Offers:
    """What one queue may be asked for by wishes of one kind: surplus tasks, whole jobs, how many of its jobs are protected for now.

    lower: some of the whole jobs are of a lower class than the wish. looked_at: jobs. gains: what the surplus comes to, and surplus and
    whole jobs together; biggest: the largest single piece (milli-GPU).
    """

    shrinks: list[Unit] = field(default_factory=list)
    evicts: list[Unit] = field(default_factory=list)
    surplus: dict[str, int] = field(default_factory=dict)
    protected: int = 0
    lower: bool = False
    looked_at: int = 0
    gains: tuple[int, int] = (0, 0)
    biggest: int = 0

    def measure(self) -> Offers:
        shrinks = [unit.amounts[0][1] for unit in self.shrinks if unit.amounts]
        evicts = [unit.amounts[0][1] for unit in self.evicts if unit.amounts]
        self.gains = (sum(shrinks), sum(shrinks) + sum(evicts))
        self.biggest = max([0, *shrinks, *evicts])
        return self


def look(search: Search, leaf: QueueNode, may: bool, holder: str) -> Offers:
    """Without `may` only those whose turn is over. holder: the wish's own job, where it holds something here or others stand behind it.

    Usually class and rank tell who is in question at all; another queue offers the same to whoever may ask.
    """
    wish, index, as_of, own = search.wish, search.index, search.protected_as_of, leaf is search.wish.leaf
    victims, idlers = index.of(leaf, wish.flavor), search.state.idle
    if not may and not idlers and not wish.rank and not wish.starved:
        return Offers(looked_at=len(victims.jobs))  # it is nobody's turn to give way
    if idlers or wish.starved or holder:
        return _offers(search, leaf, may, victims.jobs)
    if may and not own:
        known = index.everybody(leaf, wish.flavor, as_of)
        return known or index.keep_everybody(leaf, wish.flavor, as_of, _offers(search, leaf, may, victims.jobs))
    least = least_beaten(search.state.policy, wish.rank) if wish.rank else 0
    jobs = victims.in_question(wish.spec.priority, least, own, own and search.equals_share())
    found = _offers(search, leaf, may, jobs)
    found.looked_at = len(victims.jobs)
    if own:
        found.protected = victims.protected(as_of)
    return found


def _offers(search: Search, leaf: QueueNode, may: bool, jobs: list[Victim]) -> Offers:
    """These jobs, one by one."""
    wish, policy, now_ms, own = search.wish, search.state.policy, search.now_ms, leaf is search.wish.leaf
    idlers, index, found = search.state.idle, search.index, Offers(looked_at=len(jobs))
    least = least_beaten(policy, wish.rank) if wish.rank else 0
    for victim in jobs:
        rec = victim.rec
        if rec.spec.id == wish.spec.id:
            continue
        idle = bool(idlers) and rec.spec.id in idlers
        if not may and not idle and ((rec.rank < least and not wish.starved) or not search.my_turn(leaf, rec)):
            continue
        safe_until, back = victim.safe_until, own and bool(rec.behind) and asked_back(wish, rec, now_ms)
        if wish.starved or back:
            safe_until = (rec.running_at or rec.started_at) + min_runtime_ms(rec, policy)
        if safe_until > search.protected_as_of:
            found.protected += 1
            continue
        if victim.surplus and (not own or idle or own_harm(policy, wish, rec, False, now_ms, search.equals_share())):
            found.surplus[rec.id] = victim.surplus
            found.shrinks += index.tasks(victim, leaf)
        if victim.whole and (not own or idle or back or own_harm(policy, wish, rec, True, now_ms)):
            found.evicts.append(index.whole(victim, leaf))
            found.lower |= rec.spec.priority < wish.spec.priority
    return found.measure()
