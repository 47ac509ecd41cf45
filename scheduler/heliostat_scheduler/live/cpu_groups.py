"""Placement groups of CPU-only leases: one per lease, one bundle with all its CPU and memory, pinned to its node.

Unlike slots they come and go with their lease. The name holds job and attempt, so a repeated creation finds the group that is
there, and groups that no lease names are found and removed after a restart.
"""

from __future__ import annotations

import asyncio

from ray.util.placement_group import placement_group

from heliostat_scheduler.live.protocol import CPU_GROUP_PREFIX, Lease
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.tables import GroupRow

BUSY_AFTER_S = 10.0
POLL_S = 0.02


class CpuBusy(Exception):
    """The node had no room for the group in time."""


def name_of(lease: Lease) -> str:
    return f"{CPU_GROUP_PREFIX}{lease.job}:{lease.attempt}"


def holds(lease: Lease) -> dict[str, float]:
    """What the lease's bundle holds. A lease of nothing still needs a bundle."""
    amounts = {"CPU": lease.cpu_milli / 1000, "memory": float(lease.memory_bytes)}
    return {key: amount for key, amount in amounts.items() if amount > 0} or {"CPU": 0.001}


class CpuGroups:
    def __init__(self, tables: RayTables) -> None:
        self._tables = tables

    async def known(self) -> dict[str, GroupRow]:
        """All of ours by name."""
        return {row.name: row for row in await self._tables.groups() if row.name.startswith(CPU_GROUP_PREFIX)}

    async def make(self, lease: Lease) -> str:
        """The lease's group, created or found. Raises CpuBusy after 10 s, and leaves nothing behind then."""
        name = name_of(lease)
        found = (await self.known()).get(name)
        group = found.id if found else await asyncio.to_thread(self._create, lease, name)
        deadline = asyncio.get_running_loop().time() + BUSY_AFTER_S
        pause = POLL_S
        while asyncio.get_running_loop().time() < deadline:
            row = (await self.known()).get(name)
            if row is not None and row.state == "CREATED":
                return row.id
            await asyncio.sleep(pause)
            pause = min(0.5, 1.5 * pause)
        await self.remove(group)
        raise CpuBusy(f"{lease.job}: no CPU was free on {lease.node} within {BUSY_AFTER_S:.0f} s")

    async def remove(self, group: str) -> None:
        """Remove an empty group and wait until Ray's table agrees."""
        await self._tables.remove_group(group)
        for _ in range(int(BUSY_AFTER_S / POLL_S)):
            if group not in {row.id for row in (await self.known()).values()}:
                return
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"Ray still lists the removed group {group}")

    def _create(self, lease: Lease, name: str) -> str:
        group = placement_group(
            [holds(lease)],
            name=name,
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": lease.node}],
        )
        return str(group.id.hex())
