"""Why a job waits and what would start it: the binding reason, every constraint with its numbers, and remedies that were tried.

A remedy is shown only after it was carried out on a copy of the engine and the job started within one cycle: at once, or, when
others have to leave first, as soon as they had left. Whoever loses GPUs by it is named. Changes of the job itself come first, those
that disturb nobody before those that do; somebody else's cancellation is offered only if no change of the job itself helps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from heliostat_scheduler.core.book import HOLDING, JobRec, core_tasks, task_amounts
from heliostat_scheduler.core.harm import safe_until, within
from heliostat_scheduler.core.judge import (
    candidate_flavors,
    personal_reason,
    room_in,
    rule_reason,
    structural_reason,
)
from heliostat_scheduler.core.model import CPU, MEMORY, UNLIMITED, Amounts
from heliostat_scheduler.core.placement import find, largest
from heliostat_scheduler.core.reasons import Reason, ReasonCode, Remedy
from heliostat_scheduler.core.space import Space
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.turn import NEVER, declared_end_ms, promise_of

Facts = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One constraint: its name, whether it lets the job pass now, and the numbers."""

    name: str
    ok: bool
    facts: Facts = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that can be said about a waiting job at `as_of_ms`."""

    job_id: str
    reason: Reason
    checks: tuple[Check, ...]
    remedies: tuple[Remedy, ...]
    position: int | None
    estimated_start_ms: int | None
    as_of_ms: int


def glance(state: State, job_id: str, now_ms: int) -> Explanation:
    """What is known at once about a waiting job: the reason of the last cycle and the constraints, without tried remedies.

    KeyError when it does not wait. Costs no fork and no cycle: for answers that must not wait for the remedies.
    """
    rec = state.book.jobs.get(job_id)
    if rec is None or rec.phase in HOLDING:
        raise KeyError(f"job {job_id} does not wait")
    why = state.waiting_reason(rec)
    assert why is not None, f"{job_id} waits without a reason"
    return Explanation(job_id, why, checks_of(state, rec), (), state.waiting.position(rec), why.until_ms, now_ms)


def standing(state: State, job_id: str, now_ms: int) -> tuple[Check, ...]:
    """What protects a job that holds GPUs, and what does not: its size, its queue's share, its class, its protection, its use.

    A check that is not ok is a way in which the scheduler may take something from it. KeyError when it holds nothing.
    """
    rec = state.book.jobs.get(job_id)
    if rec is None or rec.phase not in HOLDING:
        raise KeyError(f"job {job_id} holds nothing")
    spec, leaf, capacity = rec.spec, state.book.leaf_of(rec), state.book.capacity
    found = [
        Check(
            "at its largest size",
            len(rec.places) >= spec.max_tasks,
            (("max_tasks", spec.max_tasks), ("tasks", len(rec.places))),
        )
    ]
    if spec.elastic:
        found.append(Check("no surplus to give", len(rec.places) <= spec.min_tasks, (("min_tasks", spec.min_tasks),)))
    for node in leaf.chain:
        for key, _ in task_amounts(spec, rec.flavor, max(1, len(rec.places))):
            used, quota, share = (
                node.plan.get(key, 0),
                node.quota_of(key, capacity.get(key, 0)),
                node.entitled.get(key, 0),
            )
            facts: Facts = (("used", used), ("quota", quota), ("queue", node.name), ("resource", key))
            found.append(Check("within the queue's quota", used <= quota or quota == UNLIMITED, facts))
            found.append(
                Check(
                    "within the queue's fair share",
                    used <= share,
                    (("used", used), ("entitled", share), ("queue", node.name), ("resource", key)),
                )
            )
    core = core_tasks(spec, len(rec.places))
    found.append(
        Check("may not be stopped", core > 0, (("preemptibility", spec.preemptibility.value), ("tasks", core)))
    )
    safe = safe_until(rec, state.policy)
    found.append(
        Check("protected for now", safe > now_ms, (("left_ms", max(0, safe - now_ms)), ("evictions", rec.evictions)))
    )
    idle_ms = max(0, now_ms - rec.idle_since) if rec.idle_since else 0
    found.append(
        Check(
            "uses its GPUs",
            not rec.idle_state,
            (("idle_ms", idle_ms), *((("state", rec.idle_state),) if rec.idle_state else ())),
        )
    )
    return tuple(found)


def checks_of(state: State, rec: JobRec) -> tuple[Check, ...]:
    """All constraints in the order in which the engine asks them, on the flavor that it would try first."""
    spec = rec.spec
    checks = [_own_check(state, rec), _structure_check(state, rec), *_bound_check(state, rec)]
    flavors = candidate_flavors(state, spec)
    if not flavors:
        return tuple(checks)
    flavor = flavors[0]
    need = task_amounts(spec, flavor, spec.min_tasks)
    core = task_amounts(spec, flavor, core_tasks(spec, spec.min_tasks))
    checks += _queue_checks(state, rec, need, core)
    checks += _capacity_checks(state, rec, flavor, need)
    return tuple(checks)


def _bound_check(state: State, rec: JobRec) -> list[Check]:
    """By when the job gets its turn whatever its class, and whose end that depends on: nobody's where all in its way may be asked to leave."""
    promise = promise_of(state, rec)
    if promise is None:
        return []
    facts: Facts = (("deadline_ms", promise.deadline_ms),)
    if promise.behind:
        facts += (("behind_starved", promise.behind),)
    if promise.ends:
        facts += (("after_jobs", len(promise.ends)), ("after", ", ".join(other.id for other in promise.ends[:8])))
        known = [end for end in (declared_end_ms(other, state.now_ms) for other in promise.ends) if end != NEVER]
        if known:
            facts += (("declared_to_end_by_ms", max(known)), ("without_declared_end", len(promise.ends) - len(known)))
    if promise.starts_by_ms is None:
        return [Check("starts in time", False, (*facts, ("starts_within_ms", promise.within_ms)))]
    return [
        Check("starts in time", state.now_ms <= promise.starts_by_ms, (*facts, ("starts_by_ms", promise.starts_by_ms)))
    ]


