"""One life of the bridge: connect to Ray, introduce ourselves, then obey commands and make rounds until something ends it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import grpc
import ray

from heliostat_scheduler.live import protocol, ray_private
from heliostat_scheduler.live.board_link import Superseded
from heliostat_scheduler.live.executor import Executor
from heliostat_scheduler.live.occupants import Occupants
from heliostat_scheduler.live.patrol import strangers
from heliostat_scheduler.live.protocol import Fact, Note, ProtocolError, Ready
from heliostat_scheduler.live.ray_private import RayTables
from heliostat_scheduler.live.slots import Slots

GCS_PATIENCE_S = 15.0
ROUND_S = 1.0
LOST_RAY, SUPERSEDED = 4, 5
OURS = (protocol.SLOT_PREFIX, protocol.CPU_GROUP_PREFIX, protocol.WANTED_PREFIX)

NextLine = Callable[[], bytes]


async def serve(next_line: NextLine, out: Callable[[Fact], None], slot_cpu_milli: int, reserve_cpu_milli: int) -> int:
    """Until the end. Returns the exit code: 0 after Bye, LOST_RAY or SUPERSEDED."""
    ray_private.verify(ray.__version__)
    ray.init(address="auto", namespace=protocol.NAMESPACE, log_to_driver=False, logging_level="warning")
    address = ray.get_runtime_context().gcs_address
    tables = RayTables(address)
    home = await _introduce(tables, address, out)
    slots = Slots(tables, slot_cpu_milli=slot_cpu_milli, reserve_cpu_milli=reserve_cpu_milli)
    executor = Executor(tables, slots, home, out)
    await executor.look_at_nodes()
    work = [
        asyncio.create_task(_obey(next_line, executor, out)),
        asyncio.create_task(_rounds(executor.look_at_nodes, out)),
        asyncio.create_task(_rounds(executor.look_at_wishes, out)),
        asyncio.create_task(_rounds(executor.patrol.round, out)),
        asyncio.create_task(executor.ended.wait()),
    ]
    done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
    failure = executor.failure or next((task.exception() for task in done), None)
    if failure is None:
        return 0
    out(Note("error", "bridge_ends", {"error": f"{type(failure).__name__}: {failure}"[:1000]}))
    return SUPERSEDED if isinstance(failure, Superseded) else LOST_RAY


async def _introduce(tables: RayTables, address: str, out: Callable[[Fact], None]) -> str:
    """Say Ready. Returns the node where the lease board belongs."""
    seen = await Occupants(tables).snapshot()
    groups = await tables.groups()
    ours = {row.id for row in groups if row.name.startswith(OURS)}
    head = next((row.id for row in seen.nodes.values() if row.is_head), "")
    out(Ready(ray.__version__, address, os.getpid(), head, tuple(strangers(groups, seen, ours))))
    return head or str(ray.get_runtime_context().get_node_id())


async def _obey(next_line: NextLine, executor: Executor, out: Callable[[Fact], None]) -> None:
    while True:
        line = await asyncio.to_thread(next_line)
        try:
            message = protocol.decode(line)
        except ProtocolError as error:
            out(Note("error", "line_not_understood", {"error": str(error)}))
            continue
        if isinstance(message, protocol.Command):
            await executor.take(message)
        else:
            out(Note("error", "not_a_command", {"type": type(message).__name__}))


async def _rounds(look: Callable[[], Awaitable[None]], out: Callable[[Fact], None]) -> None:
    """Look every second. Raises when the GCS has not answered for too long."""
    silent_since: float | None = None
    while True:
        await asyncio.sleep(ROUND_S)
        try:
            await look()
        except (grpc.RpcError, TimeoutError) as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > GCS_PATIENCE_S:
                raise
            out(Note("warning", "round_failed", {"error": f"{type(error).__name__}: {error}"[:300]}))
            continue
        silent_since = None
