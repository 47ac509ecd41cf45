"""`nodes:` of a queue file: which nodes can be had beside those that are there, and how many. The format: docs/autoscaling.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat_scheduler.core.model import CPU, MEMORY, NodePool, NodeSpec, SlotSpec
from heliostat_scheduler.live.capacity import share_out

from heliostat.queuefile.reading import Value, number

if TYPE_CHECKING:
    from heliostat.queuefile.check import Check

POOL_KEYS = ("gpus", "cpus", "memory", "max", "min", "idle", "join")
DURATION = re.compile(r"([0-9.]+)\s*(s|m|h)")
SECONDS = {"s": 1, "m": 60, "h": 3600}
DAY_MS = 24 * 3_600_000
MOST = 100_000


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes of one flavor: what each has, how many there may be, how long one is kept idle and may take to join."""

    flavor: str
    line: int = 1
    gpus: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    max_nodes: int = 0
    min_nodes: int = 0
    idle_ms: int = 600_000
    join_ms: int = 900_000

    def to_core(self) -> NodePool:
        """As the engine takes it: one node divided as the bridge will divide it."""
        shares = share_out(self.cpu_milli, self.memory_bytes, self.gpus)
        node = NodeSpec(
            id="",
            flavor=self.flavor,
            slots=tuple(SlotSpec(str(device), device) for device in range(self.gpus)),
            cpu_milli=shares.float_cpu_milli,
            memory_bytes=shares.float_memory_bytes,
            slot_cpu_milli=shares.slot_cpu_milli,
            slot_memory_bytes=shares.slot_memory_bytes,
        )
        return NodePool(node, self.max_nodes, self.min_nodes, self.idle_ms, self.join_ms)


def pool(check: Check, flavor: str, value: Value) -> Pool:
    """One entry; what is wrong is told to `check`."""
    found = {"gpus": 0, "cpu_milli": 0, "memory_bytes": 0, "max_nodes": 0, "min_nodes": 0}
    times = {"idle_ms": 600_000, "join_ms": 900_000}
    given = set()
    for key, item in check.entries(value, POOL_KEYS, f"nodes: {flavor}"):
        where = f"nodes: {flavor}: {key}"
        given.add(key)
        match key:
            case "gpus":
                found["gpus"] = check.whole(item, where, (0, 1_000))
            case "max" | "min":
                found[f"{key}_nodes"] = check.whole(item, where, (0, MOST))
            case "cpus":
                found["cpu_milli"] = check.amount(item, CPU, where)
            case "memory":
                found["memory_bytes"] = check.amount(item, MEMORY, where)
            case _:
                times[f"{key}_ms"] = _duration(check, item, where)
    if not {"cpus", "max"} <= given:
        check.wrong(
            value.line, f"nodes: {flavor}: say at least cpus and max (what one node has, and how many there may be)"
        )
    if found["min_nodes"] > found["max_nodes"]:
        check.wrong(value.line, f"nodes: {flavor}: min ({found['min_nodes']}) is above max ({found['max_nodes']})")
    return Pool(flavor, value.line, **found, **times)


def _duration(check: Check, value: Value, where: str) -> int:
    text = DURATION.fullmatch(value.scalar or "")
    seconds = number(text.group(1)) if text else None
    if text is None or seconds is None or not 1 <= seconds * SECONDS[text.group(2)] * 1000 <= DAY_MS:
        check.wrong(value.line, f"{where}: {value.kind()} is no time such as 30s, 10m or 1h (at most 24h)")
        return 1
    return int(seconds * SECONDS[text.group(2)] * 1000)