def _own_check(state: State, rec: JobRec) -> Check:
    why = personal_reason(state, rec)
    return Check("may be tried now", why is None, () if why is None else (("code", str(why.code)), *why.facts))


def _structure_check(state: State, rec: JobRec) -> Check:
    why = structural_reason(state, rec.spec)
    return Check("fits the cluster", why is None, () if why is None else (("code", str(why.code)), *why.facts))


def _queue_checks(state: State, rec: JobRec, need: Amounts, core: Amounts) -> list[Check]:
    book = state.book
    tree, capacity = book.tree, book.capacity
    leaf = book.leaf_of(rec)
    found: list[Check] = []
    for node in leaf.chain:
        for key, amount in need:
            plan = node.plan.get(key, 0)
            quota, share = node.quota_of(key, capacity.get(key, 0)), node.entitled.get(key, 0)
            asked: Facts = (("needs", amount), ("queue", node.name), ("resource", key))
            base: Facts = (*asked, ("used", plan))
            if key in node.limit:
                found.append(Check("limit", plan + amount <= node.limit[key], (*base, ("limit", node.limit[key]))))
            if core:
                fixed = node.core.get(key, 0)
                found.append(Check("quota", fixed + amount <= quota, (*asked, ("used", fixed), ("quota", quota))))
            found.append(Check("fair share", plan + amount <= share, (*base, ("entitled", share), ("quota", quota))))
    gap = tree.lending_gap(leaf, need, "plan", capacity)
    if tree.lends:
        facts: Facts = () if gap is None else (("lender", gap[0].name), ("resource", gap[1]), ("gap", gap[2]))
        found.append(Check("lending", gap is None, facts))
    for key, amount in need:
        bound = dict(leaf.spec.user_limit).get(key)
        if bound is not None:
            used = book.user_plan.get((leaf.name, rec.spec.user, key), 0)
            facts = (
                ("needs", amount),
                ("queue", leaf.name),
                ("user", rec.spec.user),
                ("resource", key),
                ("used", used),
                ("limit", bound),
            )
            found.append(Check("user limit", used + amount <= bound, facts))
    return found


