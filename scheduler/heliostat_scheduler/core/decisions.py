"""What the engine wants done: a Plan of decisions, each with its reason. The live executor and the simulator obey the same ones.

A decision about a lease carries the *new* epoch; the executor writes it to the store before it acts, so a command that is
repeated or late is recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Start:
    """Give `job_id` these places and start attempt `attempt`. places[i] is where task (rank) i runs."""

    job_id: str
    epoch: int
    attempt: int
    places: tuple[TaskPlace, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Resize:
    """Change a running job's lease to `places` (a checkpoint is asked for first). Released places are free on PlacesReleased or JobResized."""

    job_id: str
    epoch: int
    places: tuple[TaskPlace, ...]
    grace_ms: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Preempt:
    """Stop the attempt with a checkpoint and requeue the job at its old position. `reason` says for whom."""

    job_id: str
    epoch: int
    grace_ms: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Stop:
    """End the job for good (cancelled, time limit). Answered by JobFinished."""

    job_id: str
    epoch: int
    grace_ms: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Discarded:
    """Not an order: a plan that would have undone itself was dropped (recorded for the log and the alarms)."""

    job_id: str
    would_evict: tuple[str, ...]
    reason: Reason


Decision = Start | Resize | Preempt | Stop | Discarded


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer of one cycle, in the order in which it is to be carried out."""

    cycle: int
    now_ms: int
    decisions: tuple[Decision, ...]
    alarms: tuple[str, ...] = ()
