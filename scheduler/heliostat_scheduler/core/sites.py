"""Where a search looks: sets of nodes that could be cleared for the wish, and clearing them one after the other.

For tasks that need several devices of one node, one node for all, or one domain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import Harm, Unit
from heliostat_scheduler.core.placement import ANY, ONE_NODE
from heliostat_scheduler.core.space import WHOLE, NodeSpace
from heliostat_scheduler.core.victims import by_node_of

if TYPE_CHECKING:
    from heliostat_scheduler.core.recovery import Search

SiteCost = tuple[int, int, int, int]
SITES_PER_ROUND = 32


def sites(search: Search, touched: Iterable[str]) -> list[tuple[list[NodeSpace], int]]:
    """Sets of nodes with the room that each has to reach, the ones with the least to free first. touched: where somebody could go."""
    wish, soon = search.wish, search.book.soon
    nodes = [soon.nodes[n] for n in touched if n in soon.nodes and soon.nodes[n].opened]
    if wish.flavor:
        nodes = [node for node in nodes if node.flavor == wish.flavor]
    elif wish.spec.flavors:
        nodes = [node for node in nodes if node.flavor in wish.spec.flavors]
    shape, spread = wish.spec.shape, wish.spec.spread
    if spread in (ANY, ONE_NODE):
        if spread == ONE_NODE and wish.near:
            nodes = [node for node in nodes if node.id in wish.near]
        sites = [([node], wish.count if spread == ONE_NODE else node.room(shape) + 1) for node in nodes]
        return sorted(sites, key=lambda site: (-site[0][0].whole, site[0][0].id))
    domains: dict[str, list[NodeSpace]] = {}
    for node in soon.nodes.values():
        value = dict(node.spec.labels).get(spread)
        if value is not None and node.opened and (not wish.flavor or node.flavor == wish.flavor):
            domains.setdefault(value, []).append(node)
    return [(domains[value], wish.count) for value in sorted(domains)]


@dataclass(slots=True)
class Reach:
    """Cheap refusal: how many tasks nodes could hold at most, with everybody there gone. Whoever is taken meanwhile makes no difference."""

    per_task: int
    by_node: dict[str, list[Unit]]
    tasks: dict[str, int] = field(default_factory=dict)

    def suffices(self, nodes: list[NodeSpace], target: int) -> bool:
        return not self.per_task or sum(self._tasks(node) for node in nodes) >= target

    def _tasks(self, node: NodeSpace) -> int:
        found = self.tasks.get(node.id)
        if found is None:
            free = {slot for slot, left in zip(node.slots, node.free, strict=True) if left >= WHOLE}
            for unit in self.by_node.get(node.id, ()):
                free.update(slot for place in unit.places if place.node == node.id for slot in place.slots)
            found = self.tasks[node.id] = len(free) // self.per_task
        return found


def by_sites(search: Search, units: list[Unit]) -> bool:
    """Serve task after task at the site where it costs least; costs are measured once per round."""
    if search.fits() is not None:
        return True
    by_node = by_node_of(units)
    touched, reach = sorted(by_node), Reach(search.wish.spec.shape.gpu_milli // WHOLE, by_node)
    while search.fits() is None:
        offers: list[tuple[SiteCost, int, list[Unit]]] = []
        for index, (nodes, target) in enumerate(sites(search, touched)):
            offer = _try_site(search, nodes, target, by_node) if reach.suffices(nodes, target) else None
            if offer is not None and offer[1]:
                offers.append((offer[0], index, offer[1]))
            if len(offers) >= SITES_PER_ROUND:
                break
        offers.sort(key=lambda offer: (offer[0], offer[1]))
        if not _accept(search, offers):
            return False
    return True


def _accept(search: Search, offers: list[tuple[SiteCost, int, list[Unit]]]) -> bool:
    """Take the offers in order until the wish fits; the first always, later ones while they are still legal and new."""
    some = False
    for _, _, units in offers:
        if some and search.fits() is not None:
            break
        taken = set(map(id, search.taken))
        evicted = {unit.rec.id for unit in search.taken if unit.evict}
        if any(id(unit) in taken or unit.rec.id in evicted for unit in units):
            continue
        before = search.taken.copy()
        for unit in units:
            if search.harm(unit) is None:
                search.back_to(before)
                break
            search.take(unit)
        else:
            some = True
    return some


def _try_site(
    search: Search, nodes: list[NodeSpace], target: int, by_node: dict[str, list[Unit]]
) -> tuple[SiteCost, list[Unit]] | None:
    local = list(dict.fromkeys(unit for node in nodes for unit in by_node.get(node.id, ())))
    shape = search.wish.spec.shape
    before = search.taken.copy()

    def done() -> bool:
        return sum(node.room(shape) for node in nodes) >= target

    harms: list[int] = []
    enough = search.greedy(local, done)
    old = set(before)
    mine = [unit for unit in search.taken if unit not in old]
    if enough and len(mine) > 1:
        for unit in sorted(mine, key=lambda u: (not u.evict, -u.lost)):
            if unit not in search.taken:  # its job was taken whole instead
                continue
            search.put_back(unit)
            if not done():
                search.take(unit)
        mine = [unit for unit in search.taken if unit not in old]
    search.back_to(before)
    if not enough:
        return None
    falls = 0
    for unit in mine:
        found = search.harm(unit)
        harms.append(int(found[0]) if found else int(Harm.PREEMPT))
        falls += max(0, found[1]) if found else 0
    cost = (max(harms, default=0), falls, sum(unit.lost for unit in mine), len(mine))
    return cost, mine
