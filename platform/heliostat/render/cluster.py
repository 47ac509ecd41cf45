"""Queues, nodes, events and tokens as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from heliostat.render.amounts import age, by_flavor, clock, count, parse_time, percent, seconds_between, size
from heliostat.render.table import table
from heliostat.wire.shapes import ClusterJson, EventJson, NodeJson, PoolJson, QueueJson, SlotJson, TokenJson

AMOUNTS: tuple[Literal["quota", "limit", "used", "borrowed", "entitled"], ...] = (
    "quota",
    "limit",
    "used",
    "borrowed",
    "entitled",
)
NUMBERS = frozenset({"QUOTA", "LIMIT", "USED", "BORROWED", "ENTITLED", "RUNNING", "WAITING", "GPUS"})


def queue_table(queues: Sequence[QueueJson], width: int = 0) -> str:
    """The tree, children indented below their parents. Memory is left to `helio queue show` and `--json`."""
    depth = _depths(queues)
    rows = [
        (
            "  " * depth.get(queue.get("name", ""), 0) + queue.get("name", "?"),
            *(_devices(queue.get(key)) for key in AMOUNTS),
            str(queue.get("running", 0)),
            str(queue.get("waiting", 0)),
        )
        for queue in queues
    ]
    head = ("QUEUE", "QUOTA", "LIMIT", "USED", "BORROWED", "ENTITLED", "RUNNING", "WAITING")
    return table(head, rows, right=NUMBERS, width=width)


def _devices(amounts: object) -> str:
    return by_flavor(
        {key: amount for key, amount in amounts.items() if key != "memory"} if isinstance(amounts, dict) else amounts
    )


def node_table(cluster: ClusterJson, now: datetime, width: int = 0) -> str:
    """One line per node with what runs on it, then one for the nodes of each flavor that are on their way."""
    rows = [_node(node, now) for node in cluster.get("nodes") or []]
    rows += [_wanted(pool, now) for pool in cluster.get("pools") or [] if pool.get("missing")]
    return table(("NODE", "IP", "FLAVOR", "STATE", "GPUS", "CPUS", "MEMORY", "JOBS"), rows, width=width)


def event_line(event: EventJson) -> str:
    """`19:04:10  JobQueued  job-01  queued -> admitted  by system: ...`."""
    at = parse_time(event.get("at"))
    parts = [clock(at) if at else "-", event.get("kind", "?"), event.get("job") or ""]
    if event.get("to"):
        parts.append(f"{event.get('from') or 'new'} -> {event['to']}")
    if event.get("actor"):
        parts.append(f"by {event['actor']}")
    sentence = (event.get("reason") or {}).get("sentence", "")
    line = "  ".join(part for part in parts if part) + (f": {sentence}" if sentence else "")
    return "".join(char if char.isprintable() else " " for char in line)


def token_table(tokens: Sequence[TokenJson], now: datetime) -> str:
    rows = [
        (
            token.get("id", "?"),
            token.get("name") or "-",
            token.get("role") or "-",
            token.get("project") or "-",
            _token_state(token, now),
            age(seconds_between(token.get("created_at"), now)),
            age(seconds_between(token.get("last_used_at"), now)),
        )
        for token in tokens
    ]
    return table(("TOKEN", "NAME", "ROLE", "PROJECT", "STATE", "AGE", "USED"), rows)


def _token_state(token: TokenJson, now: datetime) -> str:
    if token.get("revoked_at"):
        return "revoked"
    left = seconds_between(token.get("expires_at"), now)
    if left is None:
        return "valid"
    return "expired" if left >= 0 else f"valid, expires in {age(-left)}"


def pool_lines(cluster: ClusterJson) -> list[str]:
    """Each pool in a sentence: what is there, and how many there may be."""
    return [
        f"{pool.get('flavor', '?')}: {pool.get('nodes', 0)} of at most {pool.get('max', 0)} nodes"
        + (f", {pool['min']} kept" if pool.get("min") else "")
        + f"; one without work leaves after {age(pool.get('idle_s', 0))}"
        for pool in cluster.get("pools") or []
    ]


def _wanted(pool: PoolJson, now: datetime) -> tuple[str, ...]:
    """Nodes that are not there yet."""
    many, until = pool.get("missing", 0), seconds_between(pool.get("by"), now)
    left = age(max(0.0, -until)) if until is not None else "-"
    asked = age(seconds_between(pool.get("asked_at"), now))
    late = pool.get("late")
    told = f"did not come, try {pool.get('tries', 1)}; again in {left}" if late else f"asked {asked} ago, {left} to go"
    jobs = ", ".join(pool.get("jobs") or [])
    word = "late" if late else "joining"
    return (
        f"+{many}",
        "-",
        pool.get("flavor", "?"),
        word,
        f"-/{many * pool.get('gpus', 0)}",
        "-",
        "-",
        f"{told}: for {jobs or 'min'}",
    )


def _idle(node: NodeJson, now: datetime) -> str:
    since = seconds_between(node.get("idle_since"), now)
    return "-" if since is None else f"idle {age(since)}"


def _node(node: NodeJson, now: datetime) -> tuple[str, ...]:
    slots = node.get("slots") or []
    taken = [slot for slot in slots if slot.get("job")]
    return (
        node.get("id", "?")[:12],
        node.get("ip") or "-",
        node.get("flavor") or "-",
        node.get("state") or "-",
        f"{len(taken)}/{len(slots)}",
        count((node.get("cpu_milli") or 0) / 1000),
        size(node.get("memory_bytes") or 0),
        ", ".join(_slot(slot) for slot in taken) or _idle(node, now),
    )


def _slot(slot: SlotJson) -> str:
    busy = slot.get("utilization")
    return f"{slot.get('device', '?')}:{slot.get('job')}" + (f" {percent(busy)}" if busy is not None else "")


def _depths(queues: Sequence[QueueJson]) -> dict[str, int]:
    parents = {queue.get("name", ""): queue.get("parent") for queue in queues}
    depths: dict[str, int] = {}
    for name in parents:
        depth, above = 0, parents[name]
        while above in parents and depth <= len(parents):
            depth, above = depth + 1, parents[above]
        depths[name] = depth
    return depths
