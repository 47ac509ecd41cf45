"""Sizes of elastic jobs that have learned goodput curves: one allocation for all of them, then as few orders as it takes.

Before the waiting jobs are looked at, target sizes are computed for all such jobs of a queue and flavor, running and waiting alike,
and those that should give tasks up are told to. Afterwards the ones that should grow take what is free, on as few nodes as
their size needs, moving as a whole where that is the only way (a resize restarts the job anyway), or small ones make room for them.
"""

from __future__ import annotations

from heliostat_scheduler.core.book import JobRec, Phase, core_tasks, reason, task_amounts, without
from heliostat_scheduler.core.cycle import Cycle, valid_sizes
from heliostat_scheduler.core.goodput import Elastic, target_sizes
from heliostat_scheduler.core.judge import rule_reason
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.placement import compact
from heliostat_scheduler.core.reasons import ReasonCode
from heliostat_scheduler.core.space import WHOLE, NodeSpace

VACATE_TRIES = 8
IDLE_SHARE = 20
"""A job that has nothing counts as this many times slower than with its minimum."""

Moves = list[tuple[JobRec, tuple[TaskPlace, ...]]]
"""Jobs and the places each goes to, all of its tasks."""


def balanced(rec: JobRec) -> bool:
    """Whether the job's size is decided here."""
    return rec.spec.elastic and bool(rec.goodput) and rec.spec.shape.gpu_milli >= WHOLE


def age(rec: JobRec) -> tuple[int, str]:
    """The older first: names decide only between jobs of one moment."""
    return rec.spec.submitted_at_ms, rec.id


def plan_sizes(cycle: Cycle) -> dict[str, int]:
    """Target sizes; jobs that are too large for theirs are shrunk at once."""
    if not cycle.state.policy.grow:
        return {}
    targets: dict[str, int] = {}
    for (queue, flavor), jobs in sorted(_groups(cycle).items()):
        gpu = jobs[0].spec.shape.gpu_milli
        if any(rec.spec.shape.gpu_milli != gpu for rec in jobs):
            continue
        free = max(0, cycle.state.book.now.free_milli.get(flavor, 0)) // gpu
        capacity = free + sum(len(rec.places) for rec in jobs)
        fair = _fair_share(cycle, queue, flavor, free)
        targets |= target_sizes([_elastic(cycle, rec) for rec in jobs], capacity, fair)
    for job_id in targets:
        rec = cycle.state.book.jobs[job_id]
        drop = len(rec.places) - targets[job_id]
        if drop > 0 and targets[job_id]:
            facts = (("from", len(rec.places)), ("tasks", targets[job_id]), ("why", "goodput"))
            cycle.shrink(rec, _least_useful(rec, drop), reason(ReasonCode.SHRUNK_FOR, *facts))
    return targets


def grow_to(cycle: Cycle, targets: dict[str, int]) -> None:
    """Give the jobs that should grow what is free now."""
    book = cycle.state.book
    jobs = [book.jobs[job_id] for job_id in targets]
    for rec in sorted(jobs, key=lambda rec: (-targets[rec.id], age(rec))):
        if rec.phase is not Phase.RUNNING or rec.claim or rec.leaving or not rec.places:
            continue
        sizes = [size for size in valid_sizes(rec) if len(rec.places) < size <= targets[rec.id]]
        sizes = [size for size in sorted(sizes, reverse=True) if _allowed(cycle, rec, size)]
        if not any(_resize_to(cycle, rec, size) for size in sizes):
            any(_vacate(cycle, rec, size) for size in sizes)


def _groups(cycle: Cycle) -> dict[tuple[str, str], list[JobRec]]:
    state = cycle.state
    groups: dict[tuple[str, str], list[JobRec]] = {}
    flavors = tuple(sorted(state.book.now.by_whole))
    for rec in sorted((state.book.jobs[job_id] for job_id in state.elastic), key=age):
        if not balanced(rec) or rec.cancel or rec.claim or rec.leaving or rec.id in cycle.grown:
            continue
        if rec.phase is Phase.RUNNING:
            due = _due(cycle, rec)
            if due > cycle.now_ms:
                cycle.recheck.append(due)
                continue
            if len(rec.places) not in dict(rec.goodput):
                continue
        elif rec.id not in state.waiting.group_of:
            continue
        flavor = rec.flavor or (rec.spec.flavors or flavors or ("",))[0]
        groups.setdefault((rec.spec.queue, flavor), []).append(rec)
    return groups


