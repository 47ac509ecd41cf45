"""Where a search looks: sets of nodes that could be cleared for the wish, and whether clearing them could be enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import Unit, Wish
from heliostat_scheduler.core.placement import ANY, ONE_NODE
from heliostat_scheduler.core.space import WHOLE, NodeSpace

if TYPE_CHECKING:
    from heliostat_scheduler.core.recovery import Search


def sites(search: Search, units: list[Unit]) -> list[tuple[list[NodeSpace], int]]:
    """Sets of nodes with the room that each has to reach, the ones with the least to free first."""
    wish, soon = search.wish, search.book.soon
    touched = {place.node for unit in units for place in unit.places}
    nodes = [soon.nodes[n] for n in sorted(touched) if n in soon.nodes and soon.nodes[n].opened]
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


def could_reach(wish: Wish, nodes: list[NodeSpace], target: int, by_node: dict[str, list[Unit]]) -> bool:
    """Cheap refusal: even with everybody there gone, the devices would not suffice."""
    per_task = wish.spec.shape.gpu_milli // WHOLE
    if not per_task:
        return True
    devices = 0
    for node in nodes:
        free = {slot for slot, left in zip(node.slots, node.free, strict=True) if left >= WHOLE}
        for unit in by_node.get(node.id, ()):
            free.update(slot for place in unit.places if place.node == node.id for slot in place.slots)
        devices += len(free) // per_task
    return devices >= target
