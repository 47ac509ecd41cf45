"""Moving running jobs together so that a waiting one fits: nobody loses service but for a restart.

Tried when enough is free in sum but scattered. Node by node: which preemptible jobs would have to leave, and does every one of them
find a place elsewhere once the waiting job has its own? Only jobs whose move throws little work away, of no higher class than the
waiting one, are moved.
"""

from __future__ import annotations

from dataclasses import dataclass

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.budget import affordable_at
from heliostat_scheduler.core.harm import Unit, evictable, lost_ms, safe_until, unit_amounts
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.recovery import Search
from heliostat_scheduler.core.sites import SITES_PER_ROUND, Reach, sites
from heliostat_scheduler.core.space import WHOLE, NodeSpace
from heliostat_scheduler.core.victims import by_node_of


@dataclass(frozen=True, slots=True)
class Move:
    """One job and the places it goes to."""

    rec: JobRec
    to: tuple[TaskPlace, ...]
    lost_ms: int


def consolidate(search: Search) -> tuple[list[Move], tuple[TaskPlace, ...]] | None:
    """The moves and the waiting job's places, or None. The search may have taken victims already; they stay taken."""
    movers = _movers(search)
    if not movers or not search.allowed():
        return None
    order, by_node = {unit: index for index, unit in enumerate(movers)}, by_node_of(movers)
    reach = Reach(search.wish.spec.shape.gpu_milli // WHOLE, by_node)
    best: tuple[tuple[int, int], list[Move], tuple[TaskPlace, ...]] | None = None
    for nodes, target in sites(search, sorted(by_node))[:SITES_PER_ROUND]:
        if not reach.suffices(nodes, target):
            continue
        there = {unit for node in nodes for unit in by_node.get(node.id, ())}
        taken = _clear(search, nodes, target, sorted(there, key=order.__getitem__))
        if taken is None:
            continue
        cost = (sum(unit.lost for unit in taken), len(taken))
        found = _replace(search, taken) if best is None or cost < best[0] else None
        for unit in reversed(taken):
            search.put_back(unit)
        if found is not None:
            best = (cost, *found)
    return None if best is None else (best[1], best[2])


def _movers(search: Search) -> list[Unit]:
    state, wish = search.state, search.wish
    gone = {unit.rec.id for unit in search.taken}
    found = []
    for leaf in state.book.tree.leaves:
        for rec in state.holders(leaf.name):
            search.spent += 1
            if (
                not evictable(rec)
                or rec.claim
                or rec.id in gone
                or rec.id in state.just_started
                or rec.spec.priority > wish.spec.priority
            ):
                continue
            if bool(wish.flavor) != bool(rec.spec.shape.gpu_milli) or (wish.flavor and rec.flavor != wish.flavor):
                continue
            lost = lost_ms(rec, search.now_ms)
            if lost > state.policy.migrate_max_lost_ms or safe_until(rec, state.policy) > search.now_ms:
                continue
            unit = Unit(rec, leaf, rec.places, True, unit_amounts(rec, len(rec.places)), lost)
            if not state.book.tree.budgeted or affordable_at(state, unit, []) == state.clock:
                found.append(unit)
    return sorted(found, key=lambda unit: (unit.lost, unit.rec.id))


def _clear(search: Search, nodes: list[NodeSpace], target: int, local: list[Unit]) -> list[Unit] | None:
    """Take jobs off these nodes until there is room, then put back those that need not have left."""
    shape = search.wish.spec.shape

    def enough() -> bool:
        return sum(node.room(shape) for node in nodes) >= target

    taken: list[Unit] = []
    for unit in local:
        if enough():
            break
        search.take(unit)
        taken.append(unit)
    if not enough():
        for unit in reversed(taken):
            search.put_back(unit)
        return None
    for unit in sorted(taken, key=lambda u: (-u.lost, u.rec.id)):
        search.put_back(unit)
        if enough():
            taken.remove(unit)
        else:
            search.take(unit)
    return taken


def _replace(search: Search, taken: list[Unit]) -> tuple[list[Move], tuple[TaskPlace, ...]] | None:
    """Places for the waiting job and then for everybody who was taken, the largest first."""
    places = search.fits()
    if places is None:
        return None
    soon, shape = search.book.soon, search.wish.spec.shape
    soon.take(places, shape)
    moves: list[Move] = []
    for unit in sorted(taken, key=lambda u: (-len(u.places) * u.rec.spec.shape.gpu_milli, u.rec.id)):
        spec = unit.rec.spec
        flavors = (unit.rec.flavor,) if spec.shape.gpu_milli else spec.flavors
        to = find(soon, spec.shape, len(unit.places), flavors, spec.spread)
        if to is None:
            break
        soon.take(to, spec.shape)
        moves.append(Move(unit.rec, to, unit.lost_ms))
    for move in reversed(moves):
        soon.give(move.to, move.rec.spec.shape)
    soon.give(places, shape)
    return (moves, places) if len(moves) == len(taken) else None
