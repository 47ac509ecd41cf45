"""What arrives in the control loop's inbox: facts of the bridge, answers of Ray's Jobs API, and what the doors tell or ask."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from heliostat_scheduler.live.protocol import Fact


@dataclass(frozen=True, slots=True)
class BridgeSaid:
    fact: Fact


@dataclass(frozen=True, slots=True)
class BridgeLost:
    """The bridge's process has ended; nothing of it comes after this."""

    why: str


@dataclass(frozen=True, slots=True)
class DriverAccepted:
    """Ray has taken the submission (now, or in an earlier try)."""

    submission_id: str


@dataclass(frozen=True, slots=True)
class DriverRefused:
    """Ray did not take it. permanent: the same submission will never be taken."""

    submission_id: str
    text: str
    permanent: bool


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """One submission as Ray's Jobs API shows it. status: PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED."""

    status: str
    message: str = ""
    error_type: str = ""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, slots=True)
class DriverSeen:
    """info None: Ray answers, and does not know the submission."""

    submission_id: str
    info: DriverInfo | None


@dataclass(frozen=True, slots=True)
class DriverSilent:
    """Ray's Jobs API did not answer."""

    submission_id: str
    text: str


@dataclass(frozen=True, slots=True)
class LogSaved:
    """The attempt's log is complete in its file, or nothing more can be had."""

    submission_id: str


@dataclass(frozen=True, slots=True)
class SlotsRead:
    """Telemetry: GPU activity in permille by slot; a slot without a reading is absent."""

    activity: dict[str, int]
    window_ms: int


@dataclass(frozen=True, slots=True)
class ServingSaid:
    """About the replicas of a serving job's attempt. what: `started`, `released` (none is left), `broken` (text says why)."""

    job_id: str
    attempt: int
    what: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Learned:
    """What the forecasting process expects of live jobs.

    rests: (job, expected rest in ms; 0: nothing any more). fresh: queue -> (expected run time of a new job in ms, finished jobs it is learned from).
    curves: (job, (tasks, work per second) or () where that has not moved, work done, unit), work in thousandths of the unit.
    """

    rests: tuple[tuple[str, int], ...] = ()
    fresh: dict[str, tuple[int, int]] = field(default_factory=dict)
    curves: tuple[tuple[str, tuple[tuple[int, int], ...], int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class JobTold:
    """A door wrote the job's row: new, or changed."""

    job_id: str
    new: bool


@dataclass(frozen=True, slots=True)
class QueuesTold:
    """A door wrote a new queue file."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A door wants a move: `cancel`, `hold` or `release`. `answer` is done after the commit."""

    what: str
    job_id: str
    actor: str
    answer: Future[None] = field(compare=False)


@dataclass(frozen=True, slots=True)
class NodeAsked:
    """A door wants a node out of use or back: `cordon`, `drain` or `uncordon`."""

    what: str
    node: str
    actor: str
    answer: Future[None] = field(compare=False)


Message = (
    BridgeSaid
    | BridgeLost
    | DriverAccepted
    | DriverRefused
    | DriverSeen
    | DriverSilent
    | LogSaved
    | SlotsRead
    | ServingSaid
    | Learned
    | JobTold
    | QueuesTold
    | Asked
    | NodeAsked
)