def _capacity_checks(state: State, rec: JobRec, flavor: str, need: Amounts) -> list[Check]:
    book, spec = state.book, rec.spec
    flavors = (flavor,) if flavor else spec.flavors
    found: list[Check] = []
    for space, name in ((book.now, "free now"), (book.soon, "free when all have left")):
        if space is book.soon and not book.leavers:
            continue
        tasks = largest(space, spec.shape, flavors, spec.spread)
        fits = find(space, spec.shape, spec.min_tasks, flavors, spec.spread) is not None
        for key, amount in need:
            facts: Facts = (
                ("needs", amount),
                ("free", free_amount(space, key)),
                ("resource", key),
                ("tasks_that_fit", tasks),
                ("tasks", spec.min_tasks),
            )
            found.append(Check(name, fits, facts))
    for pool in (state.node_pools[name] for name in flavors if name in state.node_pools):
        more: Facts = (("flavor", pool.flavor), ("max_nodes", pool.max_nodes), ("more_nodes", room_in(state, pool)))
        found.append(Check("more nodes can be had", bool(room_in(state, pool)), more))
    leaf = book.leaf_of(rec)
    may = any(within(leaf.chain, need, quota) for quota in (True, False))
    found.append(Check("may reclaim", may and state.policy.reclaim, (("queue", leaf.name),)))
    lower = sorted(
        r.id for r in state.holders(leaf.name) if r.spec.priority < spec.priority and not core_tasks(r.spec, 1)
    )
    found.append(Check("may preempt", bool(lower) and state.policy.preempt, (("lower_class_jobs", len(lower)),)))
    return found


def free_amount(space: Space, key: str) -> int:
    """What is free of a resource: of a flavor in milli-GPU, of CPU and memory what floats on the usable nodes."""
    if key not in (CPU, MEMORY):
        return space.free_milli.get(key, 0)
    return sum(max(0, node.cpu if key == CPU else node.memory) for node in space.nodes.values() if node.opened)


def never_fits_tasks(state: State, rec: JobRec) -> int:
    """The largest gang of the job's task that the usable nodes, all empty, and every rule of its queue allow."""
    low, high = 0, rec.spec.min_tasks
    while low < high:
        middle = (low + high + 1) // 2
        spec = replace(rec.spec, min_tasks=middle, max_tasks=max(middle, rec.spec.max_tasks), sizes=())
        low, high = (middle, high) if structural_reason(state, spec) is None else (low, middle - 1)
    return low


def headroom(state: State, rec: JobRec) -> int:
    """The largest gang of the job's task for which there is room now, among what is free and under every rule of its queue."""
    spec, book = rec.spec, state.book
    leaf = book.leaf_of(rec)
    best = 0
    for flavor in candidate_flavors(state, spec):
        free = largest(book.soon, spec.shape, (flavor,) if flavor else spec.flavors, spec.spread)
        low, high = 0, min(free, spec.min_tasks)
        while low < high:
            middle = (low + high + 1) // 2
            core = task_amounts(spec, flavor, core_tasks(spec, middle))
            allowed = rule_reason(state, leaf, spec, task_amounts(spec, flavor, middle), core) is None
            low, high = (middle, high) if allowed else (low, middle - 1)
        best = max(best, low)
    return best


def holders_of(state: State, rec: JobRec, why: Reason) -> tuple[str, ...]:
    """Who holds what a rule of a queue denies to this job: the largest holder first, at most 8."""
    book, tree = state.book, state.book.tree
    match why.code:
        case ReasonCode.LIMIT_REACHED | ReasonCode.QUOTA_EXHAUSTED:
            bound = tree.by_name[str(why.fact("queue"))]
            leaves = [leaf for leaf in tree.leaves if bound in leaf.chain]
        case ReasonCode.USER_LIMIT:
            leaves = [book.leaf_of(rec)]
        case ReasonCode.BORROW_BLOCKED:
            leaves = tree.leaves
        case _:
            return ()
    key = str(why.fact("resource"))
    held: list[tuple[int, str]] = []
    for other in (other for leaf in leaves for other in state.holders(leaf.name)):
        tasks = len(other.places)
        if why.code is ReasonCode.QUOTA_EXHAUSTED:
            tasks = core_tasks(other.spec, tasks)
        amount = dict(task_amounts(other.spec, other.flavor, tasks)).get(key, 0)
        if amount and (why.code is not ReasonCode.USER_LIMIT or other.spec.user == rec.spec.user):
            held.append((-amount, other.id))
    return tuple(job_id for _, job_id in sorted(held)[:8])
