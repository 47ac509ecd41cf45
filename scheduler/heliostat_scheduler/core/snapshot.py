"""The state as plain values and back. What can be computed from the rest is not written: indexes and accounts.

Which groups have been judged already, and with what reason, is written: the next cycle looks at the others only, and a restored engine has to
do the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from heliostat_scheduler.core.book import JobRec, NodeRec, Phase
from heliostat_scheduler.core.codec import decode, encode
from heliostat_scheduler.core.idle import IDLE
from heliostat_scheduler.core.job_events import watch
from heliostat_scheduler.core.model import (
    DemandKind,
    JobSpec,
    NodeComing,
    NodePool,
    NodeSpec,
    Policy,
    QueueSpec,
    TaskPlace,
)
from heliostat_scheduler.core.reasons import Reason
from heliostat_scheduler.core.state import State

FORMAT = 1
_DERIVED = frozenset({"counted", "at_nodes", "spec"})
_PLACES = frozenset({"places", "leaving", "claim"})
_FIELDS = tuple(field.name for field in fields(JobRec) if field.name not in _DERIVED)
_DEFAULTS = tuple(field.default for field in fields(JobRec) if field.name not in _DERIVED)
_values: Callable[[JobRec], tuple[Any, ...]] = attrgetter(*_FIELDS)  # Any: its fields


def job_record(rec: JobRec) -> dict[str, Any]:  # Any: JSON
    """One job; fields at their default are left out."""
    return {"spec": encode(rec.spec), **moving_record(rec)}


def moving_record(rec: JobRec) -> dict[str, Any]:  # Any: JSON
    """All but the specification."""
    rows = zip(_FIELDS, _values(rec), _DEFAULTS, strict=True)
    return {name: encode(value) for name, value, default in rows if value is not default and value != default}


def node_record(rec: NodeRec) -> dict[str, Any]:  # Any: JSON
    return {
        "spec": encode(rec.spec), "up": rec.up, "cordoned": rec.cordoned, "draining": rec.draining, "down_at": rec.down_at,
    }  # fmt: skip


def snapshot_state(state: State) -> dict[str, Any]:  # Any: JSON
    book = state.book
    return {
        "format": FORMAT,
        "policy": encode(state.policy),
        "queues": encode(book.tree.specs),
        "usage": {name: node.usage for name, node in sorted(book.tree.by_name.items()) if node.usage},
        "pull": {name: node.pull for name, node in sorted(book.tree.by_name.items()) if node.pull},
        "usage_at": state.usage_at,
        "users": [[*owner, used, state.user_steps.get(owner, 0)] for owner, used in sorted(state.user_usage.items())],
        "nodes": [node_record(book.nodes[node_id]) for node_id in sorted(book.nodes)],
        "blocked": book.blocked,
        "jobs": [job_record(book.jobs[job_id]) for job_id in sorted(book.jobs)],
        "failed": state.failed,
        "mix": encode(state.mix),
        **supply_record(state),
        "searched": _searched(state),
        "pending": _pending(state),
        "losses": {queue: list(loss) for queue, loss in sorted(state.losses.items())},
        "cycle": state.cycle,
        "now_ms": state.now_ms,
    }


def supply_record(state: State) -> dict[str, Any]:  # Any: JSON
    """Nodes that can be had and nodes that come; nothing where there are none."""
    pools, coming = tuple(state.node_pools.values()), state.coming
    return {name: encode(rows) for name, rows in (("pools", pools), ("coming", coming)) if rows}


def _searched(state: State) -> list[str]:
    """Groups whose search had its turn in an unfinished round, by their first job."""
    lines = state.waiting.lines.values()
    return sorted(
        group.head.job_id for line in lines for group in line.groups.values() if group.signature in state.searched
    )


def _pending(state: State) -> dict[str, Any]:  # Any: JSON
    """What the next cycle will look at, and when."""
    judged = []
    for line in state.waiting.lines.values():
        for group in line.groups.values():
            row = [group.fresh, group.signature in line.fresh, encode(group.reason)]
            if row != [True, True, None]:
                judged.append([group.head.job_id, *row])
    return {
        "stale": state.stale,
        "restructure": state.restructure,
        "recheck_at": state.recheck_at,
        "shares": encode(state.entitled_before),
        "timers": sorted([at_ms, job_id] for at_ms, job_id in set(state.timers)),
        "judged": sorted(judged, key=lambda row: str(row[0])),
    }


def _resume(state: State, pending: dict[str, Any]) -> None:  # Any: JSON
    state.refresh()
    state.stale, state.restructure, state.recheck_at = pending["stale"], pending["restructure"], pending["recheck_at"]
    state.entitled_before = tuple(tuple(row) for row in pending["shares"])
    state.timers = [(at_ms, job_id) for at_ms, job_id in pending["timers"]]
    for job_id, fresh, listed, why in pending["judged"]:
        group = state.waiting.group_of[job_id]
        group.fresh, group.answer = fresh, None if why is None else decode(Reason, why)
        if not listed:
            state.waiting.line(group.signature.queue).fresh.discard(group.signature)


def restore_state(data: dict[str, Any]) -> State:  # Any: JSON
    if data.get("format") != FORMAT:
        raise ValueError(f"snapshot of format {data.get('format')}, this engine reads {FORMAT}")
    queues = decode(tuple[QueueSpec, ...], data["queues"])
    state = State(decode(Policy, data["policy"]), queues)
    state.cycle, state.now_ms = data["cycle"], data["now_ms"]
    state.failed = dict(data["failed"])
    for name, usage in data["usage"].items():
        state.book.tree.by_name[name].usage = dict(usage)
    for name, pull in data.get("pull", {}).items():
        state.book.tree.by_name[name].pull = dict(pull)
    state.usage_at = data.get("usage_at", state.now_ms)
    for queue, user, used, step in data.get("users", ()):
        state.user_usage[(queue, user)] = used
        if step:
            state.user_steps[(queue, user)] = step
    state.losses = {queue: (lost, at_ms) for queue, (lost, at_ms) in data.get("losses", {}).items()}
    state.book.blocked = dict(data["blocked"])
    state.set_mix(decode(tuple[DemandKind, ...], data["mix"]))
    state.node_pools = {pool.flavor: pool for pool in decode(tuple[NodePool, ...], data.get("pools", []))}
    state.set_coming(decode(tuple[NodeComing, ...], data.get("coming", [])))
    for row in data["nodes"]:
        spec = decode(NodeSpec, row["spec"])
        state.book.put_node(spec)
        state.book.nodes[spec.id] = NodeRec(spec, row["up"], row["cordoned"], row["draining"], row["down_at"])
        state.book.refresh_node(spec.id)
        if not row["up"] and state.policy.forget_down_ms:
            heapq.heappush(state.timers, (row["down_at"] + state.policy.forget_down_ms, ""))
    for row in data["jobs"]:
        rec = _job(row)
        state.book.jobs[rec.id] = rec
        for other in rec.spec.dependencies:
            state.dependents.setdefault(other, set()).add(rec.id)
        if rec.spec.elastic:
            state.elastic.add(rec.id)
        if rec.idle_state == IDLE:
            state.idle.add(rec.id)
        _occupy(state, rec)
    for job_id in sorted(state.book.jobs):
        rec = state.book.jobs[job_id]
        state.settle(rec, state.now_ms)
        watch(state, rec)
    state.searched = {state.waiting.group_of[job_id].signature for job_id in data["searched"]}
    if "pending" in data:
        _resume(state, data["pending"])
    return state


def _job(row: dict[str, Any]) -> JobRec:  # Any: JSON
    rec = JobRec(decode(JobSpec, row["spec"]))
    for name, value in row.items():
        if name in _PLACES:
            value = decode(tuple[TaskPlace, ...], value)
        elif name == "phase":
            value = Phase(value)
        elif isinstance(value, list):
            value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
        if name != "spec":
            setattr(rec, name, value)
    return rec


def _occupy(state: State, rec: JobRec) -> None:
    shape = rec.spec.shape
    state.book.now.take((*rec.places, *rec.claim, *rec.leaving), shape)
    state.book.soon.take((*rec.places, *rec.claim), shape)
    state.book.account(rec)
