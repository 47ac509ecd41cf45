"""Events about queues, policy, nodes and slots. Each handler checks first and raises `IllegalEvent` before it changes anything."""

from __future__ import annotations

import heapq

from heliostat_scheduler.core import events as e
from heliostat_scheduler.core.book import HOLDING, JobRec, NodeRec
from heliostat_scheduler.core.events import IllegalEvent
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.tree import BadQueues, QueueTree
from heliostat_scheduler.core.usage import advance


def queues_changed(state: State, event: e.QueuesChanged, _now_ms: int) -> None:
    try:
        tree = QueueTree(event.queues)
    except BadQueues as error:
        raise IllegalEvent(str(error)) from None
    for rec in state.book.jobs.values():
        if tree.leaf(rec.spec.queue) is None:
            raise IllegalEvent(f"queue {rec.spec.queue} still has jobs ({rec.id}): it must stay, as a leaf")
    state.replace_queues(tree)


def policy_changed(state: State, event: e.PolicyChanged, now_ms: int) -> None:
    advance(state, now_ms)
    waiting = [rec for rec in state.book.jobs.values() if rec.phase not in HOLDING]
    for rec in waiting:
        state.unsettle(rec)
    state.policy = event.policy
    for rec in waiting:
        state.settle(rec, now_ms)
    state.restructure = True


def node_up(state: State, event: e.NodeUp, _now_ms: int) -> None:
    node = event.node
    names = [slot.id for slot in node.slots]
    if len(set(names)) != len(names):
        raise IllegalEvent(f"node {node.id} names a slot twice")
    for name in names:
        other = state.book.slot_node(name)
        if other is not None and other != node.id:
            raise IllegalEvent(f"slot {name} belongs to node {other} already")
    state.book.put_node(node)
    for job_id in sorted(state.book.on_node.get(node.id, ())):
        job = state.book.jobs[job_id]
        if any(place.node == node.id and not set(place.slots) <= set(names) for place in job.places):
            lose(state, job)
    state.restructure = True


def _node(state: State, node_id: str) -> NodeRec:
    rec = state.book.nodes.get(node_id)
    if rec is None:
        raise IllegalEvent(f"node {node_id} is not known")
    return rec


def node_down(state: State, event: e.NodeDown, now_ms: int) -> None:
    rec = _node(state, event.node_id)
    rec.up, rec.down_at = False, now_ms
    for job_id in sorted(state.book.on_node.get(event.node_id, ())):
        job = state.book.jobs[job_id]
        if any(place.node == event.node_id for place in job.places):
            lose(state, job)
    state.book.refresh_node(event.node_id)
    if state.policy.forget_down_ms:
        heapq.heappush(state.timers, (now_ms + state.policy.forget_down_ms, ""))
    state.restructure = True


def lose(state: State, rec: JobRec) -> None:
    rec.lost = True
    state.attention.add(rec.id)
    state.book.touched.add(rec.id)


def node_cordoned(state: State, event: e.NodeCordoned, _now_ms: int) -> None:
    rec = _node(state, event.node_id)
    rec.cordoned, rec.draining = True, event.drain
    state.book.refresh_node(event.node_id)
    if event.drain:
        state.attention |= state.book.on_node.get(event.node_id, set())
    state.restructure = True


def node_uncordoned(state: State, event: e.NodeUncordoned, _now_ms: int) -> None:
    rec = _node(state, event.node_id)
    rec.cordoned = rec.draining = False
    state.book.refresh_node(event.node_id)
    state.restructure = True


def slot_blocked(state: State, event: e.SlotBlocked, _now_ms: int) -> None:
    node_id = state.book.slot_node(event.slot_id)
    if node_id is None:
        raise IllegalEvent(f"slot {event.slot_id} is not known")
    state.book.blocked[event.slot_id] = event.why
    state.book.refresh_node(node_id)
    state.restructure = True


def slot_unblocked(state: State, event: e.SlotUnblocked, _now_ms: int) -> None:
    node_id = state.book.slot_node(event.slot_id)
    if event.slot_id not in state.book.blocked:
        raise IllegalEvent(f"slot {event.slot_id} is not blocked")
    del state.book.blocked[event.slot_id]
    if node_id is not None:
        state.book.refresh_node(node_id)
    state.restructure = True


def pools_changed(state: State, event: e.PoolsChanged, _now_ms: int) -> None:
    flavors = [pool.flavor for pool in event.pools]
    if len(set(flavors)) != len(flavors):
        raise IllegalEvent("two pools of nodes have the same flavor")
    state.node_pools = {pool.flavor: pool for pool in sorted(event.pools, key=lambda pool: pool.flavor)}
    state.restructure = True


def nodes_coming(state: State, event: e.NodesComing, _now_ms: int) -> None:
    state.set_coming(event.coming)
