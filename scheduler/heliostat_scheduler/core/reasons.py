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
    NODE_JOINING = "NodeJoining"
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
    STARVED_FOR = "StarvedFor"
    ASKED_BACK_FOR = "AskedBackFor"
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
    ReasonCode.NEVER_FITS: "needs {tasks} x {gpu_milli:task}, which can never fit: {bound:bound}",
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
    ReasonCode.FRAGMENTED: "needs {needs:amount} for {tasks:tasks}; {free:amount} free but scattered: {best:tasks} would fit",
    ReasonCode.TOPOLOGY_UNSATISFIED: "needs {needs:amount} in one {spread:domain}; {free:amount} free, room for at most {best:tasks} in one",
    ReasonCode.GANG_INCOMPLETE: "{ready} of {tasks:tasks} would fit: needs {needs:amount}, {free:amount} free",
    ReasonCode.NO_CAPACITY_YET: "waits for nodes: needs {tasks} x {gpu_milli:task}, which no usable nodes hold now",
    ReasonCode.NODE_JOINING: "waits for {nodes:machines} of flavor {flavor}, asked for and not there yet",
    ReasonCode.RESERVED_FOR: "the free capacity is reserved for {job}, which starts first",
    ReasonCode.BACKFILL_TOO_LONG: "would run longer than the gap before {job} starts",
    ReasonCode.WAITING_FOR_VICTIMS: "starts when {jobs:leavers}",
    ReasonCode.PREEMPTION_DELAY: "may displace others {delay_ms:seconds} after its submission",
    ReasonCode.COOLDOWN: "the jobs it may displace are protected for a while longer",
    ReasonCode.BACKOFF: "tries again after a failed start ({error})",
    ReasonCode.STARTING: "is starting",
    ReasonCode.PENDING_EVALUATION: "has not been looked at yet (position {position})",
    ReasonCode.PLACED: "{tasks:tasks} placed",
    ReasonCode.GREW: "grew{from:from} to {tasks:tasks} on free capacity",
    ReasonCode.SHRUNK_FOR: "gave up {gpu_milli:places} for {for}",
    ReasonCode.RECLAIMED_FOR: "queue {queue} reclaimed {gpu_milli:places} for {for}",
    ReasonCode.PREEMPTED_FOR: "displaced by {for} of priority {priority} (own priority {own_priority})",
    ReasonCode.ROTATED_FOR: "takes turns with {for}",
    ReasonCode.ASKED_BACK_FOR: "gives back what it got ahead of {for}, as agreed when it started",
    ReasonCode.STARVED_FOR: "gives way to {for}, which has waited past its deadline",
    ReasonCode.MIGRATED_FOR: "moves to other places so that {for} fits",
    ReasonCode.IDLE: "its GPUs have been idle for {idle_ms:seconds} while others wait",
    ReasonCode.CANCEL_REQUESTED: "somebody asked to cancel it",
    ReasonCode.TIME_LIMIT: "reached its declared time limit",
    ReasonCode.NODE_LOST: "lost {nodes:nodes}",
    ReasonCode.DRAINED: "leaves {nodes:nodes}: drained",
}

_VARIANTS: dict[tuple[ReasonCode, str], str] = {
    (ReasonCode.SHRUNK_FOR, "max_tasks"): "gave up what exceeds its new maximum of {max_tasks:tasks}",
    (ReasonCode.SHRUNK_FOR, "from"): "shrank from {from} to {tasks:tasks}: others make more of the GPUs",
    (ReasonCode.NODE_JOINING, "again"): (
        "waits for {nodes:machines} of flavor {flavor}, which did not come (asked {again:times}); asked for again in a while"
    ),
    (ReasonCode.INSUFFICIENT_FREE, "max_nodes"): (
        "needs {needs:amount}, {free:amount} free, {gap:amount} short; all {max_nodes:machines} that flavor {resource} may have are there"
    ),
    (ReasonCode.GANG_INCOMPLETE, "max_nodes"): (
        "{ready} of {tasks:tasks} would fit: needs {needs:amount}, {free:amount} free; "
        "all {max_nodes:machines} that flavor {resource} may have are there"
    ),
    (ReasonCode.GANG_INCOMPLETE, "min_tasks"): "holds {tasks:tasks} and needs at least {min_tasks}",
    (ReasonCode.PENDING_EVALUATION, "resize_ms"): "was resized a moment ago and may grow again in {resize_ms:seconds}",
    (ReasonCode.FAIR_SHARE_EXCEEDED, "unstable"): "would take GPUs whose holder could reclaim them at once",
}
"""The same code with other facts: (code, the fact that tells them apart)."""

