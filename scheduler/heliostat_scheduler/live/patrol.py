"""The rounds of the bridge: every second look for processes without a lease, for holders that died, and keep one worker warm.

A look costs a handful of small RPCs. Placement groups are listed only when something hints at a stranger: a slot in use that no
actor explains, or GPUs that are in no slot. The spare worker process (no job in it yet) makes the start of a command a matter of
milliseconds instead of a process start; Ray takes it for the next actor of the bridge and we ask for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import ray

from heliostat_scheduler.live.holders import Holders
from heliostat_scheduler.live.ledger import Ledger
from heliostat_scheduler.live.occupants import Occupants, Place, Snapshot
from heliostat_scheduler.live.protocol import Fact, Intruder, Note, SlotRef, SlotTrouble
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.slots import Slots
from heliostat_scheduler.live.strays import Strays
from heliostat_scheduler.live.tables import GroupRow, JobRow, group_is_free
from heliostat_scheduler.live.watchdog import Rounds, Suspect, suspects

WARM_EVERY_S = 30.0
WARM_AFTER_START_S = 2.0
WARM_KEEP_S = 24 * 3600
FORGET_JOBS = 10_000


class Patrol:
    def __init__(
        self,
        tables: RayTables,
        occupants: Occupants,
        slots: Slots,
        ledger: Ledger,
        holders: Holders,
        strays: Strays,
        out: Callable[[Fact], None],
    ) -> None:
        self._tables = tables
        self._occupants = occupants
        self._slots = slots
        self._ledger = ledger
        self._holders = holders
        self._strays = strays
        self._out = out
        self._jobs: dict[str, JobRow] = {}
        self._rounds = Rounds()
        self._task_rounds: dict[str, int] = {}
        self._warm_at = 0.0
        self._stuck: dict[str, int] = {}
        self.on_duty = False

    def warm_soon(self) -> None:
        """The spare worker was taken; ask for another once the command runs."""
        self._warm_at = time.monotonic() + WARM_AFTER_START_S

    async def round(self) -> None:
        """One look. Only after Hello: before it nobody knows who has a right."""
        await self._keep_warm()
        if not self.on_duty:
            return
        seen = await self._occupants.snapshot()
        await self._learn_jobs(seen)
        await self._holders.check(list(self._ledger.leases.values()), seen.actors)
        slots = {ref.group: ref for ref in self._slots.grouped()}
        groups = await self._tables.groups() if self._hint(seen, slots) else []
        found = suspects(seen.actors, groups, self._jobs, self._ledger.leases.values(), slots)
        for suspect in self._rounds.confirmed(found):
            await self._punish(suspect, seen, slots)
        await self._strays.refuse(seen)
        await self._tasks_in_free_slots(seen, slots)

    def _hint(self, seen: Snapshot, slots: dict[str, SlotRef]) -> bool:
        """Whether Ray's resources show a use that leases and actors do not explain."""
        if self._slots.missing():
            return True
        explained = {group for actor in seen.actors for group in actor.groups()}
        return any(group not in explained and not _is_free(ref, seen) for group, ref in slots.items())

    async def _learn_jobs(self, seen: Snapshot) -> None:
        wanted = {actor.job_id for actor in seen.actors if actor.groups() or actor.asks_for_gpu()}
        for job in wanted - set(self._jobs):
            self._jobs[job] = await self._tables.job(job)
        if len(self._jobs) > FORGET_JOBS:
            self._jobs = {job: row for job, row in self._jobs.items() if job in wanted}

    async def _punish(self, suspect: Suspect, seen: Snapshot, slots: dict[str, SlotRef]) -> None:
        if suspect.what == "actor":
            await self._tables.kill_actor(suspect.id)
        else:
            await self._remove_strange_group(suspect, seen)
        if suspect.id not in self._rounds.reported:
            self._rounds.reported.add(suspect.id)
            fact = Intruder(suspect.what, suspect.id, suspect.node, suspect.slot, True, suspect.owner_job, suspect.text)
            self._out(fact)
            if suspect.what == "actor" and not suspect.slot:  # it took a GPU that is in no slot
                await self._strays.strike([actor.job_id for actor in seen.actors if actor.id == suspect.id], seen)
            return
        self._stuck[suspect.id] = self._stuck.get(suspect.id, 0) + 1
        if self._stuck[suspect.id] == 10 and suspect.slot:
            self._out(SlotTrouble(suspect.slot, False, f"{suspect.text}; it cannot be killed"))

    async def _remove_strange_group(self, suspect: Suspect, seen: Snapshot) -> None:
        """A stranger's group: its actors first, the group when nothing uses it any more."""
        actors = seen.in_group(suspect.id)
        for actor in actors:
            await self._tables.kill_actor(actor.id)
        if not actors:
            await self._tables.remove_group(suspect.id)

    async def _tasks_in_free_slots(self, seen: Snapshot, slots: dict[str, SlotRef]) -> None:
        """A plain task in a slot that nobody has leased: seen twice, its process is killed."""
        leased = {ref.group for lease in self._ledger.leases.values() for ref in lease.held}
        explained = {group for actor in seen.actors for group in actor.groups()}
        odd = [
            ref
            for group, ref in slots.items()
            if group not in leased and group not in explained and not _is_free(ref, seen)
        ]
        self._task_rounds = {ref.slot: self._task_rounds.get(ref.slot, 0) + 1 for ref in odd}
        for ref in odd:
            if self._task_rounds[ref.slot] < 2:
                continue
            left = [o for o in await self._occupants.of([Place.of_slot(ref)], seen) if o.pid and not o.actor]
            await self._occupants.kill(left)
            for occupant in left:
                text = f"a task sat in {ref.slot}, which nobody has leased"
                self._out(Intruder("task", str(occupant.pid), ref.node, ref.slot, True, "", text))

    async def _keep_warm(self) -> None:
        """Ask each node for one idle worker, if it has none."""
        if time.monotonic() < self._warm_at:
            return
        self._warm_at = time.monotonic() + WARM_EVERY_S
        job_id = ray.get_runtime_context().get_job_id()
        for node in self._slots.nodes.values():
            if self._slots.is_dropped(node.id):
                continue  # it may be let go
            try:
                workers = await self._tables.workers(node.raylet)
                if not any(w.executed == 0 and not w.actor and not w.driver and w.job_id == job_id for w in workers):
                    await self._tables.prestart_worker(node.raylet, job_id, WARM_KEEP_S)
            except grpc.RpcError as error:
                self._out(Note("warning", "worker_not_kept_warm", {"node": node.id, "error": str(error)[:200]}))


def strangers(groups: list[GroupRow], seen: Snapshot, ours: set[str]) -> list[str]:
    """Who holds GPUs outside of our slots, one sentence each."""
    found = [
        f"actor {actor.class_name} (Ray job {actor.job_id}) on node {actor.node[:12]} holds {actor.requires['GPU']:g} GPU"
        for actor in seen.actors
        if actor.state == "ALIVE" and not actor.group and actor.requires.get("GPU", 0) > 0
    ]
    found += [
        f"placement group {group.name or group.id} holds {sum(b.get('GPU', 0) for b in group.bundles):g} GPU"
        for group in groups
        if group.id not in ours and group.wants_gpu() and group.state == "CREATED"
    ]
    return found


def _is_free(ref: SlotRef, seen: Snapshot) -> bool:
    return group_is_free(ref.group, Place.of_slot(ref).holds, seen.available.get(ref.node, {}))
