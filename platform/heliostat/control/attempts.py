"""One attempt of a job, as the executor follows it: what was granted, how far it got, and how it ends.

    granting -> launching -> running -> ordered -> killing -> closing -> (gone)

`granting`: the lease is being written to the board. `launching`: the command or the driver is being started. `ordered`: it was
asked to checkpoint and let go. `killing`: whoever sits in its slots is being killed. `closing`: how it ends is known; what
is awaited is that its process has ended, its slots are verified free, and its log is saved. Only then is the job moved on, so
a job never runs twice at once, and a GPU is never given away while somebody sits on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.reasons import Reason
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Lease, SlotRef

COMMAND = "command"
FREED = "freed"
"""Order of a lease row whose slots are verified free while its driver is still being ended. The board never sees it."""


class Phase(StrEnum):
    GRANTING = "granting"
    LAUNCHING = "launching"
    RUNNING = "running"
    ORDERED = "ordered"
    KILLING = "killing"
    CLOSING = "closing"


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
class Attempt:
    """tasks, places, slots, node, cpu_milli and memory_bytes (per task): what was granted. since_ms: when.

    state: the job's, as the store has it. due_ms: when the phase lasts too long. poll_ms: when to ask Ray about the driver.
    run_limit_ms: running time that is left before the job's time limit. in_engine: whether the engine knows the lease.
    over_limit: the engine was told that its time is used up.
    runner_seen: somebody in its slots hears orders. checkpoint_ms: time of the last checkpoint known.
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

    @property
    def is_command(self) -> bool:
        return self.kind == COMMAND

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
            node="" if self.slots else self.node,
            cpu_milli=self.cpu_milli * self.tasks,
            memory_bytes=self.memory_bytes * self.tasks,
            why=self.why,
        )

    def nodes(self) -> set[str]:
        return {self.node, *(slot.node for slot in self.slots)} - {""}
