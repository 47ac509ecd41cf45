"""Slots: one permanent detached placement group per GPU, made when its node joins and adopted by whoever comes later.

Always true: every whole GPU of a live node (unless the node was dropped) is in exactly one group named
`SLOT_PREFIX<node>/<ordinal>`, pinned to its node; what is not in a lease is empty. The *ordinal* only makes the name unique; the
device index is learned by a probe inside the group, kept in the cluster's key-value store under the group's id, and gives the
slot its id `<node>/<device>`. A group that does not come up (a stranger holds its GPU) is trouble until it does.
Rejected: one group per lease (see docs/decisions/0002-slots.md).
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace

import ray
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat_scheduler.live import probe
from heliostat_scheduler.live.capacity import flavor_of, share_out
from heliostat_scheduler.live.protocol import SLOT_PREFIX, NodeJoined, SlotRef, SlotTrouble
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.tables import ActorRow, GroupRow, NodeRow

CREATED_S = 5.0
PROBE_S = 60.0
DROPPED = "dropped"
LENT = "lent"


@dataclass(slots=True)
class Changes:
    """What a look at the cluster has found."""

    joined: list[NodeJoined] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    troubles: list[SlotTrouble] = field(default_factory=list)


class Slots:
    """All slots by id, and the nodes they are on."""

    def __init__(self, tables: RayTables, *, slot_cpu_milli: int = 1000, reserve_cpu_milli: int = 0) -> None:
        self._tables = tables
        self.slot_cpu_milli = slot_cpu_milli
        self.reserve_cpu_milli = reserve_cpu_milli
        self.nodes: dict[str, NodeRow] = {}
        self.refs: dict[str, SlotRef] = {}
        self._pending: dict[str, dict[int, str]] = {}  # node -> ordinal -> group that is not up yet
        self._dropped: set[str] = set()
        self._troubled: set[str] = set()
        self._lent: dict[str, tuple[str, int]] = {}  # slot -> node, ordinal of its group's name
        self._lock = asyncio.Lock()  # one change of the set of slots at a time

    # ---- watching ----------------------------------------------------------------------------------------------------

    async def refresh(self, alive: dict[str, NodeRow]) -> Changes:
        """Compare with the nodes that are alive now; make and adopt slots where nodes are new."""
        async with self._lock:
            return await self._refresh(alive)

    async def _refresh(self, alive: dict[str, NodeRow]) -> Changes:
        changes = Changes()
        for node in sorted(set(self.nodes) - set(alive)):
            await self._lose(node)
            changes.lost.append(node)
        new = [alive[node] for node in sorted(set(alive) - set(self.nodes))]
        if new:
            groups = await self._groups()
            actors = await self._tables.actors()
            await self._sweep_dead(groups, alive)
            for row in new:
                self.nodes[row.id] = row
                changes.joined.append(await self._equip(row, groups, actors, changes))
        for node in sorted(self._pending):
            if self._pending[node] and await self._came_up(node, changes):
                changes.joined.append(self.joined(node))
        return changes

    def joined(self, node: str) -> NodeJoined:
        """What is usable on this node now."""
        row = self.nodes[node]
        refs = tuple(sorted((ref for ref in self.refs.values() if ref.node == node), key=lambda ref: ref.device))
        gpus = len(refs)
        cpu, memory = _totals(row)
        slot_cpu = refs[0].cpu_milli if refs else self.slot_cpu_milli
        shares = share_out(cpu, memory, gpus, slot_cpu_milli=slot_cpu, reserve_cpu_milli=self.reserve_cpu_milli)
        return NodeJoined(
            row.id,
            row.ip,
            flavor_of(row.labels, _gpus(row)),
            refs,
            shares.float_cpu_milli,
            shares.float_memory_bytes,
            dict(row.labels),
            row.is_head,
        )

    def groups_of(self, node: str) -> dict[str, SlotRef]:
        """Group -> slot of one node."""
        return {ref.group: ref for ref in self.refs.values() if ref.node == node}

    def missing(self) -> bool:
        """Whether some GPU is in no slot: then a stranger may hold it."""
        return any(self._pending.values()) or bool(self._dropped & set(self.nodes))

    def is_dropped(self, node: str) -> bool:
        return node in self._dropped

    # ---- letting a node go, taking it back ---------------------------------------------------------------------------

    async def drop(self, node: str) -> None:
        """Remove the groups of a node. The caller has made sure that they are empty."""
        async with self._lock:
            self._dropped.add(node)
            await self._tables.kv_put(f"{DROPPED}:{node}", "1")
            groups = [*self.groups_of(node), *self._pending.pop(node, {}).values()]
            self.refs = {slot: ref for slot, ref in self.refs.items() if ref.node != node}
            await self._remove(groups)

    async def restore(self, node: str) -> Changes:
        """Make the slots of a dropped node again."""
        async with self._lock:
            self._dropped.discard(node)
            await self._tables.kv_delete(f"{DROPPED}:{node}")
            changes = Changes()
            groups, actors = await self._groups(), await self._tables.actors()
            changes.joined.append(await self._equip(self.nodes[node], groups, actors, changes))
            return changes

    async def remove_all(self) -> None:
        """Detach from a cluster that goes on without us."""
        await self._remove([row.id for row in (await self._groups()).values()])
        self.refs, self._pending = {}, {}

    async def _remove(self, groups: list[str]) -> None:
        for group in groups:
            await self._tables.remove_group(group)
            await self._tables.kv_delete(f"device:{group}")
        for _ in range(100):
            if not {row.id for row in await self._tables.groups()} & set(groups):
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"Ray still lists {len(groups)} removed slots after 5 s")

    # ---- lending (the caller knows that nobody is there) ------------------------------------------------------------

    def is_lent(self, slot: str) -> bool:
        """Whether the slot has no group now: its GPU is lent."""
        return slot in self._lent

    def grouped(self) -> list[SlotRef]:
        """The slots that have a group."""
        return [ref for ref in self.refs.values() if ref.slot not in self._lent]

    async def lend(self, slot: str, record: str) -> None:
        """Remove the slot's group; `record` tells a later bridge what it was."""
        async with self._lock:
            ref = self.refs[slot]
            group = next(row for row in (await self._groups()).values() if row.id == ref.group)
            ordinal = int(group.name.rpartition("/")[2])
            await self._tables.kv_put(f"{LENT}:{ref.node}:{ordinal}", record)
            self._lent[slot] = (ref.node, ordinal)
            await self._remove([ref.group])

    async def take_back(self, slot: str, patience_s: float) -> NodeJoined | None:
        """Make the group again; None while it is not up, or came up on another device than the slot's own."""
        async with self._lock:
            node, ordinal = self._lent[slot]
            ref, name = self.refs[slot], _name(node, ordinal)
            if name not in await self._groups():
                await asyncio.to_thread(self._create, self.nodes[node], [ordinal])
            row = await self._up(name, patience_s)
            if row is None:
                return None
            if await self._device(row.id, []) != ref.device:
                await self._remove([row.id])
                return None
            await self._tables.kv_delete(f"{LENT}:{node}:{ordinal}")
            del self._lent[slot]
            self.refs[slot] = replace(ref, group=row.id)
            return self.joined(node)

    async def _up(self, name: str, patience_s: float) -> GroupRow | None:
        deadline = asyncio.get_running_loop().time() + patience_s
        while asyncio.get_running_loop().time() < deadline:
            row = (await self._groups()).get(name)
            if row is not None and row.state == "CREATED":
                return row
            await asyncio.sleep(0.02)
        return None

    async def _adopt_loan(self, node: str, ordinal: int) -> bool:
        """A slot that an earlier bridge lent."""
        record = await self._tables.kv_get(f"{LENT}:{node}:{ordinal}")
        if not record:
            return False
        ref = SlotRef(**json.loads(record))
        self.refs[ref.slot] = ref
        self._lent[ref.slot] = (node, ordinal)
        return True

    # ---- making ------------------------------------------------------------------------------------------------------

    async def _equip(
        self, row: NodeRow, groups: dict[str, GroupRow], actors: list[ActorRow], changes: Changes
    ) -> NodeJoined:
        """Every GPU of this node gets its slot."""
        if await self._tables.kv_get(f"{DROPPED}:{row.id}"):
            self._dropped.add(row.id)
            return self.joined(row.id)
        names = {ordinal: _name(row.id, ordinal) for ordinal in range(_gpus(row))}
        for ordinal in [o for o, name in names.items() if name not in groups and await self._adopt_loan(row.id, o)]:
            del names[ordinal]
        missing = [ordinal for ordinal, name in names.items() if name not in groups]
        ids = {ordinal: groups[name].id for ordinal, name in names.items() if name in groups}
        if missing:
            ids |= await asyncio.to_thread(self._create, row, missing)
        self._pending[row.id] = ids
        deadline = asyncio.get_running_loop().time() + CREATED_S
        while self._pending[row.id] and asyncio.get_running_loop().time() < deadline:
            await self._came_up(row.id, changes, actors)
            await asyncio.sleep(0.02 if self._pending[row.id] else 0)
        known = {ref.device for ref in self.refs.values() if ref.node == row.id}
        unknown = [device for device in range(_gpus(row)) if device not in known]
        for _ordinal, device in zip(self._pending[row.id], unknown, strict=False):
            self._troubled.add(f"{row.id[:12]}/{device}")
            changes.troubles.append(SlotTrouble(f"{row.id[:12]}/{device}", False, "somebody else holds this GPU"))
        return self.joined(row.id)

    def _create(self, row: NodeRow, ordinals: list[int]) -> dict[int, str]:
        cpu, memory = _totals(row)
        shares = share_out(
            cpu,
            memory,
            _gpus(row),
            slot_cpu_milli=self.slot_cpu_milli,
            reserve_cpu_milli=self.reserve_cpu_milli,
        )
        bundle = {"GPU": 1.0, "CPU": shares.slot_cpu_milli / 1000, "memory": float(shares.slot_memory_bytes)}
        bundle = {key: amount for key, amount in bundle.items() if amount > 0}
        made = {}
        for ordinal in ordinals:
            group = placement_group(
                [bundle],
                name=_name(row.id, ordinal),
                lifetime="detached",
                bundle_label_selector=[{"ray.io/node-id": row.id}],
            )
            made[ordinal] = group.id.hex()
        return made

    async def _came_up(self, node: str, changes: Changes, actors: list[ActorRow] | None = None) -> bool:
        """Take over those pending groups that are up by now."""
        rows = {row.id: row for row in (await self._groups()).values()}
        up = {o: g for o, g in self._pending[node].items() if g in rows and rows[g].state == "CREATED"}
        if not up:
            return False
        found = await asyncio.gather(*(self._device(group, actors or []) for group in up.values()))
        for (ordinal, group), device in zip(up.items(), found, strict=True):
            del self._pending[node][ordinal]
            bundle = rows[group].bundles[0]
            cpu, memory = round(bundle.get("CPU", 0) * 1000), int(bundle.get("memory", 0))
            slot = f"{node[:12]}/{device}"
            self.refs[slot] = SlotRef(slot, group, node, device, cpu, memory)
            if slot in self._troubled:
                self._troubled.discard(slot)
                changes.troubles.append(SlotTrouble(slot, True))
        return True

    async def _device(self, group: str, actors: list[ActorRow]) -> int:
        """From the store; else from whoever sits in the slot; else by a probe."""
        known = await self._tables.kv_get(f"device:{group}")
        if not known:
            seated = next((a.devices for a in actors if a.group == group and len(a.devices) == 1), None)
            found = list(seated) if seated else await self._probe(group)
            if len(found) != 1:
                raise RuntimeError(f"the probe of group {group} has found {found} instead of one GPU")
            known = str(found[0])
            await self._tables.kv_put(f"device:{group}", known)
        return int(known)

    async def _probe(self, group: str) -> list[int]:
        strategy = PlacementGroupSchedulingStrategy(handle(group), 0)
        task = ray.remote(num_cpus=0, num_gpus=1, max_retries=0, max_calls=1)(probe.devices)
        task = task.options(name="heliostat-probe", scheduling_strategy=strategy)
        found: list[int] = await asyncio.wait_for(task.remote(), PROBE_S)
        return found

    # ---- clearing up -------------------------------------------------------------------------------------------------

    async def _lose(self, node: str) -> None:
        groups = [*self.groups_of(node), *self._pending.pop(node, {}).values()]
        self.refs = {slot: ref for slot, ref in self.refs.items() if ref.node != node}
        self._lent = {slot: place for slot, place in self._lent.items() if place[0] != node}
        del self.nodes[node]
        for group in groups:
            await self._tables.remove_group(group)

    async def _sweep_dead(self, groups: dict[str, GroupRow], alive: dict[str, NodeRow]) -> None:
        """Groups of nodes that died while nobody watched."""
        prefixes = {SLOT_PREFIX + node[:12] for node in alive}
        for name, row in groups.items():
            if name.rpartition("/")[0] not in prefixes:
                await self._tables.remove_group(row.id)

    async def _groups(self) -> dict[str, GroupRow]:
        return {row.name: row for row in await self._tables.groups() if row.name.startswith(SLOT_PREFIX)}


def handle(group: str) -> PlacementGroup:
    """Ray's handle of a group by its id."""
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group)))


def _name(node: str, ordinal: int) -> str:
    return f"{SLOT_PREFIX}{node[:12]}/{ordinal}"


def _gpus(row: NodeRow) -> int:
    return int(row.resources.get("GPU", 0))


def _totals(row: NodeRow) -> tuple[int, int]:
    return round(row.resources.get("CPU", 0) * 1000), int(row.resources.get("memory", 0))
