"""Events about jobs: they come, change and go; what the executor answers about their leases; facts about running work.

Each handler checks first and raises `IllegalEvent` before it changes anything.
"""

from __future__ import annotations

import heapq

from heliostat_scheduler.core import events as e
from heliostat_scheduler.core.book import HOLDING, JobRec, Phase
from heliostat_scheduler.core.cluster_events import lose
from heliostat_scheduler.core.events import IllegalEvent
from heliostat_scheduler.core.idle import observe, reset
from heliostat_scheduler.core.lookups import check_spec, find_job, find_lease
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.reasons import ReasonCode
from heliostat_scheduler.core.state import State


def submitted(state: State, event: e.JobSubmitted, now_ms: int) -> None:
    if event.job.id in state.book.jobs:
        raise IllegalEvent(f"job {event.job.id} is known already")
    check_spec(state, event.job)
    phase = Phase.HELD if event.held else Phase.WAITING
    rec = JobRec(event.job, phase=phase, epoch=event.epoch, attempt=event.attempt)
    _adopt(state, rec)
    state.failed.update((other, outcome) for other, outcome in event.failed if other in event.job.dependencies)
    state.settle(rec, now_ms)
    state.book.touched.add(rec.id)


def _adopt(state: State, rec: JobRec) -> None:
    state.book.jobs[rec.id] = rec
    rec.user_step = state.user_steps.get((rec.spec.queue, rec.spec.user), 0)
    for other in rec.spec.dependencies:
        state.dependents.setdefault(other, set()).add(rec.id)
    if rec.spec.elastic:
        state.elastic.add(rec.id)


def restored(state: State, event: e.JobRestored, now_ms: int) -> None:
    spec = event.job
    if spec.id in state.book.jobs:
        raise IllegalEvent(f"job {spec.id} is known already")
    check_spec(state, spec)
    if not event.places:
        raise IllegalEvent(f"job {spec.id}: restored without places")
    rec = JobRec(spec, epoch=event.epoch, attempt=event.attempt, started_at=event.started_at_ms)
    flavors = sorted({state.book.nodes[p.node].spec.flavor for p in event.places if p.node in state.book.nodes})
    rec.phase = Phase.RUNNING if event.running else Phase.STARTING
    rec.running_at = event.started_at_ms if event.running else 0
    _adopt(state, rec)
    state.book.hold(rec, event.places + event.leaving, flavors[0] if flavors else "")
    if len(flavors) == 0 or any(
        p.node not in state.book.nodes or not state.book.nodes[p.node].up for p in event.places
    ):
        lose(state, rec)
    if event.leaving:
        state.book.leave(rec, event.leaving)
    if event.resizing and rec.phase is Phase.RUNNING:
        rec.phase = Phase.RESIZING
        rec.leave_by = now_ms + spec.grace_ms
        state.book.account(rec)
    if event.preempting or event.stopping:
        rec.phase = Phase.STOPPING if event.stopping else Phase.PREEMPTING
        rec.leave_by = now_ms + spec.grace_ms
        state.book.leave(rec, rec.places)
    _watch_size(state, rec, event.started_at_ms)
    state.stale = True


def _watch_size(state: State, rec: JobRec, since_ms: int) -> None:
    """A gang below its minimum or above its maximum needs attention."""
    if rec.phase not in (Phase.RUNNING, Phase.STARTING):
        return
    if len(rec.places) < rec.spec.min_tasks:
        rec.stale_since = since_ms
        state.attention.add(rec.id)
        heapq.heappush(state.timers, (since_ms + state.policy.stale_gang_ms, rec.id))
    elif rec.spec.elastic and len(rec.places) > rec.spec.max_tasks:
        state.attention.add(rec.id)


def watch(state: State, rec: JobRec) -> None:
    """After a restore: whatever about this job needs attention or a timer."""
    if rec.cancel or rec.lost or any(_draining(state, place.node) for place in rec.places):
        state.attention.add(rec.id)
    _watch_size(state, rec, rec.stale_since)
    if rec.behind:
        state.on_condition(rec, rec.behind, rec.behind_until)


def _draining(state: State, node_id: str) -> bool:
    node = state.book.nodes.get(node_id)
    return node is not None and node.draining


def changed(state: State, event: e.JobChanged, now_ms: int) -> None:
    rec = find_job(state, event.job.id)
    check_spec(state, event.job)
    new, old = event.job, rec.spec
    if rec.phase in HOLDING and (new.queue, new.shape, new.preemptibility) != (
        old.queue,
        old.shape,
        old.preemptibility,
    ):
        raise IllegalEvent(f"job {rec.id} is {rec.phase}: its queue, shape and preemptibility cannot change now")
    waiting = rec.phase not in HOLDING
    if waiting:
        if rec.claim:
            state.book.withdraw(rec)
        state.unsettle(rec)
    for other in old.dependencies:
        state.dependents.get(other, set()).discard(rec.id)
    rec.spec = new
    rec.user_step = state.user_steps.get((new.queue, new.user), 0)
    for other in new.dependencies:
        state.dependents.setdefault(other, set()).add(rec.id)
    (state.elastic.add if new.elastic else state.elastic.discard)(rec.id)
    state.book.account(rec)
    if waiting:
        state.settle(rec, now_ms)
    else:
        _watch_size(state, rec, now_ms)
    state.stale = True


