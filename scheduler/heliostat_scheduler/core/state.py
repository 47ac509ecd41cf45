"""The whole state of an engine: the book, the waiting lines, the policy, and the few things that remember time.

`settle` and `unsettle` are the only ways in and out of the waiting lines. Every event is: check, unsettle, change, settle.
`stale` says that a full look at all waiting work is due; without it a cycle only judges what is fresh, because nothing that
could let an already judged job start has changed.
"""

from __future__ import annotations

import heapq

from heliostat_scheduler.core.book import HOLDING, Book, JobRec, Phase, task_amounts
from heliostat_scheduler.core.fragmentation import Fragmentation
from heliostat_scheduler.core.judge import coming_reason, judge, personal_reason, structural_reason
from heliostat_scheduler.core.model import DemandKind, JobSpec, NodeComing, NodePool, Policy, QueueSpec
from heliostat_scheduler.core.pools import Pool
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.starvation import is_starved, next_starvation_ms
from heliostat_scheduler.core.structure import Structure
from heliostat_scheduler.core.tree import QueueTree
from heliostat_scheduler.core.usage import advance
from heliostat_scheduler.core.victims import LeafVictims
from heliostat_scheduler.core.waiting import (
    STARVED,
    Group,
    OrderKey,
    Signature,
    Waiting,
    age_steps,
    demand_amounts,
    next_age_ms,
)


