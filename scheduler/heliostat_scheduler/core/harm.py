"""Who may be asked to give GPUs to whom, and how much harm it does.

Across queues (*reclaim*): the beneficiary's queues below the common ancestor must stay within their entitlement (or quota), and the
victim's queues below it must be above theirs. Inside a queue (*preempt*): only a strictly lower class is evicted; elastic surplus
is given up to an equal class too. Work that is not preemptible, and the core of semi-preemptible work, is never asked.

Harm is compared as a tuple, smaller is milder; the first number is the kind of harm, the second how far the victim's queue would
fall below what it may call its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from heliostat_scheduler.core.book import ACTIVE, JobRec, Phase, core_tasks, task_amounts
from heliostat_scheduler.core.model import Amounts, JobSpec, Policy, TaskPlace
from heliostat_scheduler.core.tree import QueueNode, QueueTree

MINE, THEIRS = 1, -1
"""Whose turn it is among equals of two queues; 0: nobody's, the queues decide."""


class Harm(IntEnum):
    """Kinds of harm, mildest first."""

    IDLE = 0
    SHRINK_BORROWED = 1
    SHRINK_OWN = 2
    RECLAIM_OVER_SHARE = 3
    RECLAIM_OVER_QUOTA = 4
    PREEMPT = 5
    ASK_BACK = 6
    ROTATE = 7


@dataclass(slots=True, eq=False)
class Unit:
    """Something that could be taken: one surplus task of an elastic job, or a whole job."""

    rec: JobRec
    leaf: QueueNode
    places: tuple[TaskPlace, ...]
    evict: bool
    amounts: Amounts
    lost_ms: int
    idle: bool = False

    @property
    def lost(self) -> int:
        """GPU-milliseconds of work to be done again (CPU-milliseconds for CPU-only jobs)."""
        return self.lost_ms * max(1, self.amounts[0][1] if self.amounts else 1)


@dataclass(slots=True)
class Wish:
    """What the beneficiary needs: `count` more tasks of its shape on one flavor."""

    spec: JobSpec
    leaf: QueueNode
    flavor: str
    count: int
    need: Amounts
    core: Amounts
    near: frozenset[str] = frozenset()
    evict: bool = True
    rank: int = 0
    user_step: int = 0
    starved: bool = False
    chains: dict[str, tuple[tuple[QueueNode, ...], tuple[QueueNode, ...]]] = field(default_factory=dict)

    def below(self, tree: QueueTree, other: QueueNode) -> tuple[tuple[QueueNode, ...], tuple[QueueNode, ...]]:
        found = self.chains.get(other.name)
        if found is None:
            found = self.chains[other.name] = tree.below_common(self.leaf, other)
        return found


def evictable(rec: JobRec) -> bool:
    return rec.phase in ACTIVE and bool(rec.places) and core_tasks(rec.spec, 1) == 0


def surplus_tasks(rec: JobRec) -> int:
    """How many tasks a running elastic job could give up."""
    if rec.phase is not Phase.RUNNING or not rec.spec.elastic or rec.claim:
        return 0
    return max(0, len(rec.places) - rec.spec.min_tasks)


def lost_ms(rec: JobRec, now_ms: int) -> int:
    """Time whose work an eviction throws away, plus the restart. Without a checkpoint: since the start."""
    if rec.spec.saves_on_order:
        return rec.spec.restart_cost_ms
    since = max(rec.checkpoint_at, rec.running_at)
    ran = now_ms - since if rec.phase in (Phase.RUNNING, Phase.RESIZING) and since else 0
    return max(0, ran) + rec.spec.restart_cost_ms


def min_runtime_ms(rec: JobRec, policy: Policy) -> int:
    """How long the job may run undisturbed; one that had to starve for its turn keeps it longer."""
    return max(policy.min_runtime_ms, policy.starvation_turn_ms) if rec.redeemed else policy.min_runtime_ms


def safe_until(rec: JobRec, policy: Policy) -> int:
    """Until when the job may not be disturbed again: minimum runtime, and a cooldown that doubles with every eviction."""
    since = rec.running_at or rec.started_at
    until = since + min_runtime_ms(rec, policy)
    if rec.evictions and policy.cooldown_ms:
        until = max(until, since + min(policy.cooldown_max_ms, policy.cooldown_ms << min(20, rec.evictions - 1)))
    return until


