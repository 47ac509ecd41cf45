"""Why a job waits, and what can be done about it: one closed list.

A reason is data: a code, the numbers behind it and remedies. The sentence a person reads is made by `sentence` from the
same numbers, in one place, so that terminal, console, `ray job status` and API never disagree. A remedy is either
something somebody can *apply* (it carries the command to type) or a *wait* (time resolves it, and `at_ms` says when).
"""

from __future__ import annotations

import re
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


_SENTENCES: dict[ReasonCode, str] = {
    ReasonCode.NEVER_FITS: "needs {tasks} x {gpu_milli:gpus}, which can never fit: {bound:bound}",
    ReasonCode.FLAVOR_MISMATCH: "asks for {wanted}, the cluster has {available}",
    ReasonCode.HELD: "is held until somebody releases it",
    ReasonCode.DEPENDENCY_WAIT: "waits for {job}{outcome:outcome}",
    ReasonCode.LIMIT_REACHED: "queue {queue} is at its limit of {limit:amount}: {used:amount} used, {needs:amount} needed, {gap:amount} too many",
    ReasonCode.QUOTA_EXHAUSTED: (
        "may not borrow, and queue {queue} guarantees {quota:amount}: {used:amount} of it used, {needs:amount} needed, {gap:amount} too many"
    ),
    ReasonCode.BORROW_BLOCKED: "needs {gap:amount} more than queue {lender} lends to {queue}",
    ReasonCode.FAIR_SHARE_EXCEEDED: (
        "needs {needs:amount}, {free:amount} free; queue {queue} uses {used:amount} of its present share of {entitled:amount}"
    ),
    ReasonCode.USER_LIMIT: "user {user} may use {limit:amount} in queue {queue}: {used:amount} used, {needs:amount} needed",
    ReasonCode.BELOW_PRIORITY: "needs {needs:amount}, {free:amount} free, and work of a higher class waits before it in queue {queue}",
    ReasonCode.INSUFFICIENT_FREE: "needs {needs:amount}, {free:amount} free, {gap:amount} short",
    ReasonCode.FRAGMENTED: "needs {needs:amount} for {tasks} tasks; {free:amount} are free but scattered: {best} tasks fit",
    ReasonCode.TOPOLOGY_UNSATISFIED: "needs {needs:amount} in one {spread:domain}; {free:amount} are free, at most {best} tasks fit in one",
    ReasonCode.GANG_INCOMPLETE: "{ready} of {tasks} tasks would fit: needs {needs:amount}, {free:amount} free",
    ReasonCode.NO_CAPACITY_YET: "waits for nodes: needs {tasks} x {gpu_milli:gpus}, which no usable nodes hold now",
    ReasonCode.RESERVED_FOR: "the free capacity is reserved for {job}, which starts first",
    ReasonCode.BACKFILL_TOO_LONG: "would run longer than the gap before {job} starts",
    ReasonCode.WAITING_FOR_VICTIMS: "starts when {jobs} other jobs have released their places",
    ReasonCode.PREEMPTION_DELAY: "may take GPUs from others {delay_ms:seconds} after its submission",
    ReasonCode.COOLDOWN: "the jobs it may displace are protected for a while longer",
    ReasonCode.BACKOFF: "tries again after a failed start ({error})",
    ReasonCode.STARTING: "is starting",
    ReasonCode.PENDING_EVALUATION: "has not been looked at yet (position {position})",
    ReasonCode.PLACED: "{tasks} tasks placed",
    ReasonCode.GREW: "grew from {from} to {tasks} tasks on free capacity",
    ReasonCode.SHRUNK_FOR: "gave up {gpu_milli:gpus} for {for}",
    ReasonCode.RECLAIMED_FOR: "queue {queue} reclaimed {gpu_milli:gpus} for {for}",
    ReasonCode.PREEMPTED_FOR: "displaced by {for} of priority {priority} (own priority {own_priority})",
    ReasonCode.ROTATED_FOR: "takes turns with {for}",
    ReasonCode.MIGRATED_FOR: "moves to other places so that {for} fits",
    ReasonCode.IDLE: "its GPUs have been idle for {idle_ms:seconds} while others wait",
    ReasonCode.CANCEL_REQUESTED: "somebody asked to cancel it",
    ReasonCode.TIME_LIMIT: "reached its declared time limit",
    ReasonCode.NODE_LOST: "lost its node ({nodes})",
    ReasonCode.DRAINED: "its node is being drained ({nodes})",
}

_FACT = re.compile(r"\{(\w+)(?::(\w+))?\}")


def sentence(reason: Reason) -> str:
    """The one sentence that every surface shows, made from the reason's own numbers."""
    facts = dict(reason.facts)
    return _FACT.sub(lambda found: _phrase(facts, found.group(1), found.group(2) or ""), _SENTENCES[reason.code])


def _phrase(facts: dict[str, int | str], name: str, kind: str) -> str:
    value = facts.get(name, "")
    if kind == "amount":
        return amount(value, str(facts.get("resource", "")))
    if kind == "gpus":
        if not value and "cpu_milli" in facts:
            return f"{decimal(facts['cpu_milli'])} CPU"
        return f"{decimal(value)} GPU"
    if kind == "seconds":
        return f"{int(value or 0) // 1000} s"
    if kind == "outcome":
        return f", which ended as {value}" if value else ""
    if kind == "domain":
        return "node" if value == "one_node" else str(value)
    if kind == "bound":
        return _bound(facts)
    return str(value)


def _bound(facts: dict[str, int | str]) -> str:
    most = facts.get("largest_tasks", 0)
    if facts.get("bound") == "cluster":
        biggest = facts.get("largest_task_milli", 0)
        return f"the empty cluster holds {most} such tasks (its largest node has {decimal(biggest)} GPU)"
    rule = str(facts.get("bound", "")).replace("_", " ")
    allowed = amount(facts.get("most", 0), str(facts.get("resource", "")))
    return f"the {rule} of queue {facts.get('queue', '')} allows {allowed}, that is {most} such tasks"


def amount(value: int | str, resource: str) -> str:
    """An amount of a resource in words: `2 GPU (a10g)`, `1.5 CPU`, `4.0 GiB`."""
    if resource == "memory":
        return f"{decimal(int(value or 0) * 1000 // 1024**3)} GiB"
    if resource == "cpu":
        return f"{decimal(value)} CPU"
    return f"{decimal(value)} GPU" + (f" ({resource})" if resource not in ("", "gpu") else "")


def decimal(milli: int | str) -> str:
    """Thousandths as a short decimal, without floats."""
    whole, rest = divmod(int(milli or 0), 1000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)
