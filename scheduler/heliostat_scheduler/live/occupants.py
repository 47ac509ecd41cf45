"""Who is in which group, according to Ray's own tables, and how they are made to leave.

A group is *free* when no actor holds or asks for its resources and its whole bundle shows as available. Where the bundle is in
use and no actor explains it, a plain task sits there: the raylet is asked which of its workers uses it, and that process is
killed on its node. Groups of dead nodes are free. Ray's tables lag by about 100 ms; a snapshot is shared for 50 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliostat_scheduler.live import probe
from heliostat_scheduler.live.protocol import SlotRef
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.tables import ActorRow, NodeRow, group_is_free

SNAPSHOT_S = 0.05
KILL_TASK_S = 20.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Ray's tables at one moment (`at`: monotonic seconds)."""

    at: float
    nodes: Mapping[str, NodeRow]
    actors: tuple[ActorRow, ...]
    available: Mapping[str, Mapping[str, float]]

    def in_group(self, group: str) -> list[ActorRow]:
        return [actor for actor in self.actors if group in actor.groups()]


@dataclass(frozen=True, slots=True)
class Place:
    """A group that must become free, on its node, and what its bundle holds."""

    group: str
    node: str
    holds: Mapping[str, float]

    @staticmethod
    def of_slot(ref: SlotRef) -> Place:
        holds = {"GPU": 1.0, "CPU": ref.cpu_milli / 1000, "memory": float(ref.memory_bytes)}
        return Place(ref.group, ref.node, holds)


@dataclass(frozen=True, slots=True)
class Occupant:
    """An actor (id) or, with id "", a worker process that runs a task (pid)."""

    group: str
    node: str
    actor: str = ""
    pid: int = 0
    what: str = ""


class Occupants:
    """Look and kill."""

    def __init__(self, tables: RayTables) -> None:
        self._tables = tables
        self._last: Snapshot | None = None
        self._lock = asyncio.Lock()

    async def snapshot(self, max_age_s: float = SNAPSHOT_S) -> Snapshot:
        async with self._lock:
            now = time.monotonic()
            if self._last is None or now - self._last.at > max_age_s:
                nodes, actors, available = await asyncio.gather(
                    self._tables.nodes(), self._tables.actors(), self._tables.available()
                )
                self._last = Snapshot(now, nodes, tuple(actors), available)
            return self._last

    async def of(self, places: Iterable[Place], snapshot: Snapshot | None = None) -> list[Occupant]:
        """Everybody in these groups; empty exactly when all of them are free."""
        seen = snapshot or await self.snapshot()
        found: list[Occupant] = []
        for place in places:
            if place.node not in seen.nodes:
                continue
            actors = seen.in_group(place.group)
            found += [
                Occupant(place.group, place.node, a.id, a.pid, f"actor {a.class_name} {a.name}".strip()) for a in actors
            ]
            if not actors and not group_is_free(place.group, place.holds, seen.available.get(place.node, {})):
                found += await self._workers(place, seen.nodes[place.node])
        return found

    async def _workers(self, place: Place, node: NodeRow) -> list[Occupant]:
        """The bundle is in use and no actor explains it: a task, or a table that lags behind (then an occupant without a process)."""
        workers = [
            w for w in await self._tables.workers(node.raylet) if any(key.endswith(place.group) for key in w.used)
        ]
        if not workers:
            return [Occupant(place.group, place.node, what="resources not returned yet")]
        return [Occupant(place.group, place.node, w.actor, w.pid, f"task in process {w.pid}") for w in workers]

    async def kill(self, occupants: Iterable[Occupant]) -> None:
        """Kill each once. Whether they left is seen in the next snapshot."""
        for occupant in occupants:
            if occupant.actor:
                await self._tables.kill_actor(occupant.actor)
            elif occupant.pid:
                await self._kill_task(occupant)

    async def end_driver(self, node: str, pid: int) -> bool:
        """SIGKILL a driver. False when it could not be ended."""
        return await self._reap(probe.kill_driver, node, pid)

    async def _kill_task(self, occupant: Occupant) -> None:
        await self._reap(probe.kill_worker, occupant.node, occupant.pid)

    async def _reap(self, kill: Callable[[int], bool], node: str, pid: int) -> bool:
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        task = ray.remote(kill).options(
            num_cpus=0, max_retries=0, name="heliostat-reaper", scheduling_strategy=strategy
        )
        try:
            return bool(await asyncio.wait_for(task.remote(pid), KILL_TASK_S))
        except (RayError, GetTimeoutError, TimeoutError):
            return False  # the node is going or has no room for a process: the next round looks again