def _due(cycle: Cycle, rec: JobRec) -> int:
    """When it may be resized or moved again."""
    return rec.resized_at + cycle.state.policy.resize_interval_ms if rec.resized_at else 0


def _fair_share(cycle: Cycle, queue: str, flavor: str, free: int) -> int:
    """Tasks per balanced job of the queue, counting also those that must not be changed just now."""
    jobs = [cycle.state.book.jobs[job_id] for job_id in sorted(cycle.state.elastic)]
    mine = [rec for rec in jobs if rec.spec.queue == queue and balanced(rec) and rec.flavor in ("", flavor)]
    held = sum(len(rec.places) + len(rec.claim) for rec in mine)
    return max(1, -(-(free + held) // max(1, len(mine))))


def _elastic(cycle: Cycle, rec: JobRec) -> Elastic:
    sizes = set(valid_sizes(rec)) | {len(rec.places)}
    table = tuple((size, goodput) for size, goodput in sorted(rec.goodput) if size in sizes)
    if not rec.places:
        table = ((0, max(1, rec.goodput[0][1] // IDLE_SHARE)), *(row for row in table if row[0] == rec.spec.min_tasks))
    horizon = cycle.state.policy.resize_horizon_ms
    keep = max(100, 1000 * (horizon - rec.spec.restart_cost_ms) // horizon)
    return Elastic(rec.id, len(rec.places), table, rec.done_milli, keep, rec.spec.priority)


def _vacate(cycle: Cycle, rec: JobRec, size: int) -> bool:
    """Free capacity exists but lies scattered: make room for `size` tasks by moving small balanced jobs off one node to others.

    The node may be one that `rec` has tasks on already. Where the fewest devices have to move comes first. The room is there once
    they have left; `rec` takes it in the cycle after. Nobody moves if `rec` would not fit then.
    """
    book = cycle.state.book
    per_task = rec.spec.shape.gpu_milli // WHOLE
    nodes = [node for node in book.now.nodes.values() if node.opened and node.flavor == rec.flavor]
    short: list[tuple[int, str, NodeSpace]] = []
    for node in nodes:
        here = sum(place.node == node.id for place in rec.places)
        lacking = per_task * (min(size, len(node.slots) // per_task) - here) - node.whole
        if lacking > 0 and (node.whole or here):
            short.append((lacking, node.id, node))
    partial = [node for node in nodes if 0 < node.whole < len(node.slots)]
    for lacking, _, node in sorted(short)[:VACATE_TRIES]:
        moves = _moves_off(cycle, node.id, lacking, rec, [other for other in partial if other is not node])
        if not moves or not _fits_after(cycle, moves, rec, size):
            continue
        for mover, places in moves:
            if not _room_while_moving(cycle, mover, len(places)):
                break
            book.leave(mover, mover.places)
            facts = (("for", rec.id), ("lost_ms", mover.spec.restart_cost_ms))
            cycle.enlarge(mover, places, reason(ReasonCode.MIGRATED_FOR, *facts, blockers=[rec.id]))
        return True
    return False


def _fits_after(cycle: Cycle, moves: Moves, rec: JobRec, size: int) -> bool:
    space = cycle.state.book.now
    for mover, places in moves:
        space.give(mover.places, mover.spec.shape)
        space.take(places, mover.spec.shape)
    fits = _places_for(cycle, rec, size) is not None
    for mover, places in reversed(moves):
        space.give(places, mover.spec.shape)
        space.take(mover.places, mover.spec.shape)
    return fits


def _moves_off(cycle: Cycle, node_id: str, lacking: int, rec: JobRec, others: list[NodeSpace]) -> Moves:
    """Which jobs leave the node so that `lacking` more of its devices become free, and where to; nothing when that cannot be."""
    book = cycle.state.book
    slots = {node.id: [s for s, free in zip(node.slots, node.free, strict=True) if free >= WHOLE] for node in others}
    moves = []
    for mover in _leavers(cycle, node_id, lacking, rec):
        per_task = mover.spec.shape.gpu_milli // WHOLE
        need = per_task * len(mover.places)
        fitting = [
            name
            for name, free in slots.items()
            if len(free) >= need and book.now.nodes[name].room(mover.spec.shape) >= len(mover.places)
        ]
        if not fitting:
            return []
        name = min(fitting, key=lambda name: (len(slots[name]), name))
        taken, slots[name] = slots[name][:need], slots[name][need:]
        places = tuple(TaskPlace(name, tuple(taken[i : i + per_task])) for i in range(0, need, per_task))
        moves.append((mover, places))
    return moves


def _leavers(cycle: Cycle, node_id: str, lacking: int, rec: JobRec) -> list[JobRec]:
    """Jobs of the node that hold `lacking` devices together, the largest first: no more has to move than is gained."""
    book = cycle.state.book
    movable: list[tuple[int, JobRec]] = []
    for job_id in sorted(book.on_node.get(node_id, ())):
        mover = book.jobs[job_id]
        steady = mover.phase is Phase.RUNNING and not (mover.claim or mover.leaving) and mover.id not in cycle.grown
        if mover is rec or not steady or not balanced(mover) or _due(cycle, mover) > cycle.now_ms:
            continue
        if all(place.node == node_id for place in mover.places):
            movable.append((len(mover.places) * (mover.spec.shape.gpu_milli // WHOLE), mover))
    chosen: list[JobRec] = []
    for devices, mover in sorted(movable, key=lambda item: (-item[0], age(item[1]))):
        if devices <= lacking:
            chosen.append(mover)
            lacking -= devices
    return [] if lacking else chosen


def _least_useful(rec: JobRec, count: int) -> list[TaskPlace]:
    """Places to give up: those on the nodes with the fewest tasks of the job, so that it stays compact."""
    counts: dict[str, int] = {}
    for place in rec.places:
        counts[place.node] = counts.get(place.node, 0) + 1
    order = sorted(range(len(rec.places)), key=lambda i: (counts[rec.places[i].node], rec.places[i].node, -i))
    return [rec.places[i] for i in order[:count]]


def _room_while_moving(cycle: Cycle, rec: JobRec, tasks: int) -> bool:
    """Whether limits and lending limits hold while the job has these new places and those it leaves."""
    book = cycle.state.book
    leaf, need = book.leaf_of(rec), task_amounts(rec.spec, rec.flavor, tasks)
    gap = book.tree.limit_gap(leaf, need, "used") or book.tree.lending_gap(leaf, need, "used", book.capacity)
    return gap is None


def _allowed(cycle: Cycle, rec: JobRec, size: int) -> bool:
    """Whether the rules and limits of its queue let the job hold `size` tasks."""
    spec, held = rec.spec, len(rec.places)
    need = task_amounts(spec, rec.flavor, size - held)
    core = task_amounts(spec, rec.flavor, core_tasks(spec, size) - core_tasks(spec, held))
    if rule_reason(cycle.state, cycle.state.book.leaf_of(rec), spec, need, core) is not None:
        return False
    return _room_while_moving(cycle, rec, size - held)


def _places_for(cycle: Cycle, rec: JobRec, size: int) -> tuple[TaskPlace, ...] | None:
    """Where the job could hold `size` tasks on as few nodes as that needs; its own places count as free."""
    space, old = cycle.state.book.now, rec.places
    space.give(old, rec.spec.shape)
    places = compact(space, rec.flavor, rec.spec.shape, size, old, rec.spec.spread)
    space.take(old, rec.spec.shape)
    if places is None or not _room_while_moving(cycle, rec, sum(place not in old for place in places)):
        return None
    return places


def _resize_to(cycle: Cycle, rec: JobRec, size: int) -> bool:
    """Hold `size` tasks on as few nodes as that needs; False when there is no such place."""
    old = rec.places
    places = _places_for(cycle, rec, size)
    if places is None:
        return False
    gone = tuple(place for place in old if place not in places)
    facts = (("tasks", size), ("from", len(old)))
    if gone:
        cycle.state.book.leave(rec, gone)
    cycle.enlarge(rec, without(places, [place for place in old if place in places]), reason(ReasonCode.GREW, *facts))
    return True
