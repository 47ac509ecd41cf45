"""The nodes that are wanted, as pending placement groups: what Ray's autoscaler reacts to. Made and removed until they agree.

The groups are not detached: they end with the bridge, so a bridge that dies leaves no demand behind. One that was placed has been
met: it is removed at the next look, before its node gets its slots.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

from ray.util.placement_group import placement_group

from heliostat_scheduler.live.capacity import flavor_of
from heliostat_scheduler.live.protocol import WANTED_PREFIX, NodeWant
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.tables import NodeRow
from heliostat_scheduler.live.wishes import bundle_of, open_wishes, selector_of

PENDING = ("PENDING", "RESCHEDULING", "PREPARED")


class NodeDesk:
    """asked: whether anything is wanted, or was and may still be there."""

    def __init__(self, tables: RayTables) -> None:
        self._tables = tables
        self._wants: tuple[NodeWant, ...] = ()
        self._known: frozenset[str] = frozenset()
        self.asked = False
        self._numbers = itertools.count(1)
        self._lock = asyncio.Lock()

    async def want(self, wants: tuple[NodeWant, ...], known: tuple[str, ...], alive: Mapping[str, NodeRow]) -> None:
        self._wants, self._known = wants, frozenset(known)
        self.asked = self.asked or any(want.count for want in wants)
        await self.settle(alive)

    async def settle(self, alive: Mapping[str, NodeRow]) -> None:
        """Make the groups agree with what is wanted and there. asked: whether there is anything to do."""
        async with self._lock:
            flavors = {row.id: flavor_of(row.labels, int(row.resources.get("GPU", 0))) for row in alive.values()}
            wished = open_wishes(self._wants, self._known, flavors)
            groups = [row for row in await self._tables.groups() if row.name.startswith(WANTED_PREFIX)]
            for want, count in wished.items():
                mine = [row for row in groups if _flavor(row.name) == want.flavor]
                waiting = sorted((row for row in mine if row.state in PENDING), key=lambda row: row.id)
                for row in [*(row for row in mine if row not in waiting), *waiting[count:]]:
                    await self._tables.remove_group(row.id)
                here = [node for node, flavor in flavors.items() if flavor == want.flavor]
                for _ in range(count - len(waiting)):
                    await asyncio.to_thread(self._ask, want, here)
            for row in groups:
                if _flavor(row.name) not in {want.flavor for want in wished}:
                    await self._tables.remove_group(row.id)
            self.asked = any(want.count for want in self._wants) or bool(groups)

    def _ask(self, want: NodeWant, here: list[str]) -> None:
        name = f"{WANTED_PREFIX}{want.flavor}/{next(self._numbers)}"
        placement_group([bundle_of(want)], name=name, bundle_label_selector=[selector_of(want, here)])


def _flavor(name: str) -> str:
    return name.removeprefix(WANTED_PREFIX).rpartition("/")[0]
