"""How many nodes are still to be asked for, from what is wanted and what is there. Pure: the bridge and its fake share it.

Always true: what is asked for and what is there are together at most `max_nodes`, and a node that has come, whether or not the
control plane has heard of it, is not asked for twice. A node that dies before that is asked for again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from heliostat_scheduler.live.capacity import FLAVOR_LABEL
from heliostat_scheduler.live.protocol import NodeWant


def open_wishes(wants: Collection[NodeWant], known: Collection[str], alive: Mapping[str, str]) -> dict[NodeWant, int]:
    """alive: node -> flavor. How many pending groups there have to be for each want."""
    found: dict[NodeWant, int] = {}
    for want in wants:
        here = [node for node, flavor in alive.items() if flavor == want.flavor]
        come = sum(1 for node in here if node not in known)
        found[want] = max(0, min(want.count - come, want.max_nodes - len(here)))
    return found


def bundle_of(want: NodeWant) -> dict[str, float]:
    """What the pending group asks for: a whole node's GPUs, or its CPUs."""
    return {"GPU": float(want.gpus)} if want.gpus else {"CPU": want.cpu_milli / 1000}


def selector_of(want: NodeWant, here: Collection[str]) -> dict[str, str]:
    """The group's labels: any node of the flavor but those that are there, whose GPUs may be free for a moment."""
    selector = {FLAVOR_LABEL: want.flavor}
    if here:
        selector["ray.io/node-id"] = f"!in({', '.join(sorted(here))})"
    return selector
