"""How many more nodes of which flavor the waiting jobs would use: the engine itself is asked, on a copy.

All nodes that can still be had join the copy at once, empty, and one cycle decides with everything switched off that takes from
others or grows what runs. The nodes on which waiting jobs start are the demand; so every rule of every queue, every class and every
gang counts as it will when the nodes are there, and a job that may not run for another reason asks for nothing. Only the
smallest size of a job asks. A job without GPUs asks for nodes without GPUs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from heliostat_scheduler.core.decisions import Start
from heliostat_scheduler.core.events import NodeUp
from heliostat_scheduler.core.model import NodeSpec, SlotSpec
from heliostat_scheduler.core.reasons import ReasonCode

if TYPE_CHECKING:
    from heliostat_scheduler.core.engine import Engine

PREFIX = "~"
"""Of the ids of nodes that are not there: behind every real id, so that a tie goes to a real node."""

CAPACITY = frozenset(
    {
        ReasonCode.INSUFFICIENT_FREE, ReasonCode.FRAGMENTED, ReasonCode.TOPOLOGY_UNSATISFIED, ReasonCode.GANG_INCOMPLETE,
        ReasonCode.NO_CAPACITY_YET, ReasonCode.FAIR_SHARE_EXCEEDED, ReasonCode.BELOW_PRIORITY, ReasonCode.RESERVED_FOR,
        ReasonCode.BACKFILL_TOO_LONG, ReasonCode.COOLDOWN, ReasonCode.PREEMPTION_DELAY,
    }
)  # fmt: skip
"""What more nodes could resolve."""


@dataclass(frozen=True, slots=True)
class NodeDemand:
    """nodes: flavor -> how many more. jobs: flavor -> who would start there. waited: flavors that somebody waits for."""

    nodes: dict[str, int] = field(default_factory=dict)
    jobs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    waited: frozenset[str] = frozenset()


def node_demand(engine: Engine, room: Mapping[str, int], now_ms: int) -> NodeDemand:
    """room: how many more nodes of each flavor may be there. The engine is not changed."""
    waited = waited_flavors(engine)
    wanted = sorted(flavor for flavor in waited if room.get(flavor, 0) > 0)
    if not wanted:
        return NodeDemand(waited=waited)
    copy = engine.fork()
    state = copy.state
    state.policy = replace(
        state.policy, reclaim=False, preempt=False, rotate=False, rotate_across=False, consolidate=False, grow=False
    )
    for flavor in wanted:
        for number in range(room[flavor]):
            copy.apply(NodeUp(imagined(state.node_pools[flavor].node, number)), now_ms)
    used: dict[str, set[str]] = {}
    jobs: dict[str, list[str]] = {}
    for start in copy.decide(now_ms).decisions:
        nodes = {place.node for place in start.places if place.node[0] == PREFIX} if isinstance(start, Start) else set()
        for flavor in sorted({state.book.nodes[node].spec.flavor for node in nodes}):
            used.setdefault(flavor, set()).update(n for n in nodes if state.book.nodes[n].spec.flavor == flavor)
            jobs.setdefault(flavor, []).append(start.job_id)
    return NodeDemand(
        {flavor: len(nodes) for flavor, nodes in sorted(used.items())},
        {flavor: tuple(ids) for flavor, ids in sorted(jobs.items())},
        waited,
    )


def waited_flavors(engine: Engine) -> frozenset[str]:
    """Flavors with a pool for which a job waits that may be tried, and that more nodes could start."""
    state = engine.state
    pools = {flavor: bool(pool.node.slots) for flavor, pool in state.node_pools.items()}
    found: set[str] = set()
    for line in state.waiting.lines.values():
        for group in line.groups.values():
            if pools.keys() <= found:
                break
            if group.reason is not None and group.reason.code in CAPACITY:
                accepted, gpus = group.spec.flavors, bool(group.spec.shape.gpu_milli)
                found |= {name for name, has in pools.items() if has == gpus and (not accepted or name in accepted)}
    return frozenset(found)


def imagined(node: NodeSpec, number: int) -> NodeSpec:
    """One of the nodes that can be had, as if it were there. One with GPUs gives nothing to jobs without."""
    name = f"{PREFIX}{node.flavor}/{number}"
    slots = tuple(SlotSpec(f"{name}/{slot.device}", slot.device) for slot in node.slots)
    bare = replace(node, id=name, slots=slots)
    return replace(bare, cpu_milli=0, memory_bytes=0) if slots and node.slot_cpu_milli else bare
