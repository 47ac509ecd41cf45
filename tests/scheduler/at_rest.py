"""What must hold once everything has settled: the third kind of `invariants`."""

from __future__ import annotations

from collections.abc import Callable

from heliostat_scheduler.core import JobSpec, Preemptibility, ReasonCode
from heliostat_scheduler.core.harm import safe_until

from tests.scheduler.books import (
    WHOLE,
    allowed,
    below_common,
    chain,
    domain,
    free_whole,
    guarantee,
    opened,
    planned,
    quota,
    specs_of,
)
from tests.scheduler.world import World


def guarantees_are_met(world: World) -> None:
    """Nobody within its queue's guarantee waits while another queue runs stoppable borrowed work on whole devices."""
    if not world.engine.state.policy.reclaim:
        return
    for flavor in world.flavors():
        plan = planned(world, flavor)
        for job_id in waiting(world):
            spec = world.specs[job_id]
            if spec.shape.gpu_milli == WHOLE and spec.min_tasks == 1 and _guaranteed(world, spec, plan, flavor):
                for other, places in world.target.items():
                    stoppable = world.flavor(places) == flavor and _may_be_stopped(world, other)
                    borrows = stoppable and _borrows(world, spec.queue, world.specs[other].queue, plan, flavor)
                    assert not borrows, f"S5: {job_id} waits, {other} borrows {flavor}"


def _may_be_stopped(world: World, job_id: str) -> bool:
    spec, rec = world.specs[job_id], world.engine.state.book.jobs[job_id]
    whole = spec.preemptibility is Preemptibility.PREEMPTIBLE and spec.shape.gpu_milli >= WHOLE
    on_open = {place.node for place in world.target[job_id]} & set(opened(world))
    late = safe_until(rec, world.engine.state.policy) <= world.now
    return world.runs(job_id) and whole and late and bool(on_open)


def _borrows(world: World, mine: str, theirs: str, plan: dict[str, int], flavor: str) -> bool:
    """Whether the other queue has more than its guarantee, at every level below what both have in common."""
    rows = [(plan.get(q, 0), guarantee(world, q, flavor), quota(specs_of(world)[q], flavor))
            for q in below_common(world, mine, theirs)[1]]  # fmt: skip
    return bool(rows) and all(has > kept > 0 or own == 0 < has for has, kept, own in rows)


def _guaranteed(world: World, spec: JobSpec, plan: dict[str, int], flavor: str) -> bool:
    need = spec.shape.gpu_milli * spec.min_tasks
    within = all(plan.get(q, 0) + need <= guarantee(world, q, flavor) for q in chain(world, spec.queue))
    return within and allowed(world, spec, flavor)


def waiting(world: World) -> list[str]:
    """Who waits and might be tried now."""
    parked = {ReasonCode.HELD, ReasonCode.BACKOFF, ReasonCode.DEPENDENCY_WAIT}
    reasons = {job_id: world.engine.reason(job_id) for job_id in world.specs}
    return [job_id for job_id, why in reasons.items() if why is not None and why.code not in parked]


def nobody_waits_who_fits(world: World) -> None:
    """Whole devices are free, no rule of a queue is in the way, nothing is reserved: then nobody waits for them."""
    lent = {key for spec in specs_of(world).values() for key, _ in spec.lending_limit}
    for job_id in waiting(world):
        spec, why = world.specs[job_id], world.engine.reason(job_id)
        assert why is not None
        reserved = why.code in (ReasonCode.RESERVED_FOR, ReasonCode.BACKFILL_TOO_LONG)
        core = spec.preemptibility is not Preemptibility.PREEMPTIBLE
        if reserved or core or spec.shape.gpu_milli < WHOLE:
            continue
        for flavor in set(world.flavors()) - lent:
            room = _room(world, spec, flavor) if allowed(world, spec, flavor) else 0
            assert room < spec.min_tasks, f"S11: {job_id} would fit {flavor} and waits: {why}"


def _room(world: World, spec: JobSpec, flavor: str) -> int:
    """Tasks that fit beside each other into one domain."""
    rooms: dict[str, int] = {}
    for name, count in free_whole(world, flavor).items():
        at = domain(world, name, spec.spread)
        rooms[at] = rooms.get(at, 0) + count * WHOLE // spec.shape.gpu_milli
    return max(rooms.values(), default=0)


REST: dict[str, Callable[[World], None]] = {"S5": guarantees_are_met, "S11": nobody_waits_who_fits}