class State:
    """Everything a decision may depend on."""

    def __init__(self, policy: Policy, queues: tuple[QueueSpec, ...] = ()) -> None:
        self.policy = policy
        self.book = Book(QueueTree(queues))
        self.waiting = Waiting()
        self.cycle = 0
        self.now_ms = 0
        self.stale = True
        self.recheck_at: int | None = None
        self.timers: list[tuple[int, str]] = []
        self.attention: set[str] = set()
        self.elastic: set[str] = set()
        self.just_started: set[str] = set()
        """Jobs that got places in this cycle: none of them is asked for any in the same plan."""
        self.pools: dict[tuple[str, str], tuple[int, Pool]] = {}
        self.victims: dict[tuple[str, str], LeafVictims] = {}
        self.largest_holders: dict[str, tuple[int, list[str]]] = {}
        self.safe_times: dict[str, tuple[int, Policy, list[int]]] = {}
        self.largest_in: dict[tuple[str, str], tuple[int, list[tuple[int, str]]]] = {}
        self.searched: set[Signature] = set()
        self.dependents: dict[str, set[str]] = {}
        self.failed: dict[str, str] = {}
        self.flavors: tuple[str, ...] = ()
        self.structure = Structure({}, {})
        self.restructure = True
        self.mix: tuple[DemandKind, ...] = ()
        self.node_pools: dict[str, NodePool] = {}
        self.coming: tuple[NodeComing, ...] = ()
        self.comes_for: dict[str, NodeComing] = {}
        self.clock = 0
        self.usage_at = 0
        self.user_usage: dict[tuple[str, str], int] = {}
        self.user_steps: dict[tuple[str, str], int] = {}
        self.idle: set[str] = set()
        self.revocable: dict[str, set[str]] = {}
        self.losses: dict[str, tuple[int, int]] = {}
        self.entitled_before: tuple[tuple[int, ...], ...] = ()

        self.watch_book()

    def watch_book(self) -> None:
        """Use is counted up to now whenever what is occupied is about to change."""
        self.book.before_change = lambda: advance(self, self.clock)

    def set_mix(self, kinds: tuple[DemandKind, ...]) -> None:
        """From now on single tasks are placed so that what stays free suits this mix."""
        self.mix = kinds
        chooser = Fragmentation(kinds) if kinds else None
        self.book.now.chooser = chooser
        self.book.soon.chooser = chooser

    def set_coming(self, coming: tuple[NodeComing, ...]) -> None:
        """Which jobs wait for nodes that are on their way."""
        self.coming = coming
        self.comes_for = {job_id: nodes for nodes in coming for job_id in nodes.jobs}

    # -- order and groups

    def order_key(self, rec: JobRec, now_ms: int) -> OrderKey:
        spec = rec.spec
        if is_starved(rec, self.policy, now_ms):
            return OrderKey(-STARVED, 0, 0, spec.submitted_at_ms, spec.id)
        priority = spec.priority + (0 if rec.rank else age_steps(spec, self.policy, now_ms))
        return OrderKey(-priority, rec.user_step, rec.rank, spec.submitted_at_ms, spec.id)

    def signature(self, rec: JobRec, now_ms: int) -> Signature:
        spec = rec.spec
        limited = bool(self.book.tree.by_name[spec.queue].spec.user_limit)
        delay = self.policy.preemption_delay_ms if spec.preemption_delay_ms is None else spec.preemption_delay_ms
        length = self.length_ms(rec)
        return Signature(
            spec.queue, spec.priority, spec.preemptibility, spec.shape, spec.min_tasks, spec.max_tasks, spec.sizes,
            spec.flavors, spec.spread, spec.elastic, spec.user if limited else "",
            spec.submitted_at_ms + delay if delay else 0, length, is_starved(rec, self.policy, now_ms),
        )  # fmt: skip

    def length_ms(self, rec: JobRec) -> int:
        """The runtime bound that backfill may count on; 0 when nothing is known or needed."""
        if not self.policy.backfill:
            return 0
        return rec.spec.max_runtime_ms or 0

    def on_condition(self, rec: JobRec, first: str, until_ms: int) -> None:
        """The job goes ahead of `first`, which may ask for these places from `until_ms` on ('' = it goes ahead of nobody)."""
        self.revocable.get(rec.behind, set()).discard(rec.id)
        rec.behind, rec.behind_until = first, until_ms
        if first:
            self.revocable.setdefault(first, set()).add(rec.id)
            heapq.heappush(self.timers, (until_ms, rec.id))

    def asks_back(self, job_id: str) -> bool:
        """Whether somebody holds GPUs on the condition that this job gets them when it is due."""
        jobs = (self.book.jobs[other] for other in self.revocable.get(job_id, ()))
        return any(rec.places and self.now_ms >= rec.behind_until for rec in jobs)

    def conditions_end(self, job_id: str) -> None:
        """The job has started, or is gone: who went ahead of it keeps what it has."""
        for other in sorted(self.revocable.pop(job_id, ())):
            self.book.jobs[other].behind, self.book.jobs[other].behind_until = "", 0
            self.book.touched.add(other)

    def blocked_by(self, spec: JobSpec) -> str | None:
        """The first dependency that is not done successfully."""
        for other in spec.dependencies:
            if other in self.book.jobs or other in self.failed:
                return other
        return None

    def settle(self, rec: JobRec, now_ms: int) -> None:
        """Put a waiting job where it belongs: in its queue's order, and in its group if it may be tried."""
        if rec.phase in HOLDING:
            return
        if rec.id not in self.waiting.keys:
            self.waiting.enter(rec, self.order_key(rec, now_ms))
            self._watch_age(rec, now_ms)
        if rec.phase is Phase.HELD or rec.claim or self.blocked_by(rec.spec) is not None:
            return
        if rec.retry_at > now_ms:
            heapq.heappush(self.timers, (rec.retry_at, rec.id))
            return
        group = self.waiting.join(rec, self.signature(rec, now_ms))
        self._count_group(group, 1, new=len(group.members) == 1)

    def resettle(self, rec: JobRec, now_ms: int) -> None:
        """Time has passed for a waiting job: it may be due, have aged, or be starved."""
        group = self.waiting.group_of.get(rec.id)
        if group is not None and group.signature == self.signature(rec, now_ms):
            self.waiting.rekey(rec, self.order_key(rec, now_ms))
            self._watch_age(rec, now_ms)
            return
        self.unsettle(rec)
        self.settle(rec, now_ms)

    def _watch_age(self, rec: JobRec, now_ms: int) -> None:
        for time in (next_age_ms(rec.spec, self.policy, now_ms), next_starvation_ms(rec, self.policy, now_ms)):
            if time is not None:
                heapq.heappush(self.timers, (time, rec.id))

    def unsettle(self, rec: JobRec) -> None:
        """Take a job out of its group and its queue's order."""
        self.part(rec)
        self.waiting.quit(rec)

    def part(self, rec: JobRec) -> None:
        """Take a job out of its group only: it keeps its place in the order."""
        group = self.waiting.part(rec)
        if group is not None:
            self._count_group(group, -1)

    def _count_group(self, group: Group, sign: int, new: bool = False) -> None:
        if new:
            group.feasible = self.could_ever_fit(group.spec)
        if group.feasible:
            amounts = demand_amounts(group.spec, self.flavors, group.spec.max_tasks)
            self.book.tree.add(self.book.tree.by_name[group.signature.queue], "want", amounts, sign)

    def refresh(self) -> None:
        """After a change of nodes or queues: what can ever fit, and every queue account, from nothing."""
        if not self.restructure:
            return
        self.restructure = False
        self.stale = True
        self.structure = Structure(self.book.nodes, self.book.blocked, tuple(self.node_pools.values()))
        self.flavors = self.structure.flavors
        tree = self.book.tree
        self.book.recount_wants()
        for line in self.waiting.lines.values():
            for group in line.groups.values():
                judge(self, group)
                group.feasible = group.structural is None
                if group.feasible:
                    amounts = demand_amounts(group.spec, self.flavors, group.spec.max_tasks * len(group.members))
                    tree.add(tree.by_name[group.signature.queue], "want", amounts, 1)

    def replace_queues(self, tree: QueueTree) -> None:
        advance(self, self.clock)
        for name, node in tree.by_name.items():
            old = self.book.tree.by_name.get(name)
            if old is not None:
                node.usage, node.pull = old.usage, old.pull
        self.book.recount(tree)
        self.restructure = True

    # -- what can ever fit

    def could_ever_fit(self, spec: JobSpec) -> bool:
        """Whether the gang minimum fits into the empty cluster of today and under every limit."""
        return structural_reason(self, spec) is None

    # -- reasons

    def waiting_reason(self, rec: JobRec) -> Reason | None:
        """The one reason why a waiting job waits (None: it holds a lease)."""
        if rec.phase in HOLDING:
            return None
        mine = personal_reason(self, rec)
        if mine is not None:
            return mine
        group = self.waiting.group_of.get(rec.id)
        if group is None or group.reason is None:
            return Reason(ReasonCode.PENDING_EVALUATION, (("position", self.waiting.position(rec) or 0),))
        coming = self.comes_for.get(rec.id)
        return group.reason if coming is None else coming_reason(coming)

    def holders(self, queue: str) -> list[JobRec]:
        return [self.book.jobs[job_id] for job_id in sorted(self.book.holding.get(queue, ()))]

    def need(self, spec: JobSpec, flavor: str, tasks: int) -> tuple[tuple[str, int], ...]:
        return task_amounts(spec, flavor, tasks)
