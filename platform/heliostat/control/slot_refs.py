"""Places, as the engine names them, to slots, as the bridge knows them."""

from __future__ import annotations

from collections.abc import Iterable

from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.live.protocol import NodeJoined, SlotRef


def refs_of(nodes: Iterable[NodeJoined], places: tuple[TaskPlace, ...]) -> tuple[SlotRef, ...] | None:
    """The slots of these places, grouped by node and sorted by device; None when one is not there."""
    present = list(nodes)
    names = {node.node for node in present}
    known = {ref.slot: ref for node in present for ref in node.slots}
    order = {place.node: position for position, place in reversed(list(enumerate(places)))}
    wanted = [slot for place in places for slot in place.slots]
    if any(place.node not in names for place in places) or any(slot not in known for slot in wanted):
        return None
    return tuple(sorted((known[slot] for slot in wanted), key=lambda ref: (order[ref.node], ref.device)))
