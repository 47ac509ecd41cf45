"""What stands between a starved job and the GPUs that it needs, and when each of them can be had.

Work that the job may ask to leave (preemptible work of its own queue, and what other queues hold above their quota) can be had when its
minimum runtime is over; everything else when it ends: by its own declared maximum, or nobody knows when. A learned end is no bound, and
an end that is overdue predicts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec, core_tasks, task_amounts
from heliostat_scheduler.core.copies import as_they_are
from heliostat_scheduler.core.harm import Wish, min_runtime_ms, reclaim_harm, turn_of
from heliostat_scheduler.core.judge import candidate_flavors, rule_reason
from heliostat_scheduler.core.model import JobSpec, Policy, TaskPlace
from heliostat_scheduler.core.placement import find
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.space import Space
from heliostat_scheduler.core.starvation import deadline_ms

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State
    from heliostat_scheduler.core.waiting import Group

NEVER = 1 << 62
"""The end of work of which no end is known."""


@dataclass(slots=True)
class Turn:
    """When a starved job has a place on one flavor (NEVER: not known).

    ends: who cannot be asked and has to end before, the soonest first. beside: what is free then beside the job; None when not known.
    rule: there is room, only this rule of its queue keeps it waiting.
    """

    at_ms: int
    ends: tuple[JobRec, ...] = ()
    beside: Space | None = None
    rule: Reason | None = None

    def concerns(self, state: State, rec: JobRec, starved: JobRec) -> bool:
        """Whether what the other job holds, or starts, is a part of what the starved one waits for."""
        if self.rule is None:
            return True
        if self.rule.code is ReasonCode.USER_LIMIT:
            return (rec.spec.queue, rec.spec.user) == (starved.spec.queue, starved.spec.user)
        if self.rule.code is ReasonCode.QUOTA_EXHAUSTED and not core_tasks(rec.spec, rec.spec.min_tasks):
            return False
        return any(node.name == self.rule.fact("queue") for node in state.book.leaf_of(rec).chain)


def turn_for(state: State, rec: JobRec, flavor: str, now_ms: int) -> Turn | None:
    """Let one after the other leave, whoever can be had first, until the job has a place; None when it never has one."""
    space, spec = state.book.soon.copy(), rec.spec
    room, rule = _room(space, spec, flavor), _rule(state, rec, flavor)
    if room and rule is None:
        return Turn(now_ms)
    turn = Turn(NEVER, rule=rule if room else None)
    rows = [row for row in _rows(state, rec, flavor, now_ms) if turn.concerns(state, row[2], rec)]
    gone: list[JobRec] = []
    ends: list[JobRec] = []
    try:
        for number, (at_ms, asked, other) in enumerate(rows):
            space.give(other.places, other.spec.shape)
            _account(state, other, -1)
            gone.append(other)
            if not asked:
                ends.append(other)
            if asked and number + 1 < len(rows) and rows[number + 1][:2] == (at_ms, True):
                continue
            places = _room(space, spec, flavor)
            if places is not None and _rule(state, rec, flavor) is None:
                turn.at_ms, turn.ends = at_ms, tuple(ends)
                if at_ms != NEVER and rule is None:
                    space.take(places, spec.shape)
                    turn.beside = space
                return turn
    finally:
        for other in gone:
            _account(state, other, 1)
    return None


def _room(space: Space, spec: JobSpec, flavor: str) -> tuple[TaskPlace, ...] | None:
    if flavor and space.free_milli.get(flavor, 0) < spec.shape.gpu_milli * spec.min_tasks:
        return None
    return find(space, spec.shape, spec.min_tasks, (flavor,) if flavor else spec.flavors, spec.spread)


def _rule(state: State, rec: JobRec, flavor: str) -> Reason | None:
    spec = rec.spec
    core = task_amounts(spec, flavor, core_tasks(spec, spec.min_tasks))
    return rule_reason(state, state.book.leaf_of(rec), spec, task_amounts(spec, flavor, spec.min_tasks), core)


def _account(state: State, rec: JobRec, sign: int) -> None:
    """What the queues would count if the job had left."""
    book, leaf = state.book, state.book.leaf_of(rec)
    book.tree.add(leaf, "plan", rec.counted[1], sign)
    book.tree.add(leaf, "core", rec.counted[2], sign)
    if leaf.spec.user_limit:
        for key, amount in rec.counted[1]:
            at = (leaf.name, rec.spec.user, key)
            book.user_plan[at] = book.user_plan.get(at, 0) + sign * amount


def _rows(state: State, rec: JobRec, flavor: str, now_ms: int) -> list[tuple[int, bool, JobRec]]:
    """(when it can be had, whether it would be asked, the job) of everybody who holds this flavor; those who were there first come first."""
    book, tree = state.book, state.book.tree
    leaf = book.leaf_of(rec)
    need = task_amounts(rec.spec, flavor, rec.spec.min_tasks)
    wish = Wish(rec.spec, leaf, flavor, rec.spec.min_tasks, need, (), starved=True)
    holders = [
        other
        for at in tree.leaves
        for other in state.holders(at.name)
        if other.places and (not flavor or other.flavor == flavor)
    ]
    asked: list[JobRec] = []
    for other in sorted(holders, key=lambda other: (-other.started_at, other.id)):
        if _may_ask(state, wish, other):
            asked.append(other)
            tree.add(book.leaf_of(other), "plan", task_amounts(other.spec, other.flavor, len(other.places)), -1)
    for other in asked:
        tree.add(book.leaf_of(other), "plan", task_amounts(other.spec, other.flavor, len(other.places)), 1)
    ids = {other.id for other in asked}
    rows = []
    for other in sorted(holders, key=lambda other: (other.started_at, other.id)):
        if other.id in ids:
            since = other.running_at or other.started_at
            rows.append((max(now_ms, since + min_runtime_ms(other, state.policy)), True, other))
        else:
            rows.append((declared_end_ms(other, now_ms), False, other))
    return sorted(rows, key=lambda row: (row[0], not row[1]))


def _may_ask(state: State, wish: Wish, other: JobRec) -> bool:
    """Whether a starved job may ask the other one to leave (see `Search`)."""
    if core_tasks(other.spec, 1):
        return False
    leaf, policy = state.book.leaf_of(other), state.policy
    if leaf is wish.leaf:
        return True
    amounts = task_amounts(other.spec, other.flavor, len(other.places))
    turn = turn_of(policy, wish, leaf, other.spec.priority, 0)
    tree = state.book.tree
    return (
        policy.reclaim
        and reclaim_harm(tree, wish, leaf, amounts, state.book.capacity, policy.reclaim_rule, turn) is not None
    )


def declared_end_ms(rec: JobRec, now_ms: int) -> int:
    """By when a job has ended by its own declared maximum; NEVER when it declares none, does not run yet, or should have ended."""
    if not rec.running_at or not rec.spec.max_runtime_ms:
        return NEVER
    end_ms = rec.running_at + rec.spec.max_runtime_ms
    return end_ms if end_ms > now_ms else NEVER


@dataclass(frozen=True, slots=True)
class Promise:
    """By when a job that has never run starts, as things are now: until it starves, other work that may not be asked can still start.

    starts_by_ms: None when somebody has to end of whom no end is known; then it is at most within_ms after the last of them.
    behind: jobs that starve before it and have their turn first. ends: who has to end, because nobody may ask it to leave.
    """

    deadline_ms: int
    starts_by_ms: int | None
    within_ms: int
    behind: int
    ends: tuple[JobRec, ...]


def promise_of(state: State, rec: JobRec) -> Promise | None:
    """None where its class has no deadline, it has run before, or not even all GPUs of today would do.

    Once whatever cannot be asked has ended, each of those in front, and then the job itself, waits for at most one protection and one grace.
    """
    due, policy, now_ms = deadline_ms(rec.spec, state.policy), state.policy, state.now_ms
    if due is None or rec.attempt:
        return None
    found: list[Turn | None] = [Turn(now_ms)]
    if not rec.claim:
        found = [turn_for(state, rec, flavor, now_ms) for flavor in candidate_flavors(state, rec.spec)]
    turn = min(
        (turn for turn in found if turn is not None), key=lambda turn: (turn.at_ms, len(turn.ends)), default=None
    )
    if turn is None or (turn.ends and not rec.spec.shape.gpu_milli):
        return None  # nothing is kept free for work that needs no GPU
    held = [other for leaf in state.book.tree.leaves for other in state.holders(leaf.name)]
    within_ms = max(policy.min_runtime_ms, policy.starvation_turn_ms) + max((o.spec.grace_ms for o in held), default=0)
    behind = _starve_before(state, rec, due)
    known = not turn.ends or turn.at_ms != NEVER
    start = due
    if turn.ends and known:  # until it starves, more work like theirs may start
        longest = max(other.spec.max_runtime_ms or 0 for other in turn.ends)
        start = turn.at_ms if due <= now_ms else max(turn.at_ms, due + longest)
    return Promise(due, start + (behind + 1) * within_ms if known else None, within_ms, behind, turn.ends)


def _starve_before(state: State, rec: JobRec, due_ms: int) -> int:
    """How many waiting jobs that ask for the same starve before this one. Thousands may wait, so what groups have in common is asked once."""
    waiting, jobs = state.waiting, state.book.jobs
    flavors = frozenset(candidate_flavors(state, rec.spec))
    firsts: dict[int, tuple[int, str] | None] = {}
    alike: dict[tuple[bool, tuple[str, ...]], bool] = {}
    ahead: list[str] = []
    for group in waiting.every_group():
        spec = group.spec
        if spec.priority not in firsts:
            firsts[spec.priority] = _before(spec, state.policy, rec.spec, due_ms)
        first, accepts = firsts[spec.priority], (spec.shape.gpu_milli == 0, spec.flavors)
        if accepts not in alike:
            alike[accepts] = not flavors.isdisjoint(candidate_flavors(state, spec))
        if first is not None and alike[accepts] and _fits(state, group):
            ahead += [key[4] for key in group.members if key[3:] < first]
    found = [other.attempt for other in as_they_are(jobs, ahead)].count(0)
    if len(waiting.group_of) < len(waiting.keys):
        others = [job_id for job_id in waiting.keys if job_id not in waiting.group_of]
        for job_id, other in zip(others, as_they_are(jobs, others), strict=True):
            first = _before(other.spec, state.policy, rec.spec, due_ms)
            if first is not None and (other.spec.submitted_at_ms, job_id) < first and not other.attempt:
                accepted = candidate_flavors(state, other.spec)
                found += not flavors.isdisjoint(accepted) and state.could_ever_fit(other.spec)
    return found


def _before(spec: JobSpec, policy: Policy, mine: JobSpec, due_ms: int) -> tuple[int, str] | None:
    """Jobs of the class of `spec` starve before `mine` does if they were submitted before this: (time, id). None: they never starve."""
    due = deadline_ms(spec, policy)
    if due is None:
        return None
    last = due_ms - (due - spec.submitted_at_ms)
    if last == mine.submitted_at_ms:
        return last, mine.id
    return (last, "") if last > mine.submitted_at_ms else (last + 1, "")


def _fits(state: State, group: Group) -> bool:
    judged = group.judged_for is state.structure
    return group.structural is None if judged else state.could_ever_fit(group.spec)
