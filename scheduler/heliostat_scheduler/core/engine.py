"""The scheduler as a value: events in, plans out.

`apply` keeps the books, `decide` makes a plan and has it carried out on the books at once: after a Start the job holds its places,
after a Preempt its places are leaving. Whoever executes the plan answers with events. Time is an argument; two engines that are fed
the same events at the same times make byte-equal plans, whatever the process, the hash seed or the order in which objects came.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from heliostat_scheduler.core import codec
from heliostat_scheduler.core.admission import Admission
from heliostat_scheduler.core.apply import apply_event
from heliostat_scheduler.core.balance import grow_to, plan_sizes
from heliostat_scheduler.core.book import HOLDING, Phase
from heliostat_scheduler.core.cycle import Cycle
from heliostat_scheduler.core.decisions import Plan
from heliostat_scheduler.core.digest import Digest
from heliostat_scheduler.core.events import Event
from heliostat_scheduler.core.explain import Explanation
from heliostat_scheduler.core.forking import branch_state, fork_state
from heliostat_scheduler.core.growth import complete_gangs, grow
from heliostat_scheduler.core.model import Policy, QueueSpec
from heliostat_scheduler.core.reasons import Reason
from heliostat_scheduler.core.remedies import explain
from heliostat_scheduler.core.snapshot import restore_state, snapshot_state
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.usage import advance, tick_ms

DEFAULT_QUEUES = (QueueSpec("default"),)


@dataclass(frozen=True, slots=True)
class QueueUsage:
    """What one queue has and uses, per resource key."""

    name: str
    parent: str
    quota: dict[str, int]
    limit: dict[str, int]
    used: dict[str, int]
    borrowed: dict[str, int]
    entitled: dict[str, int]
    wanted: dict[str, int]
    running_jobs: int
    waiting_jobs: int
    waiting_tasks: int
    pressure: dict[str, int] = field(default_factory=dict)
    """What is wanted and not held, per resource key: what more nodes, or a larger share, would be used for."""
    used_lately: dict[str, int] = field(default_factory=dict)
    """Decayed use in milli-units x hours."""


class Engine:
    """One scheduler. Not thread-safe: one owner calls it."""

    def __init__(self, policy: Policy | None = None, queues: tuple[QueueSpec, ...] = DEFAULT_QUEUES) -> None:
        self.state = State(policy or Policy(), queues)
        self._digest = Digest()

    # -- events and decisions

    def apply(self, event: Event, now_ms: int) -> None:
        """Bookkeeping; raises `IllegalEvent` before anything changes."""
        apply_event(self.state, event, now_ms)

    def decide(self, now_ms: int) -> Plan:
        """One cycle over everything since the last."""
        state = self.state
        state.clock = now_ms
        advance(state, now_ms)
        state.now_ms = max(state.now_ms, now_ms)
        self._mature(now_ms)
        state.refresh()
        cycle = Cycle(state, now_ms, budget=state.policy.work_budget)
        cycle.orders_due()
        state.stale |= cycle.progressed  # what these leave may be promised in the same plan
        cycle.keep_promises()
        cycle.share_out()
        full = state.stale
        state.stale = False
        if full:
            state.recheck_at = None
        if full or any(line.fresh for line in state.waiting.lines.values()):
            admission = Admission(cycle, full)
            complete_gangs(admission)
            targets = plan_sizes(cycle)
            admission.run()
            grow_to(cycle, targets)
            grow(admission)
        if state.policy.usage_strength_milli and len(state.book.tree.leaves) > 1 and state.waiting.group_of:
            cycle.recheck.append((now_ms // tick_ms(state) + 1) * tick_ms(state))
        plan = cycle.plan()
        if cycle.progressed:
            state.stale = True
        if cycle.recheck:
            due = min(cycle.recheck)
            state.recheck_at = due if state.recheck_at is None else min(due, state.recheck_at)
        return plan

    def _mature(self, now_ms: int) -> None:
        """What is due by now: backoffs that end, aging that rises, down nodes to be forgotten."""
        state = self.state
        if state.recheck_at is not None and state.recheck_at <= now_ms:
            state.stale = True
        due: dict[str, None] = {}  # each job once, however many of its times have come
        while state.timers and state.timers[0][0] <= now_ms:
            due[heapq.heappop(state.timers)[1]] = None
        for job_id in due:
            if not job_id:
                self._forget_down(now_ms)
                continue
            rec = state.book.jobs.get(job_id)
            if rec is None:
                continue
            if rec.phase not in HOLDING:
                state.resettle(rec, now_ms)
            state.stale = True

    def _forget_down(self, now_ms: int) -> None:
        state = self.state
        old = now_ms - state.policy.forget_down_ms
        for node_id in sorted(state.book.nodes):
            rec = state.book.nodes[node_id]
            if rec.up or rec.down_at > old:
                continue
            if state.book.on_node.get(node_id):  # its jobs are being stopped: look again
                heapq.heappush(state.timers, (now_ms + max(1, state.policy.stale_gang_ms), ""))
                continue
            state.book.drop_node(node_id)
            state.restructure = True

    def next_wakeup_ms(self) -> int | None:
        """The earliest time at which the answer may change without an event."""
        state = self.state
        times = [state.timers[0][0]] if state.timers else []
        if state.recheck_at is not None:
            times.append(state.recheck_at)
        if state.stale or any(line.fresh for line in state.waiting.lines.values()) or state.restructure:
            times.append(state.now_ms)
        return min(times) if times else None

    # -- answers

    def reason(self, job_id: str) -> Reason | None:
        """Why the job waits; None when it holds a lease or is not known."""
        rec = self.state.book.jobs.get(job_id)
        return None if rec is None else self.state.waiting_reason(rec)

    def position(self, job_id: str) -> int | None:
        """1 = next in its queue; None when it does not wait."""
        rec = self.state.book.jobs.get(job_id)
        return None if rec is None else self.state.waiting.position(rec)

    def explain(self, job_id: str, now_ms: int) -> Explanation:
        """Why the job waits, constraint by constraint, and remedies that were tried on a copy. KeyError when it does not wait."""
        return explain(self, job_id, now_ms)

    def queue_usage(self) -> list[QueueUsage]:
        """Every queue, in creation order; parents include their children."""
        state = self.state
        running: dict[str, int] = {}
        jobs: dict[str, int] = {}
        tasks: dict[str, int] = {}
        for rec in state.book.jobs.values():
            for node in state.book.leaf_of(rec).chain:
                if rec.phase in HOLDING:
                    running[node.name] = running.get(node.name, 0) + 1
                else:
                    jobs[node.name] = jobs.get(node.name, 0) + 1
                    tasks[node.name] = tasks.get(node.name, 0) + rec.spec.min_tasks
        rows = []
        for node in state.book.tree.by_name.values():
            used = {key: amount for key, amount in sorted(node.used.items()) if amount}
            quota = {key: node.quota_of(key, state.book.capacity.get(key, 0)) for key in sorted({*node.quota, *used})}
            borrowed = {key: max(0, amount - quota[key]) for key, amount in used.items()}
            rows.append(
                QueueUsage(
                    node.name, node.spec.parent, quota, dict(sorted(node.limit.items())), used, borrowed,
                    dict(sorted(node.entitled.items())), {k: v for k, v in sorted(node.want.items()) if v},
                    running.get(node.name, 0), jobs.get(node.name, 0), tasks.get(node.name, 0),
                    {k: v - node.plan.get(k, 0) for k, v in sorted(node.want.items()) if v > node.plan.get(k, 0)},
                    {k: v // 3_600_000 for k, v in sorted(node.usage.items()) if v >= 3_600_000},
                )
            )  # fmt: skip
        return rows

    def phase(self, job_id: str) -> Phase | None:
        rec = self.state.book.jobs.get(job_id)
        return None if rec is None else rec.phase

    # -- bytes

    def snapshot(self) -> bytes:
        """The whole state as canonical bytes."""
        return codec.to_json(snapshot_state(self.state)).encode()

    @classmethod
    def restore(cls, data: bytes) -> Engine:
        engine = cls()
        engine.state = restore_state(codec.loads(data))
        return engine

    def fork(self) -> Engine:
        """An independent copy, for simulation."""
        twin = Engine()
        twin.state = fork_state(self.state)
        return twin

    def branch(self) -> Engine:
        """A copy that is good while this engine is left alone; costs little however many jobs there are."""
        twin = Engine()
        twin.state = branch_state(self.state)
        return twin

    def digest(self) -> str:
        """A digest of the state; equal states give equal digests. Costs what changed since the last call."""
        return self._digest.of(self.state)

    def policy_digest(self) -> str:
        return self._digest.kept("policy", self.state.policy)
