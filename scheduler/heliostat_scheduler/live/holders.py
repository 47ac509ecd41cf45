"""The bridge's side of command jobs: start their holders, pass signals on, notice holders that died, add up several nodes.

A holder's name is its attempt's, so a repeated start finds it. After a restart of the bridge Ray's own table of actors, the dead
ones included, says which attempts were begun: one whose holder is dead has ended (`lost`) and is never run twice; one that has no
holder at all was not begun, and may be started.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.board_link import BoardLink
from heliostat_scheduler.live.board_state import Said
from heliostat_scheduler.live.holder import Holder, HolderTask
from heliostat_scheduler.live.protocol import CommandSpec, Lease
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.slots import handle
from heliostat_scheduler.live.tables import HOLDER_PREFIX, ActorRow, holder_name, parse_holder

MISSED_ROUNDS = 2
SIBLING_GRACE_MS = 5_000
REST_AFTER_S = 1.0

Key = tuple[str, int]
"""(job, attempt)"""


class Holders:
    """What is known of the command attempts that were started."""

    def __init__(self, tables: RayTables, board: BoardLink) -> None:
        self._tables = tables
        self._board = board
        self._begun: set[Key] = set()
        self._missed: dict[Key, int] = {}
        self._ended: dict[Key, dict[int, dict[str, Any]]] = {}  # Any: JSON; by node rank
        self._exited: set[Key] = set()
        self._resting: set[asyncio.Task[None]] = set()

    async def recall(self, leases: list[Lease]) -> None:
        """After Hello: which of these attempts were started by an earlier bridge."""
        self._begun, self._exited, self._ended, self._missed = set(), set(), {}, {}
        commands = [lease for lease in leases if lease.kind == "command"]
        if commands:
            names = {actor.name for actor in await self._tables.actors()} | await self._tables.dead_names(HOLDER_PREFIX)
            attempts = {parsed[:2] for name in names if (parsed := parse_holder(name))}
            self._begun = {(lease.job, lease.attempt) for lease in commands} & attempts

    def has_exited(self, lease: Lease) -> bool:
        return (lease.job, lease.attempt) in self._exited

    async def start(self, lease: Lease, spec: CommandSpec) -> None:
        """Start the command once."""
        key = (lease.job, lease.attempt)
        if key in self._begun:
            return
        places = _places(lease)
        spans = sum(place.leads for place in places)
        if spans != max(1, spec.nodes):
            raise ValueError(f"{lease.job}: the lease spans {spans} nodes, the command is for {spec.nodes}")
        self._begun.add(key)
        await asyncio.to_thread(self._create, lease, spec, [place for place in places if place.leads])
        if rest := [place for place in places if not place.leads]:
            task = asyncio.create_task(self._create_rest(lease, spec, rest))
            self._resting.add(task)
            task.add_done_callback(self._resting.discard)

    async def signal(self, lease: Lease, grace_ms: int) -> None:
        """SIGTERM, then SIGKILL, to the children of this lease. No effect when they are gone."""
        for place in _places(lease):
            if place.leads and (holder := await asyncio.to_thread(_find, lease, place.name)) is not None:
                holder.signal.remote(grace_ms)

    def forget(self, lease: Lease) -> None:
        key = (lease.job, lease.attempt)
        for known in (self._begun, self._exited):
            known.discard(key)
        self._missed.pop(key, None)
        self._ended.pop(key, None)

    # ---- ends --------------------------------------------------------------------------------------------------------

    async def heard(self, said: Said, lease: Lease) -> bool:
        """Note the end of a child. True: this word is for the bridge alone."""
        key = (said.job, said.attempt)
        if said.what == protocol.EXITED:
            self._exited.add(key)
            return False
        word, _, rank = said.what.partition(".")
        if word != protocol.EXITED:
            return said.what == "rendezvous"
        ends = self._ended.setdefault(key, {})
        ends[int(rank)] = said.facts
        if said.facts["rc"] != 0 and len(ends) == 1:
            await self.signal(lease, SIBLING_GRACE_MS)
        if len(ends) == sum(place.leads for place in _places(lease)):
            worst = next((ends[rank] for rank in ends if ends[rank]["rc"] != 0), said.facts)
            facts = {**worst, "nodes": {str(rank): ends[rank]["rc"] for rank in sorted(ends)}}
            await self._board.say(lease.job, lease.secret, said.epoch, protocol.EXITED, facts)
        return True

    async def check(self, leases: list[Lease], actors: tuple[ActorRow, ...]) -> None:
        """Say `exited` for attempts whose holder is gone without a word."""
        alive = {actor.name for actor in actors if actor.namespace == protocol.NAMESPACE}
        for lease in leases:
            key = (lease.job, lease.attempt)
            if key not in self._begun or key in self._exited:
                continue
            spoken = self._ended.get(key, {})
            leads = [place for place in _places(lease) if place.leads and place.rank not in spoken]
            gone = [p for p in leads if holder_name(lease.job, lease.attempt, p.name) not in alive]
            if not gone:
                self._missed.pop(key, None)
                continue
            self._missed[key] = self._missed.get(key, 0) + 1
            if self._missed[key] >= MISSED_ROUNDS:
                await self._lost(lease, gone)

    async def _lost(self, lease: Lease, gone: list[_Place]) -> None:
        facts = {"rc": 137, "signal": 9, "lost": True, "signalled": False, "text": "its holder died"}
        single = sum(place.leads for place in _places(lease)) == 1
        for place in gone:
            word = protocol.EXITED if single else f"{protocol.EXITED}.{place.rank}"
            await self._board.say(lease.job, lease.secret, lease.epoch, word, facts)

    # ---- making ------------------------------------------------------------------------------------------------------

    async def _create_rest(self, lease: Lease, spec: CommandSpec, rest: list[_Place]) -> None:
        """The other slots are only sat in; that must not slow the command's own start down."""
        await asyncio.sleep(REST_AFTER_S)
        if (lease.job, lease.attempt) in self._begun - self._exited:
            await asyncio.to_thread(self._create, lease, spec, rest)

    def _create(self, lease: Lease, spec: CommandSpec, places: list[_Place]) -> None:
        nodes = sum(place.leads for place in _places(lease))
        for place in places:
            task = HolderTask(
                lease.job,
                lease.attempt,
                lease.epoch,
                lease.secret,
                spec if place.leads else CommandSpec(()),
                place.devices,
                place.rank,
                nodes,
                place.leads,
            )
            ray.remote(Holder).options(
                name=holder_name(lease.job, lease.attempt, place.name),
                namespace=protocol.NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                num_gpus=1 if place.devices else 0,
                max_restarts=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(handle(place.group), 0),
            ).remote(task)


@dataclass(frozen=True, slots=True)
class _Place:
    """One slot (or the CPU group) of a lease. leads: the first on its node, which runs the child. devices: all on that node."""

    name: str
    group: str
    rank: int
    leads: bool
    devices: tuple[int, ...]


def _places(lease: Lease) -> list[_Place]:
    if not lease.slots:
        return [_Place("cpu", lease.cpu_group, 0, True, ())]
    nodes = list(dict.fromkeys(ref.node for ref in lease.slots))
    devices = {node: tuple(ref.device for ref in lease.slots if ref.node == node) for node in nodes}
    first = {node: next(ref.slot for ref in lease.slots if ref.node == node) for node in nodes}
    return [
        _Place(ref.slot, ref.group, nodes.index(ref.node), ref.slot == first[ref.node], devices[ref.node])
        for ref in lease.slots
    ]


def _find(lease: Lease, place: str) -> Any | None:  # Any: an actor handle
    try:
        return ray.get_actor(holder_name(lease.job, lease.attempt, place), namespace=protocol.NAMESPACE)
    except (ValueError, RayActorError):
        return None
