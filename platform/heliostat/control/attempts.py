"""One attempt of a job, as the executor follows it: what was granted, how far it got, and how it ends.

    granting -> launching -> running <-> resizing -> ordered -> killing -> closing -> (gone)

`granting`: the lease is being written to the board. `launching`: the command or the driver is being started. `resizing`: its lease
gets another size (`resizing.py`). `parked`: it asked for GPUs in `fit()` and holds nothing; its job waits in the queue
(`parking.py`). `ordered`: it was asked to checkpoint and let go. `killing`: whoever sits in its slots is being killed. `closing`:
how it ends is known; what is awaited is that its process has ended, its slots are verified free, and its log is saved. Only then
has the job ended; it goes back to its queue as soon as its slots are free. A GPU is never given away while somebody sits on it, and
a job's next driver starts only when the last one is gone (`leftovers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.reasons import Reason
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Lease, SlotRef

COMMAND = "command"
SERVE = "serve"
FREED = "freed"
"""Order of a lease row whose slots are verified free while its driver is still being ended. The board never sees it."""


class Phase(StrEnum):
    GRANTING = "granting"
    LAUNCHING = "launching"
    RUNNING = "running"
    RESIZING = "resizing"
    ORDERED = "ordered"
    KILLING = "killing"
    CLOSING = "closing"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Requeue:
    """Back to the queue. why: preempted, crashed, node_lost, head_lost. retry_at_ms: not before."""

    why: str
    retry_at_ms: int = 0
    exit_code: int | None = None
    error: str = ""

    @property
    def outcome(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The start could not be carried out. code: cpu_busy, unknown_slot, start_timeout, ..."""

    code: str
    error: str
    retry_at_ms: int = 0
    exit_code: int | None = None

    @property
    def outcome(self) -> str:
        return f"start_failed:{self.code}"


@dataclass(frozen=True, slots=True)
class Finish:
    """The job's last attempt. state: succeeded, failed, cancelled, timed_out."""

    state: JobState
    exit_code: int | None = None
    error: str = ""

    @property
    def outcome(self) -> str:
        return self.state.value


Ending = Requeue | NotStarted | Finish


@dataclass(slots=True)
class Change:
    """A resize under way. places, slots: what the lease had. to: tasks that it gets. Times in epoch milliseconds, None: not yet.

    began: how the workers started again (kept, warm, and why they were started anew), as their runner says.
    """

    places: tuple[TaskPlace, ...]
    slots: tuple[SlotRef, ...]
    to: int
    ordered_ms: int
    checkpoint_ms: int | None = None
    released_ms: int | None = None
    started: bool = False
    began: dict[str, Any] = field(default_factory=dict)  # Any: JSON

    @property
    def tasks(self) -> int:
        return len(self.places)

    def since(self, at_ms: int) -> float:
        return max(0, at_ms - self.ordered_ms) / 1000

    def seconds(self, now_ms: int) -> dict[str, float | None]:
        """How long each part took, from the order on."""
        marks = {"checkpoint_s": self.checkpoint_ms, "released_s": self.released_ms, "started_s": now_ms}
        return {name: None if at_ms is None else self.since(at_ms) for name, at_ms in marks.items()}


@dataclass(slots=True)
class Attempt:
    """tasks, places, slots, node, cpu_milli and memory_bytes (per task): what was granted. since_ms: when.

    state: the job's, as the store has it. due_ms: when the phase lasts too long. poll_ms: when to ask Ray about the driver.
    run_limit_ms: running time that is left before the job's time limit. in_engine: whether the engine knows the lease.
    over_limit: the engine was told that its time is used up.
    runner_seen: somebody in its slots hears orders. checkpoint_ms: time of the last checkpoint known.
    change: the resize under way; leaving: what the lease gives up by it and has not left yet.
    """

    job: str
    n: int
    epoch: int
    kind: str
    project: str
    secret: str
    tasks: int
    places: tuple[TaskPlace, ...]
    slots: tuple[SlotRef, ...]
    node: str
    cpu_milli: int
    memory_bytes: int
    since_ms: int
    state: JobState
    phase: Phase = Phase.GRANTING
    order: str = protocol.RUN
    why: str = ""
    reason: Reason | None = None
    deadline_ms: int = 0
    due_ms: int | None = None
    poll_ms: int | None = None
    running_since_ms: int | None = None
    run_limit_ms: int | None = None
    timed_out: bool = False
    over_limit: bool = False
    in_engine: bool = True
    accepted: bool = False
    runner_seen: bool = False
    checkpoint_ms: int = 0
    process_done: bool = False
    freed: bool = False
    log_saved: bool = False
    stop_asked_ms: int | None = None
    ending: Ending | None = None
    app: str = ""
    change: Change | None = None
    leaving: tuple[SlotRef, ...] = ()
    leaving_places: tuple[TaskPlace, ...] = ()

    @property
    def is_command(self) -> bool:
        return self.kind == COMMAND

    @property
    def is_serving(self) -> bool:
        """Its tasks are replicas of an endpoint: Serve starts and ends them, and `hands.Serving` says when."""
        return self.kind == SERVE

    @property
    def has_driver(self) -> bool:
        return self.kind not in (COMMAND, SERVE)

    @property
    def submission_id(self) -> str:
        return f"{self.job}-a{self.n}"

    @property
    def done(self) -> bool:
        return self.ending is not None and self.process_done and self.freed and self.log_saved

    def lease(self) -> Lease:
        """As the board gets it."""
        return Lease(
            job=self.job,
            attempt=self.n,
            epoch=self.epoch,
            kind=self.kind,
            order=self.order,
            secret=self.secret,
            tasks=self.tasks,
            slots=self.slots,
            deadline_ms=self.deadline_ms,
            node=""
            if self.slots or self.is_serving
            else self.node,  # replicas are placed by Serve, in no group of ours
            cpu_milli=self.cpu_milli * self.tasks,
            memory_bytes=self.memory_bytes * self.tasks,
            why=self.why,
            leaving=self.leaving,
            app=self.app,
        )

    def nodes(self) -> set[str]:
        return {self.node, *(slot.node for slot in (*self.slots, *self.leaving))} - {""}
