"""Why a job waits, and what can be done about it: one closed list.

A reason is data: a code, the numbers behind it and remedies. The sentence a person reads is made by `sentence` from the
same numbers, in one place, so that terminal, console, `ray job status` and API never disagree. A remedy is either
something somebody can *apply* (it carries the command to type) or a *wait* (time resolves it, and `at_ms` says when).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    # structural: no amount of waiting helps
    NEVER_FITS = "NeverFits"
    FLAVOR_MISMATCH = "FlavorMismatch"
    # somebody's decision
    HELD = "Held"
    DEPENDENCY_WAIT = "DependencyWait"
    # policy
    LIMIT_REACHED = "LimitReached"
    QUOTA_EXHAUSTED = "QuotaExhausted"
    BORROW_BLOCKED = "BorrowBlocked"
    FAIR_SHARE_EXCEEDED = "FairShareExceeded"
    USER_LIMIT = "UserLimit"
    BELOW_PRIORITY = "BelowPriority"
    # capacity
    INSUFFICIENT_FREE = "InsufficientFree"
    FRAGMENTED = "Fragmented"
    TOPOLOGY_UNSATISFIED = "TopologyUnsatisfied"
    GANG_INCOMPLETE = "GangIncomplete"
    NO_CAPACITY_YET = "NoCapacityYet"
    # time
    RESERVED_FOR = "ReservedFor"
    BACKFILL_TOO_LONG = "BackfillTooLong"
    WAITING_FOR_VICTIMS = "WaitingForVictims"
    PREEMPTION_DELAY = "PreemptionDelay"
    COOLDOWN = "Cooldown"
    BACKOFF = "Backoff"
    STARTING = "Starting"
    PENDING_EVALUATION = "PendingEvaluation"
    # reasons of decisions about jobs that hold GPUs
    PLACED = "Placed"
    GREW = "Grew"
    SHRUNK_FOR = "ShrunkFor"
    RECLAIMED_FOR = "ReclaimedFor"
    PREEMPTED_FOR = "PreemptedFor"
    ROTATED_FOR = "RotatedFor"
    MIGRATED_FOR = "MigratedFor"
    IDLE = "Idle"
    CANCEL_REQUESTED = "CancelRequested"
    TIME_LIMIT = "TimeLimit"
    NODE_LOST = "NodeLost"
    DRAINED = "Drained"


class RemedyKind(StrEnum):
    APPLY = "apply"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing that would let the job start.

    kind: apply or wait.
    action: stable word for programs: `change_job`, `release`, `raise_priority`, `change_queue`, `add_nodes`, `cancel_other`,
        `resubmit`, `wait`.
    command: what to type, whole (empty for wait).
    text: one sentence.
    at_ms: for wait, when the answer changes (epoch milliseconds), or None when only an event can change it.
    evicts: ids of the jobs that lose GPUs by this remedy.
    """

    kind: RemedyKind
    action: str
    text: str
    command: str = ""
    at_ms: int | None = None
    evicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """One binding reason with the numbers behind it.

    facts: (name, value) pairs, integers where they are amounts (GPUs in milli-GPU, times in milliseconds, memory in bytes).
    blockers: ids of the jobs that hold what is missing, the largest holder first, at most 8.
    """

    code: ReasonCode
    facts: tuple[tuple[str, int | str], ...] = ()
    blockers: tuple[str, ...] = ()
    until_ms: int | None = None

    def fact(self, name: str, default: int | str = "") -> int | str:
        return dict(self.facts).get(name, default)