def held(state: State, event: e.JobHeld, now_ms: int) -> None:
    rec = find_job(state, event.job_id)
    if rec.phase is not Phase.WAITING:
        raise IllegalEvent(f"job {rec.id} is {rec.phase}: only a queued job can be held")
    if rec.claim:
        state.book.withdraw(rec)
    state.part(rec)
    rec.phase = Phase.HELD
    state.settle(rec, now_ms)
    state.book.touched.add(rec.id)
    state.stale = True


def released(state: State, event: e.JobReleased, now_ms: int) -> None:
    rec = find_job(state, event.job_id)
    if rec.phase is not Phase.HELD:
        raise IllegalEvent(f"job {rec.id} is {rec.phase}, not held")
    rec.phase = Phase.WAITING
    state.settle(rec, now_ms)
    state.book.touched.add(rec.id)


def cancelled(state: State, event: e.JobCancelled, now_ms: int) -> None:
    _end_asked(state, event.job_id, ReasonCode.CANCEL_REQUESTED, "cancelled", now_ms)


def timed_out(state: State, event: e.JobTimedOut, now_ms: int) -> None:
    _end_asked(state, event.job_id, ReasonCode.TIME_LIMIT, "timed_out", now_ms)


def _end_asked(state: State, job_id: str, code: ReasonCode, outcome: str, now_ms: int) -> None:
    rec = find_job(state, job_id)
    if rec.phase in HOLDING:
        rec.cancel = rec.cancel or str(code)
        state.attention.add(job_id)
        state.book.touched.add(job_id)
        return
    _forget(state, rec, outcome, now_ms)


def _forget(state: State, rec: JobRec, outcome: str, now_ms: int) -> None:
    """The job is over. Jobs that waited for it may go on if it succeeded."""
    state.unsettle(rec)
    state.on_condition(rec, "", 0)
    state.conditions_end(rec.id)
    state.book.forget(rec)
    state.attention.discard(rec.id)
    state.elastic.discard(rec.id)
    state.idle.discard(rec.id)
    for other in rec.spec.dependencies:
        members = state.dependents.get(other, set())
        members.discard(rec.id)
        if not members:
            state.dependents.pop(other, None)
            state.failed.pop(other, None)
    waiting = sorted(state.dependents.get(rec.id, ()))
    if waiting and outcome != "succeeded":
        state.failed[rec.id] = outcome
    elif waiting:
        del state.dependents[rec.id]
    for job_id in waiting:
        dependent = state.book.jobs[job_id]
        if dependent.id not in state.waiting.group_of:
            state.settle(dependent, now_ms)
    state.stale = True


# -- leases


def started(state: State, event: e.JobStarted, now_ms: int) -> None:
    rec = find_lease(state, event, "JobStarted")
    if rec.phase is not Phase.STARTING:
        raise IllegalEvent(f"JobStarted: job {rec.id} is {rec.phase}, not starting")
    rec.phase = Phase.RUNNING
    rec.running_at = now_ms
    state.book.account(rec)
    if rec.spec.elastic:
        state.stale = True


def start_failed(state: State, event: e.JobStartFailed, now_ms: int) -> None:
    rec = find_lease(state, event, "JobStartFailed")
    if rec.running_at:
        raise IllegalEvent(f"JobStartFailed: job {rec.id} has started already")
    rec.retry_code = event.code
    _back_to_queue(state, rec, event.retry_at_ms, now_ms)


def requeued(state: State, event: e.JobRequeued, now_ms: int) -> None:
    rec = find_lease(state, event, "JobRequeued")
    rec.retry_code = event.why
    _back_to_queue(state, rec, event.retry_at_ms, now_ms)


def demand_found(state: State, event: e.DemandFound, now_ms: int) -> None:
    rec = find_lease(state, event, "DemandFound")
    if rec.phase not in (Phase.STARTING, Phase.RUNNING) or rec.cancel or event.job.queue != rec.spec.queue:
        raise IllegalEvent(f"DemandFound: job {rec.id} is {rec.phase} in queue {rec.spec.queue}")
    check_spec(state, event.job)
    rec.epoch += 1
    rec.retry_code = ""
    _back_to_queue(state, rec, 0, now_ms)
    changed(state, e.JobChanged(event.job), now_ms)


