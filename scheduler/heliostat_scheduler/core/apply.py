"""Events into state: which handler takes which event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heliostat_scheduler.core import cluster_events, job_events
from heliostat_scheduler.core import events as e
from heliostat_scheduler.core.events import IllegalEvent
from heliostat_scheduler.core.state import State


def apply_event(state: State, event: e.Event, now_ms: int) -> None:
    """Bookkeeping for one event."""
    handler = _HANDLERS.get(type(event))
    if handler is None:
        raise IllegalEvent(f"unknown event {type(event).__name__}")
    state.clock = now_ms
    handler(state, event, now_ms)
    state.now_ms = max(state.now_ms, now_ms)


_HANDLERS: dict[type, Callable[[State, Any, int], None]] = {  # Any: each handler takes its own event class
    e.QueuesChanged: cluster_events.queues_changed,
    e.PolicyChanged: cluster_events.policy_changed,
    e.NodeUp: cluster_events.node_up,
    e.NodeDown: cluster_events.node_down,
    e.NodeCordoned: cluster_events.node_cordoned,
    e.NodeUncordoned: cluster_events.node_uncordoned,
    e.SlotBlocked: cluster_events.slot_blocked,
    e.SlotUnblocked: cluster_events.slot_unblocked,
    e.PoolsChanged: cluster_events.pools_changed,
    e.NodesComing: cluster_events.nodes_coming,
    e.JobSubmitted: job_events.submitted,
    e.JobRestored: job_events.restored,
    e.JobChanged: job_events.changed,
    e.JobHeld: job_events.held,
    e.JobReleased: job_events.released,
    e.JobCancelled: job_events.cancelled,
    e.JobTimedOut: job_events.timed_out,
    e.JobStarted: job_events.started,
    e.JobStartFailed: job_events.start_failed,
    e.DemandFound: job_events.demand_found,
    e.JobResized: job_events.resized,
    e.PlacesReleased: job_events.places_released,
    e.JobRequeued: job_events.requeued,
    e.JobFinished: job_events.finished,
    e.Checkpointed: job_events.checkpointed,
    e.Estimated: job_events.estimated,
    e.Utilized: job_events.utilized,
    e.DemandMix: job_events.demand_mix,
}