_FACT = re.compile(r"\{(\w+)(?::(\w+))?\}")


def sentence(reason: Reason) -> str:
    """The one sentence that every surface shows, made from the reason's own numbers."""
    facts = dict(reason.facts)
    variants = (text for (code, fact), text in _VARIANTS.items() if code is reason.code and fact in facts)
    template = next(variants, _SENTENCES[reason.code])
    return _FACT.sub(lambda found: _phrase(facts, found.group(1), found.group(2) or ""), template)


def _phrase(facts: dict[str, int | str], name: str, kind: str) -> str:
    value = facts.get(name, "")
    match kind:
        case "amount":
            return amount(value, str(facts.get("resource", "")))
        case "task":
            return _task(facts)
        case "tasks":
            return counted(value, "task")
        case "machines":
            return counted(value, "node")
        case "times":
            return counted(value, "time")
        case "places":
            return f"{decimal(value)} GPU" if value else "its places"
        case "leavers":
            return _leavers(int(value or 0))
        case "from":
            return f" from {value}" if value else ""
        case "seconds":
            return f"{decimal(value)} s"
        case "outcome":
            return f", which ended as {value}" if value else ""
        case "domain":
            return "node" if value == "one_node" else str(value)
        case "nodes":
            return f"its node{'s' if ',' in str(value) else ''} ({value})"
        case "bound":
            return _bound(facts)
        case _:
            return str(value)


def counted(number: int | str, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {noun}" if int(number or 0) == 1 else f"{number} {noun}s"


def _leavers(jobs: int) -> str:
    if jobs == 0:
        return "its places are free"
    return "1 other job has released its places" if jobs == 1 else f"{jobs} other jobs have released their places"


def _task(facts: dict[str, int | str]) -> str:
    """What one task asks for: `1 GPU`, `0.5 GPU with 4 CPU`, `2 CPU with 16 GiB`."""
    gpu, cpu, memory = (facts.get(name, 0) for name in ("gpu_milli", "cpu_milli", "memory_bytes"))
    parts = [f"{decimal(gpu)} GPU"] if gpu else []
    parts += [f"{decimal(cpu)} CPU"] if cpu else []
    parts += [amount(memory, "memory")] if memory else []
    return " with ".join([parts[0], " and ".join(parts[1:])] if len(parts) > 1 else parts or ["0 CPU"])


def _bound(facts: dict[str, int | str]) -> str:
    most = facts.get("largest_tasks", 0)
    if facts.get("bound") == "cluster":
        biggest = facts.get("largest_task_milli", 0)
        node = f"{decimal(biggest)} GPU" if facts.get("gpu_milli") else _largest_node(facts)
        return f"the empty cluster holds {counted(most, 'such task')} (its largest node has {node})"
    rule = str(facts.get("bound", "")).replace("_", " ")
    allowed = amount(facts.get("most", 0), str(facts.get("resource", "")))
    return f"the {rule} of queue {facts.get('queue', '')} allows {allowed}, that is {counted(most, 'such task')}"


def _largest_node(facts: dict[str, int | str]) -> str:
    cpu = f"{decimal(facts.get('largest_cpu_milli', 0))} CPU"
    return f"{cpu} and {amount(facts.get('largest_memory_bytes', 0), 'memory')}" if facts.get("memory_bytes") else cpu


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
