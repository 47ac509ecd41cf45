"""Leftover capacity to elastic jobs.

Jobs that start in this cycle may start larger; running elastic jobs may grow, at most once per interval. One valid size step at a
time goes to the job with the best claim: a queue within its entitlement first, then the larger priority-weighted marginal goodput,
then the smaller job, then the older. A queue that is within its entitlement may also take back elastic surplus that others borrowed.
What could not be taken back (work that may not be stopped) leaves alone what is kept for a job that waits, as when it starts.
"""

from __future__ import annotations

import heapq

from heliostat_scheduler.core.admission import Admission
from heliostat_scheduler.core.balance import age, balanced
from heliostat_scheduler.core.book import JobRec, Phase, core_tasks, reason, task_amounts
from heliostat_scheduler.core.cycle import Cycle, valid_sizes
from heliostat_scheduler.core.harm import within
from heliostat_scheduler.core.judge import rule_reason, user_reason
from heliostat_scheduler.core.model import Policy
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.reasons import ReasonCode
from heliostat_scheduler.core.recovery import Search
from heliostat_scheduler.core.reservation import Reservations

GainKey = tuple[bool, int, int, int, int, str]


def complete_gangs(admission: Admission) -> None:
    """A running gang that fell under its minimum is completed with the rights of a waiting job."""
    cycle = admission.cycle
    book = cycle.state.book
    jobs = [book.jobs[job_id] for job_id in cycle.state.attention if job_id in book.jobs]
    for rec in sorted(jobs, key=age):
        if rec.phase is not Phase.RUNNING or rec.claim or len(rec.places) >= rec.spec.min_tasks:
            continue
        count = rec.spec.min_tasks - len(rec.places)
        if not _extend(cycle, rec, count) and _take_from_others(admission, rec, count, evict=True, own=True):
            cycle.progressed = True


def grow(admission: Admission) -> None:
    """Hand out what is left, step by step, then let entitled jobs take back borrowed surplus."""
    cycle = admission.cycle
    if not cycle.state.policy.grow:
        return
    book = cycle.state.book
    reservations = Reservations(cycle.state, cycle.now_ms)
    heap = [_gain(cycle, book.jobs[job_id]) for job_id in _growable(cycle)]
    heapq.heapify(heap)
    while heap:
        rec = book.jobs[heap[0][-1]]
        key = _gain(cycle, rec)
        if key != heap[0]:
            heapq.heapreplace(heap, key)
            continue
        step = next_step(rec)
        if step is None or not _extend(cycle, rec, step, reservations):
            heapq.heappop(heap)
    for job_id in _growable(cycle):
        rec = book.jobs[job_id]
        step = next_step(rec)
        if step is None or rec.id in cycle.started or rec.id in cycle.grown or cycle.budget <= 0:
            continue
        need = task_amounts(rec.spec, rec.flavor, step)
        leaf = book.leaf_of(rec)
        if within(leaf.chain, need, quota=False) or within(leaf.chain, need, quota=True):
            _take_from_others(admission, rec, step, evict=within(leaf.chain, need, quota=True))


def next_step(rec: JobRec) -> int | None:
    """How many tasks the next larger valid size needs."""
    larger = [size for size in valid_sizes(rec) if size > len(rec.places)]
    return min(larger) - len(rec.places) if larger else None


def growth_due(rec: JobRec, policy: Policy) -> int:
    """When it may grow again after a resize; 0 at any time. What restarts nothing (replicas that serve) needs no interval."""
    return rec.resized_at + policy.resize_interval_ms if rec.resized_at and rec.spec.restart_cost_ms else 0


def _growable(cycle: Cycle) -> list[str]:
    state = cycle.state
    found = [
        job_id
        for job_id in cycle.started
        if state.book.jobs[job_id].spec.max_tasks > len(state.book.jobs[job_id].places)
        and not balanced(state.book.jobs[job_id])
    ]
    for job_id in sorted(state.elastic):
        rec = state.book.jobs[job_id]
        if rec.phase is not Phase.RUNNING or rec.claim or rec.cancel or len(rec.places) >= rec.spec.max_tasks:
            continue
        if balanced(rec):
            continue
        due = growth_due(rec, state.policy)
        if due > cycle.now_ms:
            cycle.recheck.append(due)
        else:
            found.append(job_id)
    return sorted(found, key=lambda job_id: age(state.book.jobs[job_id]))


def _gain(cycle: Cycle, rec: JobRec) -> GainKey:
    """Smaller is better: within entitlement, marginal goodput times class per device, size relative to the minimum."""
    step = next_step(rec) or 1
    book = cycle.state.book
    need = task_amounts(rec.spec, rec.flavor, step)
    over = not within(book.leaf_of(rec).chain, need, quota=False)
    table = dict(rec.goodput)
    tasks = len(rec.places)
    base, more = table.get(tasks), table.get(tasks + step)
    marginal = (more - base) // step if base is not None and more is not None else 0
    return (over, -marginal * rec.spec.priority, -rec.spec.priority, tasks, *age(rec))


def _extend(cycle: Cycle, rec: JobRec, step: int, reservations: Reservations | None = None) -> bool:
    """`step` more tasks from free capacity, if the queues allow it and none of it is reserved."""
    state, spec = cycle.state, rec.spec
    book = state.book
    leaf = book.leaf_of(rec)
    need = task_amounts(spec, rec.flavor, step)
    core = task_amounts(spec, rec.flavor, core_tasks(spec, len(rec.places) + step) - core_tasks(spec, len(rec.places)))
    if rule_reason(state, leaf, spec, need, core) is not None:
        return False
    if book.tree.limit_gap(leaf, need, "used") or book.tree.lending_gap(leaf, need, "used", book.capacity):
        return False
    near = frozenset(place.node for place in rec.places)
    flavors = (rec.flavor,) if spec.shape.gpu_milli else spec.flavors
    places = find(book.now, spec.shape, step, flavors, spec.spread, near)
    if places is None:
        return False
    held_back = reservations.stands_in_the_way(rec, rec.flavor, places) if reservations and core else None
    if held_back is not None:
        cycle.recheck += [] if held_back.until_ms is None else [held_back.until_ms]
        return False
    facts = (("tasks", len(rec.places) + step), ("from", len(rec.places)))
    cycle.enlarge(rec, places, reason(ReasonCode.GREW, *facts))
    return True


def _take_from_others(admission: Admission, rec: JobRec, count: int, evict: bool, own: bool = False) -> bool:
    cycle = admission.cycle
    state = cycle.state
    flavor = rec.flavor if rec.spec.shape.gpu_milli else ""
    wish = cycle.wish(rec, flavor, count, evict)
    if rule_reason(state, wish.leaf, rec.spec, (), wish.core) or user_reason(state, wish.leaf, rec.spec, wish.need):
        return False
    search = Search(state, wish, cycle.victims)
    search.own_surplus = own
    victims = search.run()
    cycle.budget -= search.spent
    if not victims:
        if search.affordable_at is not None:
            cycle.recheck.append(search.affordable_at)
        if search.protected:
            cycle.recheck.append(admission.protection.soonest)
        return False
    admission.promise_from(rec, wish, victims)
    return True
