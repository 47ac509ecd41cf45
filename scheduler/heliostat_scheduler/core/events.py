"""What happened: the engine's only input, each event one frozen record with the time beside it (`engine.apply(event, now_ms)`).

An event that is not legal now raises `IllegalEvent` before anything changes. Events about a lease carry its epoch; an event
of an older epoch is stale and is refused, so a late message can never free a GPU that already belongs to somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass

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


class IllegalEvent(Exception):
    """The event does not fit the engine's state: unknown object, stale epoch, or a move the lifecycle does not know."""


@dataclass(frozen=True, slots=True)
class QueuesChanged:
    queues: tuple[QueueSpec, ...]


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    policy: Policy


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node with all its slots is usable (also sent again when its slots changed: the new record replaces the old)."""

    node: NodeSpec


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The node is gone. Leases on it lose their tasks there; the engine answers with Preempt decisions (NodeLost)."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeCordoned:
    """No new lease on this node from now on. `drain`: running work is moved away too."""

    node_id: str
    drain: bool = False


@dataclass(frozen=True, slots=True)
class NodeUncordoned:
    node_id: str


@dataclass(frozen=True, slots=True)
class SlotBlocked:
    """A GPU cannot be used now (an unleased process sits on it, or the device is lost). `why` goes into reasons."""

    slot_id: str
    why: str


@dataclass(frozen=True, slots=True)
class SlotUnblocked:
    slot_id: str


@dataclass(frozen=True, slots=True)
class PoolsChanged:
    """The nodes that can be had beside those that are there, one pool per flavor. Replaces what was known."""

    pools: tuple[NodePool, ...]


@dataclass(frozen=True, slots=True)
class NodesComing:
    """All nodes that are on their way, and for whom: what their jobs wait for. Replaces what was known; decides nothing."""

    coming: tuple[NodeComing, ...]


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job enters its queue. `held`: it waits until JobReleased.

    epoch, attempt: the last ones it had, for a job that comes back after a restart; its next Start continues from them. failed: those of
    its dependencies that were over before, and how (other than succeeded).
    """

    job: JobSpec
    held: bool = False
    epoch: int = 0
    attempt: int = 0
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class JobRestored:
    """After a restart of the control plane: a job that already holds a lease (never the result of a decision).

    resizing: a resize order to `places` is not complete; `leaving` are the places that it gives up and that are not free yet.
    """

    job: JobSpec
    epoch: int
    attempt: int
    places: tuple[TaskPlace, ...]
    running: bool
    started_at_ms: int
    preempting: bool = False
    stopping: bool = False
    resizing: bool = False
    leaving: tuple[TaskPlace, ...] = ()


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A waiting job's (or, for priority, any job's) specification is replaced; its place in the queue is kept."""

    job: JobSpec


@dataclass(frozen=True, slots=True)
class JobHeld:
    job_id: str


@dataclass(frozen=True, slots=True)
class JobReleased:
    job_id: str


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """Somebody asked to end the job. Waiting: it leaves at once. Holding a lease: the next decide answers with Stop."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobTimedOut:
    """The job used up its declared max_runtime_ms; as JobCancelled, but the Stop carries reason TimeLimit."""

    job_id: str


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The attempt's processes run in their slots."""

    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class JobStartFailed:
    """The start could not be carried out; the slots are free again and the job is back in its queue until `retry_at_ms`."""

    job_id: str
    epoch: int
    code: str
    retry_at_ms: int


@dataclass(frozen=True, slots=True)
class DemandFound:
    """A program that declared nothing has said what it needs: its lease is void, and it waits at its old position for `job`.

    The job's epoch rises by one, so that the lease board can tell the program.
    """

    job_id: str
    epoch: int
    job: JobSpec


@dataclass(frozen=True, slots=True)
class JobResized:
    """A resize order is complete: the lease now is `places`."""

    job_id: str
    epoch: int
    places: tuple[TaskPlace, ...]


@dataclass(frozen=True, slots=True)
class PlacesReleased:
    """These places of the lease are verified free (early part of a resize or preemption)."""

    job_id: str
    epoch: int
    places: tuple[TaskPlace, ...]


@dataclass(frozen=True, slots=True)
class JobRequeued:
    """The attempt ended without being the last: lease verified free, job back at its old position.

    why: `preempted`, `crashed`, `node_lost`, `head_lost`. retry_at_ms: not before (0: at once).
    """

    job_id: str
    epoch: int
    why: str
    retry_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class JobFinished:
    """Terminal: succeeded, failed, cancelled, timed_out. The lease is verified free."""

    job_id: str
    epoch: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """The job wrote a checkpoint: victim cost counts from here."""

    job_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Estimated:
    """New estimates from `estimate`; what is absent stays as it was.

    remaining_ms: remaining run time at the present size. goodput_milli: (tasks, useful work per second in thousandths), ascending.
    rank_ms: expected rest for the order among equals. done_milli: useful work done so far, in thousandths of the same unit.
    """

    job_id: str
    remaining_ms: int | None = None
    goodput_milli: tuple[tuple[int, int], ...] = ()
    rank_ms: int | None = None
    done_milli: int | None = None


@dataclass(frozen=True, slots=True)
class DemandMix:
    """What arrives here, from history: placement keeps free capacity useful for it. Empty: best fit only."""

    kinds: tuple[DemandKind, ...]


@dataclass(frozen=True, slots=True)
class Utilized:
    """A window of telemetry for a job that holds GPUs: mean GPU activity (permille, None = no reading) and progress since the last window."""

    job_id: str
    window_ms: int
    activity_permille: int | None
    progressed: bool


Event = (
    QueuesChanged
    | PolicyChanged
    | NodeUp
    | NodeDown
    | NodeCordoned
    | NodeUncordoned
    | SlotBlocked
    | SlotUnblocked
    | PoolsChanged
    | NodesComing
    | JobSubmitted
    | JobRestored
    | JobChanged
    | JobHeld
    | JobReleased
    | JobCancelled
    | JobTimedOut
    | JobStarted
    | JobStartFailed
    | DemandFound
    | JobResized
    | PlacesReleased
    | JobRequeued
    | JobFinished
    | Checkpointed
    | Estimated
    | DemandMix
    | Utilized
)