def within(chain: tuple[QueueNode, ...], need: Amounts, quota: bool) -> bool:
    """Whether every queue of the chain stays within its quota (or entitlement) with `need` on top."""
    for node in chain:
        for key, amount in need:
            bound = (node.secured if quota else node.entitled).get(key, 0)
            if amount and node.plan.get(key, 0) + amount > bound:
                return False
    return True


def _fall(chain: tuple[QueueNode, ...], amounts: Amounts, keys: set[str], quota: bool) -> int | None:
    """How far below its own the victim's side would fall; None when some queue of it is not above its own for any asked resource."""
    deepest = 0
    for node in chain:
        over = False
        for key, amount in amounts:
            if key not in keys:
                continue
            bound = (node.secured if quota else node.entitled).get(key, 0)
            plan = node.plan.get(key, 0)
            if plan > bound:
                over = True
                deepest = max(deepest, bound - (plan - amount))
        if not over:
            return None
    return deepest


def reclaim_harm(
    tree: QueueTree, wish: Wish, leaf: QueueNode, amounts: Amounts, capacity: dict[str, int], rule: str, turn: int
) -> tuple[Harm, int] | None:
    """Whether `amounts` of another queue's work may be reclaimed for the wish, and how hard that is."""
    mine, theirs = wish.below(tree, leaf)
    if not mine or not theirs:
        return None
    keys = {key for key, amount in wish.need if amount}
    in_quota = within(mine, wish.need, quota=True)
    if rule == "share":
        return _share_harm(mine[-1], theirs[-1], wish.need, amounts, keys, capacity, in_quota)
    if in_quota or (within(mine, wish.need, quota=False) and turn != THEIRS):
        fall = _fall(theirs, amounts, keys, quota=False)
        if fall is not None:
            return Harm.RECLAIM_OVER_SHARE, fall
    if in_quota:
        fall = _fall(theirs, amounts, keys, quota=True)
        if fall is not None:
            return Harm.RECLAIM_OVER_QUOTA, fall
    elif turn == MINE:
        fall = _fall(theirs, amounts, keys, quota=True)
        if fall is not None and fall <= 0:
            return Harm.ROTATE, 0
    return None


def turn_of(policy: Policy, wish: Wish, leaf: QueueNode, priority: int, rank: int) -> int:
    """Whose turn borrowed capacity is, between a wish and a running equal of another queue.

    MINE: much less work is expected of the wish; THEIRS: of the running one (a share of the surplus is then no reason to displace it).
    """
    if wish.starved:
        return MINE
    if not (policy.rotate and policy.rotate_across and wish.spec.priority == priority):
        return 0
    if not (wish.leaf.spec.rotate and leaf.spec.rotate):
        return 0
    if beats(policy, wish.rank, rank):
        return MINE
    return THEIRS if beats(policy, rank, wish.rank) else 0


def beats(policy: Policy, rank: int, other: int) -> bool:
    """Whether so much less work is expected of the one than of the other that they change places. Rank 0 means unknown."""
    return other * 1000 > rank * policy.rotate_hysteresis_milli > 0


def rank_to_beat(rec: JobRec, now_ms: int) -> int:
    """The rank of a running job for whoever would take its turn: less the work that an eviction throws away, which would be done again."""
    if not rec.rank:
        return 0
    shape = rec.spec.shape
    again_ms = lost_ms(rec, now_ms) - rec.spec.restart_cost_ms
    return max(1, rec.rank - again_ms * max(1, (shape.gpu_milli or shape.cpu_milli) * rec.spec.min_tasks))


def least_beaten(policy: Policy, rank: int) -> int:
    """The smallest rank that this one beats."""
    return rank * policy.rotate_hysteresis_milli // 1000 + 1