def _back_to_queue(state: State, rec: JobRec, retry_at_ms: int, now_ms: int) -> None:
    state.stale = True
    if rec.cancel:
        _forget(state, rec, "cancelled", now_ms)
        return
    if rec.claim and (rec.phase is not Phase.PREEMPTING or retry_at_ms > now_ms):
        state.book.withdraw(rec)
    rec.last_nodes = tuple(sorted({place.node for place in (*rec.places, *rec.leaving)}))
    rec.phase = Phase.WAITING
    state.book.release_all(rec)
    rec.flavor, rec.lost, rec.stale_since, rec.leave_by = "", False, 0, 0
    rec.running_at = rec.started_at = rec.checkpoint_at = rec.resized_at = 0
    rec.retry_at, rec.redeemed, rec.ends_at = retry_at_ms, False, 0
    reset(state, rec)
    state.attention.discard(rec.id)
    state.book.account(rec)
    state.settle(rec, now_ms)


def finished(state: State, event: e.JobFinished, now_ms: int) -> None:
    rec = find_lease(state, event, "JobFinished")
    if event.outcome not in ("succeeded", "failed", "cancelled", "timed_out"):
        raise IllegalEvent(f"JobFinished: {event.outcome!r} is not an outcome")
    _forget(state, rec, event.outcome, now_ms)


def _subset(places: tuple[TaskPlace, ...], held: tuple[TaskPlace, ...]) -> bool:
    left = list(held)
    for place in places:
        if place not in left:
            return False
        left.remove(place)
    return True


def resized(state: State, event: e.JobResized, now_ms: int) -> None:
    rec = find_lease(state, event, "JobResized")
    if rec.phase is not Phase.RESIZING:
        raise IllegalEvent(f"JobResized: job {rec.id} is {rec.phase}, not resizing")
    if not event.places or not _subset(event.places, rec.places + rec.leaving):
        raise IllegalEvent(f"JobResized: job {rec.id} does not hold these places")
    if _subset(event.places, rec.places) and len(event.places) == len(rec.places):
        state.book.release(rec, rec.leaving)
    else:
        state.book.settle_lease(rec, event.places)
    rec.phase = Phase.RUNNING
    rec.resized_at = now_ms
    reset(state, rec)
    state.book.account(rec)
    _watch_size(state, rec, now_ms)
    state.stale = True


def places_released(state: State, event: e.PlacesReleased, _now_ms: int) -> None:
    rec = find_lease(state, event, "PlacesReleased")
    if not _subset(event.places, rec.leaving):
        raise IllegalEvent(f"PlacesReleased: job {rec.id} was not told to leave these places")
    state.book.release(rec, event.places)
    state.stale = True


# -- facts about running work


def checkpointed(state: State, event: e.Checkpointed, _now_ms: int) -> None:
    rec = find_job(state, event.job_id)
    if rec.phase not in HOLDING:
        raise IllegalEvent(f"Checkpointed: job {rec.id} is {rec.phase}")
    rec.checkpoint_at = max(rec.checkpoint_at, event.at_ms)
    state.book.touched.add(rec.id)


def estimated(state: State, event: e.Estimated, now_ms: int) -> None:
    rec = find_job(state, event.job_id)
    if event.remaining_ms is not None:
        rec.remaining_ms = event.remaining_ms
        rec.ends_at = now_ms + event.remaining_ms if rec.phase in HOLDING else 0
    if event.goodput_milli:
        state.stale |= rec.goodput != event.goodput_milli
        rec.goodput = event.goodput_milli
    if event.done_milli is not None:
        rec.done_milli = event.done_milli
    state.book.touched.add(rec.id)
    if event.rank_ms is not None:
        _ranked(state, rec, event.rank_ms, now_ms)


def _ranked(state: State, rec: JobRec, rank_ms: int, now_ms: int) -> None:
    """Among equals the smaller expected remaining GPU time goes first; only a changed order makes a new look necessary."""
    shape = rec.spec.shape
    rank = rank_ms * max(1, (shape.gpu_milli or shape.cpu_milli) * rec.spec.min_tasks)
    if rank == rec.rank:
        return
    worse = rank > rec.rank
    rec.rank = rank
    if rec.phase in HOLDING:
        state.book.bump(rec)
        state.stale |= worse and state.waiting.waits(rec.spec.queue)
    elif rec.id in state.waiting.keys:
        state.waiting.rekey(rec, state.order_key(rec, now_ms))
        group = state.waiting.group_of.get(rec.id)
        if group is not None and group.head.job_id == rec.id:
            group.fresh = True
            state.waiting.line(rec.spec.queue).fresh.add(group.signature)


def demand_mix(state: State, event: e.DemandMix, _now_ms: int) -> None:
    state.set_mix(event.kinds)
    state.stale = True


def utilized(state: State, event: e.Utilized, now_ms: int) -> None:
    rec = find_job(state, event.job_id)
    if rec.phase not in HOLDING:
        raise IllegalEvent(f"Utilized: job {rec.id} holds no GPU (it is {rec.phase})")
    if event.window_ms <= 0:
        raise IllegalEvent(f"Utilized: job {rec.id}: a window of {event.window_ms} ms")
    observe(state, rec, event, now_ms)
