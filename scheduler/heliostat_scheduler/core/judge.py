"""Reasons that need no search: what concerns one job alone, what can never work, and which rule of a queue stands in the way.

Each function returns the binding reason with its numbers, or None when nothing stands in the way here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec, Phase, core_tasks, reason, task_amounts
from heliostat_scheduler.core.model import Amounts, JobSpec, NodeComing, NodePool
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.tree import QueueNode
from heliostat_scheduler.core.waiting import Group

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State


def personal_reason(state: State, rec: JobRec) -> Reason | None:
    """Held, waiting for another job, backing off, or waiting for others to leave."""
    if rec.phase is Phase.HELD:
        return reason(ReasonCode.HELD)
    other = state.blocked_by(rec.spec)
    if other is not None:
        outcome = state.failed.get(other, "")
        blockers = (other,) if other in state.book.jobs else ()
        return reason(ReasonCode.DEPENDENCY_WAIT, ("job", other), ("outcome", outcome), blockers=blockers)
    if rec.claim:
        leaving = [state.book.jobs[i] for i in rec.claim_on if i in state.book.jobs and state.book.jobs[i].leaving]
        until = max((victim.leave_by for victim in leaving), default=state.now_ms)
        facts = (("jobs", len(leaving)), ("gpu_milli", rec.spec.shape.gpu_milli * len(rec.claim)))
        return reason(ReasonCode.WAITING_FOR_VICTIMS, *facts, blockers=[v.id for v in leaving], until=until)
    if rec.retry_at > state.now_ms:
        return reason(ReasonCode.BACKOFF, ("error", rec.retry_code), ("attempt", rec.attempt), until=rec.retry_at)
    return None


def coming_reason(coming: NodeComing) -> Reason:
    """The job starts when nodes have joined that were asked for."""
    word = ("again", coming.tries) if coming.late else ("tries", coming.tries)
    return reason(ReasonCode.NODE_JOINING, ("flavor", coming.flavor), ("nodes", coming.nodes), word, until=coming.by_ms)


def room_in(state: State, pool: NodePool) -> int:
    """How many more nodes of this pool may be there."""
    there = sum(1 for rec in state.book.nodes.values() if not rec.let_go and rec.spec.flavor == pool.flavor)
    return max(0, pool.max_nodes - there)


def candidate_flavors(state: State, spec: JobSpec) -> tuple[str, ...]:
    """The flavors to try, best first. A CPU-only job has one pseudo flavor: any node."""
    if spec.shape.gpu_milli == 0:
        return ("",)
    return spec.flavors or state.flavors


def judge(state: State, group: Group) -> None:
    """What follows for the group from the nodes there are."""
    spec, structure = group.spec, state.structure
    flavors = candidate_flavors(state, spec)
    group.judged_for, group.choices = structure, structure.choices(spec.shape, spec.min_tasks, spec.spread, flavors)
    group.structural = None if _runs_now(state, group) else structural_reason(state, spec)
    group.asks = task_amounts(spec, flavors[0] if flavors else "", spec.min_tasks)
    group.core = core_tasks(spec, spec.min_tasks) > 0


def _runs_now(state: State, group: Group) -> bool:
    """Whether the nodes of this moment and the rules of its queues let it run on some kind of GPU: then nothing is in its way for ever."""
    spec = group.spec
    leaf = state.book.tree.by_name[spec.queue]
    return any(
        choice.usable and choice.flavor and queue_bound(state, leaf, spec, choice.flavor) is None
        for choice in group.choices
    )


def structural_reason(state: State, spec: JobSpec) -> Reason | None:
    """Why the job cannot run however long it waits (or not before nodes come back)."""
    structure = state.structure
    if not structure.known:
        return reason(
            ReasonCode.NO_CAPACITY_YET, ("tasks", spec.min_tasks), ("gpu_milli", spec.shape.gpu_milli), ("nodes", 0)
        )
    have = structure.flavors if spec.shape.gpu_milli else structure.node_flavors
    if spec.flavors and not set(spec.flavors) & set(have):
        return reason(ReasonCode.FLAVOR_MISMATCH, ("wanted", ", ".join(spec.flavors)), ("available", ", ".join(have)))
    found: list[tuple[int, Reason]] = []
    for flavor in candidate_flavors(state, spec):
        stage, why = _structural_in(state, spec, flavor)
        if why is None:
            return None
        found.append((stage, why))
    if not found:
        return reason(
            ReasonCode.NEVER_FITS, *_asked(spec), ("bound", "cluster"), ("largest_tasks", 0), ("largest_task_milli", 0)
        )
    return max(found, key=lambda item: item[0])[1]


def _asked(spec: JobSpec) -> tuple[tuple[str, int | str], ...]:
    shape = spec.shape
    return (
        ("tasks", spec.min_tasks), ("gpu_milli", shape.gpu_milli), ("cpu_milli", shape.cpu_milli),
        ("memory_bytes", shape.memory_bytes),
    )  # fmt: skip


def _structural_in(state: State, spec: JobSpec, flavor: str) -> tuple[int, Reason | None]:
    structure = state.structure
    known = structure.largest(spec.shape, flavor, spec.spread, usable=False)
    if known < spec.min_tasks:
        biggest = structure.largest_task_milli((flavor,) if flavor else ())
        cpu, memory = structure.largest_node((flavor,) if flavor else spec.flavors)
        facts = (
            *_asked(spec),
            ("bound", "cluster"),
            ("largest_tasks", known),
            ("largest_task_milli", biggest),
            ("largest_cpu_milli", cpu),
            ("largest_memory_bytes", memory),
            ("spread", spec.spread),
        )
        return 0, reason(ReasonCode.NEVER_FITS, *facts)
    leaf = state.book.tree.by_name[spec.queue]
    gap = queue_bound(state, leaf, spec, flavor)
    if gap is not None:
        bound, node, key, most = gap
        per_task = dict(task_amounts(spec, flavor, 1)).get(key, 0)
        tasks = min(most // per_task if per_task else 0, known)
        facts = (
            *_asked(spec),
            ("bound", bound),
            ("queue", node.name),
            ("resource", key),
            ("most", most),
            ("largest_tasks", tasks),
        )
        return 1, reason(ReasonCode.NEVER_FITS, *facts)
    usable = structure.largest(spec.shape, flavor, spec.spread, usable=True)
    if usable < spec.min_tasks:
        facts = (*_asked(spec), ("usable_tasks", usable), ("known_tasks", known))
        return 2, reason(ReasonCode.NO_CAPACITY_YET, *facts)
    return 3, None


def queue_bound(state: State, leaf: QueueNode, spec: JobSpec, flavor: str) -> tuple[str, QueueNode, str, int] | None:
    """The rule that the gang minimum breaks even in an empty cluster: (rule, queue, resource, the most it allows)."""
    need = task_amounts(spec, flavor, spec.min_tasks)
    core = task_amounts(spec, flavor, core_tasks(spec, spec.min_tasks))
    capacity = state.structure.capacity
    if (
        not core
        and not leaf.spec.user_limit
        and not state.book.tree.lends
        and not any(node.limit for node in leaf.chain)
    ):
        return None
    for node in leaf.chain:
        for key, amount in need:
            if key in node.limit and amount > node.limit[key]:
                return "limit", node, key, node.limit[key]
        for key, amount in core:
            quota = node.quota_of(key, max(capacity.get(key, 0), amount))
            if amount > quota:
                return "quota", node, key, quota
    for key, amount in need:
        bound = dict(leaf.spec.user_limit).get(key)
        if bound is not None and amount > bound:
            return "user_limit", leaf, key, bound
    gap = state.book.tree.lending_gap(leaf, need, "plan", capacity, empty=True)
    if gap is not None:
        lender, key, missing = gap
        return "lending_limit", lender, key, dict(need)[key] - missing
    return None


def rule_reason(state: State, leaf: QueueNode, spec: JobSpec, need: Amounts, core: Amounts) -> Reason | None:
    """The rule of a queue that the gang minimum would break now; None when the queues allow it."""
    book, tree = state.book, state.book.tree
    why = user_reason(state, leaf, spec, need)
    if why is not None:
        return why
    gap = tree.core_gap(leaf, core, book.capacity) if core else None
    if gap is not None:
        return _gap_reason(
            ReasonCode.QUOTA_EXHAUSTED, gap, core, "quota", gap[0].quota_of(gap[1], book.capacity.get(gap[1], 0))
        )
    gap = tree.limit_gap(leaf, need, "plan")
    if gap is not None:
        return _gap_reason(ReasonCode.LIMIT_REACHED, gap, need, "limit", gap[0].limit[gap[1]])
    gap = tree.lending_gap(leaf, need, "plan", book.capacity)
    if gap is not None:
        lender, key, missing = gap
        short = (
            ("lender", lender.name),
            ("queue", leaf.name),
            ("resource", key),
            ("gap", missing),
            ("needs", dict(need)[key]),
        )
        return reason(ReasonCode.BORROW_BLOCKED, *short)
    return None


def user_reason(state: State, leaf: QueueNode, spec: JobSpec, need: Amounts) -> Reason | None:
    """Whether its user's limit in the queue keeps it from `need` more."""
    for key, amount in need if leaf.spec.user_limit else ():
        bound = dict(leaf.spec.user_limit).get(key)
        used = state.book.user_plan.get((leaf.name, spec.user, key), 0)
        if bound is not None and used + amount > bound:
            facts = (
                ("user", spec.user),
                ("queue", leaf.name),
                ("resource", key),
                ("limit", bound),
                ("used", used),
                ("needs", amount),
            )
            return reason(ReasonCode.USER_LIMIT, *facts)
    return None


def _gap_reason(code: ReasonCode, gap: tuple[QueueNode, str, int], need: Amounts, word: str, bound: int) -> Reason:
    node, key, missing = gap
    used = (node.core if code is ReasonCode.QUOTA_EXHAUSTED else node.plan).get(key, 0)
    facts = (
        ("queue", node.name),
        ("resource", key),
        ("gap", missing),
        (word, bound),
        ("used", used),
        ("needs", dict(need)[key]),
    )
    return reason(code, *facts)