def most_beaten_by(policy: Policy, rank: int) -> int:
    """The smallest known rank that does not beat this one."""
    return -(-rank * 1000 // policy.rotate_hysteresis_milli)


def victim_side_over(chain: tuple[QueueNode, ...], keys: tuple[str, ...]) -> bool:
    """Whether the victim's queues are above their entitlement, or all above their quota: else nothing of theirs can be reclaimed."""
    amounts = tuple((key, 0) for key in keys)
    return any(_fall(chain, amounts, set(keys), quota) is not None for quota in (False, True))


def _share_harm(
    mine: QueueNode,
    theirs: QueueNode,
    need: Amounts,
    amounts: Amounts,
    keys: set[str],
    capacity: dict[str, int],
    in_quota: bool,
) -> tuple[Harm, int] | None:
    """Fair sharing by borrowed share over weight (Kueue's two rules): mine afterwards must not be above theirs."""
    fall = _fall((theirs,), amounts, keys, quota=True)
    if fall is None:
        return None
    if in_quota:
        return Harm.RECLAIM_OVER_SHARE, fall
    wanted, taken = dict(need), dict(amounts)
    for key in keys:
        new_mine = _borrowed(mine, key, wanted.get(key, 0), capacity)
        old_theirs = _borrowed(theirs, key, 0, capacity)
        new_theirs = _borrowed(theirs, key, -taken.get(key, 0), capacity)
        ours, others = max(1, mine.spec.weight), max(1, theirs.spec.weight)
        if new_mine * others <= new_theirs * ours:
            return Harm.RECLAIM_OVER_SHARE, fall
        if new_mine * others < old_theirs * ours:
            return Harm.RECLAIM_OVER_QUOTA, fall
    return None


def _borrowed(node: QueueNode, key: str, more: int, capacity: dict[str, int]) -> int:
    return max(0, node.plan.get(key, 0) + more - node.quota_of(key, capacity.get(key, 0)))


def idle_harm(wish: Wish, unit: Unit, tree: QueueTree) -> bool:
    """Whether an idle job may be asked first, for an equal too: its surplus in the own queue; otherwise what its queue borrows."""
    if unit.rec.spec.priority > wish.spec.priority:
        return False
    own = unit.leaf is wish.leaf
    if own and not unit.evict:
        return True
    chain = (unit.leaf,) if own else wish.below(tree, unit.leaf)[1]
    keys = {key for key, amount in wish.need if amount}
    fall = _fall(chain, unit.amounts, keys, quota=True)
    return fall is not None and (own or fall <= 0)


def own_harm(
    policy: Policy, wish: Wish, rec: JobRec, evict: bool, now_ms: int, equals: bool = True
) -> tuple[Harm, int] | None:
    """Inside the beneficiary's own queue. equals: whether surplus may go to an equal class (see `Search.equals_share`)."""
    if evict:
        if (policy.preempt and rec.spec.priority < wish.spec.priority) or wish.starved:
            return Harm.PREEMPT, 0
        return (Harm.ROTATE, 0) if rotates(policy, wish, rec, now_ms) else None
    lower = rec.spec.priority < wish.spec.priority or wish.starved
    return (Harm.SHRINK_OWN, 0) if lower or (equals and rec.spec.priority == wish.spec.priority) else None


def rotates(policy: Policy, wish: Wish, rec: JobRec, now_ms: int) -> bool:
    """Whether an equal of the same queue may be set aside because much more work is expected of it.

    rank is expected remaining GPU time, learned from history. The hysteresis keeps two jobs from taking turns on a small difference:
    what was set aside can only come back against somebody whose rank is worse again by the same factor.
    """
    return (
        policy.rotate
        and wish.leaf.spec.rotate
        and rec.spec.priority == wish.spec.priority
        and wish.user_step <= rec.user_step
        and beats(policy, wish.rank, rank_to_beat(rec, now_ms))
    )


def asked_back(wish: Wish, rec: JobRec, now_ms: int) -> bool:
    """Whether the job went ahead of this very wish on the condition that it gives way now (revocable backfill, inside a queue)."""
    return rec.behind == wish.spec.id and now_ms >= rec.behind_until and rec.spec.queue == wish.spec.queue


def unit_amounts(rec: JobRec, tasks: int) -> Amounts:
    return task_amounts(rec.spec, rec.flavor, tasks)
