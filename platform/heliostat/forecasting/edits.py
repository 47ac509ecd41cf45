"""What people ask of a what-if, as the JSON of POST /api/v1/whatif, into the engine's events."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from heliostat_scheduler.core import codec
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import Event, IllegalEvent
from heliostat_scheduler.core.model import JobSpec, Policy
from heliostat_scheduler.forecast import whatif
from heliostat_scheduler.forecast.whatif import BadEdit

QUOTA = re.compile(r"^(?P<queue>[^=]+)=(?P<gpus>\d+(?:\.\d+)?)(?::(?P<flavor>[\w.-]+))?$")
NODES = re.compile(r"^\+?(?P<count>\d+)x(?P<flavor>[A-Za-z][\w.-]*)(?::(?P<gpus>\d+))?$")
DEFAULT_GPUS = 8


def events_of(engine: Engine, asked: dict[str, Any], flavors: tuple[str, ...]) -> list[Event]:  # Any: JSON
    """All edits of one question, in a fixed order: queues and policy, nodes, cancellations, the new job."""
    found: list[Event] = []
    if asked.get("queues"):
        found += _queues(engine, str(asked["queues"]), flavors)
    quotas = [str(text) for text in asked.get("quota") or ()]
    if quotas:
        coming = {match["flavor"] for text in asked.get("nodes") or () if (match := NODES.match(str(text)))}
        found += _quotas(engine, found, quotas, {*flavors, *coming})
    if asked.get("policy"):
        found += whatif.set_policy(_policy(engine, dict(asked["policy"])))
    for text in asked.get("nodes") or ():
        found += _nodes(engine, str(text))
    for job_id in asked.get("cancel") or ():
        found += whatif.cancel(engine, str(job_id))
    if asked.get("job"):
        found += whatif.submit(engine, codec.decode(JobSpec, asked["job"]))
    if not found:
        raise BadEdit("nothing to change was named: quota, queues, policy, nodes, cancel or job")
    return found


def _queues(engine: Engine, text: str, flavors: tuple[str, ...]) -> list[Event]:
    """Another queue file, if it can be used and has a place for every job."""
    from heliostat.queuefile import BadQueueFile, parse  # YAML: only where a file came along

    try:
        events = whatif.set_queues(parse(text).to_core(flavors))
        engine.branch().apply(events[0], engine.state.now_ms)
    except (BadQueueFile, IllegalEvent) as error:
        raise BadEdit(f"the queue file cannot be used: {error}") from error
    return events


def _quotas(engine: Engine, before: list[Event], texts: list[str], flavors: set[str]) -> list[Event]:
    """Several quotas are one change of the queues; behind a new queue file they change that. flavors: of nodes, also of those to come."""
    copy = engine.fork() if len(texts) > 1 or before else engine
    for event in before:
        copy.apply(event, engine.state.now_ms)
    events: list[Event] = []
    for text in texts:
        match = QUOTA.match(text)
        if match is None:
            raise BadEdit(f"quota {text}: write QUEUE=GPUS or QUEUE=GPUS:FLAVOR")
        if match["flavor"] and match["flavor"] not in flavors:
            raise BadEdit(f"quota {text}: no node has this flavor; flavors: {', '.join(sorted(flavors))}")
        events = whatif.set_quota(copy, match["queue"], float(match["gpus"]), match["flavor"] or "")
        if copy is not engine:
            copy.apply(events[0], engine.state.now_ms)
    return events


def _nodes(engine: Engine, text: str) -> list[Event]:
    match = NODES.match(text)
    if match is None:
        raise BadEdit(f"nodes {text}: write +COUNTxFLAVOR:GPUS, for example +2xh200:8")
    count = int(match["count"])
    if count > 1_000:
        raise BadEdit(f"nodes {text}: at most 1,000")
    return whatif.add_nodes(engine, count, match["flavor"], int(match["gpus"] or DEFAULT_GPUS))


def doubts(engine: Engine, asked: dict[str, Any]) -> list[str]:  # Any: JSON
    """Nodes of a flavor that nobody has today are a fair idea, but perhaps a slip: who could use them."""
    state = engine.state
    known = {rec.spec.flavor for rec in state.book.nodes.values()} | set(state.node_pools)
    told = []
    for text in asked.get("nodes") or ():
        match = NODES.match(str(text))
        if match is None or match["flavor"] in known:
            continue
        waiting = [state.book.jobs[job_id].spec for job_id in state.waiting.keys]
        may = sum(not spec.flavors or match["flavor"] in spec.flavors for spec in waiting)
        naming = sum(match["flavor"] in spec.flavors for spec in waiting)
        use = f"{may} of {len(waiting)} waiting jobs may use it, {naming} ask for it by name"
        told.append(
            f"nodes {text}: no node has flavor {match['flavor']} today; {use if may else 'no waiting job asks for it'}"
        )
    return told


def _yaml(value: object) -> str:
    """As somebody would write it in the file."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _policy(engine: Engine, asked: dict[str, Any]) -> Policy:  # Any: JSON
    """The policy in force with the named fields changed."""
    known = {field.name: getattr(engine.state.policy, field.name) for field in fields(Policy)}
    for name, value in asked.items():
        if name not in known or name == "extra":
            raise BadEdit(f"the policy has no field {name}; fields: {', '.join(sorted(set(known) - {'extra'}))}")
        if type(value) is not type(known[name]):
            raise BadEdit(f"policy field {name} must be like {_yaml(known[name])}, not {_yaml(value)}")
    return replace(engine.state.policy, **asked)
