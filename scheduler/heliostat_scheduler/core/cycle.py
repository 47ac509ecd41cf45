"""One cycle: from what happened since the last one to a plan.

Orders that need no choice come first (stops, lost nodes, drains, shrinking to a lowered maximum), then promises that can be kept,
then the waiting jobs in order, then growth. Everything is done on the books at once; the plan is what was done.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heliostat_scheduler.core.book import ACTIVE, JobRec, Phase, core_tasks, reason, task_amounts
from heliostat_scheduler.core.budget import charge, gpu_loss
from heliostat_scheduler.core.consolidation import Move
from heliostat_scheduler.core.decisions import Decision, Discarded, Plan, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.entitlement import entitle
from heliostat_scheduler.core.harm import Unit, Wish, idle_harm, safe_until
from heliostat_scheduler.core.judge import user_reason
from heliostat_scheduler.core.model import TaskPlace
from heliostat_scheduler.core.placement import canonical
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.starvation import is_starved
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.victims import VictimIndex


def valid_sizes(rec: JobRec) -> tuple[int, ...]:
    spec = rec.spec
    return spec.sizes or tuple(range(spec.min_tasks, spec.max_tasks + 1))


@dataclass(slots=True)
class Cycle:
    """What one `decide` has done so far."""

    state: State
    now_ms: int
    orders: list[Decision] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    grown: dict[str, Reason] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    budget: int = 0
    progressed: bool = False
    exhausted: bool = False
    recheck: list[int] = field(default_factory=list)
    victims: VictimIndex = field(init=False)

    def __post_init__(self) -> None:
        self.victims = VictimIndex(self.state, self.now_ms)

    # -- orders about single jobs

    def start(self, rec: JobRec, places: tuple[TaskPlace, ...], flavor: str) -> None:
        state = self.state
        state.unsettle(rec)
        if rec.claim:
            state.book.withdraw(rec)
        state.conditions_end(rec.id)
        rec.redeemed = is_starved(rec, state.policy, self.now_ms)
        rec.phase = Phase.STARTING
        rec.epoch += 1
        rec.attempt += 1
        rec.started_at, rec.running_at, rec.checkpoint_at = self.now_ms, 0, 0
        rec.retry_at, rec.retry_code, rec.lost = 0, "", False
        state.book.hold(rec, places, flavor)
        self.started.append(rec.id)
        state.just_started.add(rec.id)
        self.progressed = True

    def _supersede(self, rec: JobRec) -> None:
        """At most one order per job and plan: what this cycle said about the job before is void."""
        self.orders = [order for order in self.orders if isinstance(order, Discarded) or order.job_id != rec.id]
        self.grown.pop(rec.id, None)

    def preempt(self, rec: JobRec, why: Reason) -> None:
        book = self.state.book
        self._supersede(rec)
        if rec.claim:
            book.withdraw(rec)
        if rec.behind:
            self.state.on_condition(rec, "", 0)
        rec.phase = Phase.PREEMPTING
        rec.epoch += 1
        rec.leave_by = self.now_ms + rec.spec.grace_ms
        book.leave(rec, rec.places)
        self.orders.append(Preempt(rec.id, rec.epoch, rec.spec.grace_ms, why))
        self.progressed = True

    def stop(self, rec: JobRec, why: Reason) -> None:
        book = self.state.book
        self._supersede(rec)
        if rec.claim:
            book.withdraw(rec)
        rec.phase = Phase.STOPPING
        rec.epoch += 1
        rec.leave_by = self.now_ms + rec.spec.grace_ms
        book.leave(rec, rec.places)
        self.orders.append(Stop(rec.id, rec.epoch, rec.spec.grace_ms, why))
        self.progressed = True

    def shrink(self, rec: JobRec, dropped: list[TaskPlace], why: Reason) -> None:
        """Give up these places, and more if the remaining count is not a valid size."""
        self._supersede(rec)
        keep = len(rec.places) - len(dropped)
        valid = [size for size in valid_sizes(rec) if size <= keep]
        more = keep - max(valid, default=rec.spec.min_tasks)
        rest = (
            [place for place in rec.places if place not in dropped]
            if rec.spec.shape.gpu_milli
            else list(rec.places[len(dropped) :])
        )
        dropped = dropped + (rest[len(rest) - more :] if more > 0 else [])
        rec.phase = Phase.RESIZING
        rec.epoch += 1
        rec.leave_by = self.now_ms + rec.spec.grace_ms
        rec.resized_at = self.now_ms
        self.state.book.leave(rec, tuple(dropped))
        self.orders.append(Resize(rec.id, rec.epoch, rec.places, rec.spec.grace_ms, why))
        self.progressed = True

    def enlarge(self, rec: JobRec, places: tuple[TaskPlace, ...], why: Reason) -> None:
        """More places for a running job (one order per cycle, written at the end), or for one that starts in this cycle."""
        book = self.state.book
        book.hold(rec, places, rec.flavor)
        rec.places = canonical(book.now, rec.places)
        if rec.id not in self.started:
            self.grown[rec.id] = why
            self.state.just_started.add(rec.id)
        self.progressed = True

    # -- the parts of a cycle

    def orders_due(self) -> None:
        """Jobs that need an order whatever else happens."""
        state = self.state
        again: set[str] = set()
        for job_id in sorted(state.attention):
            rec = state.book.jobs.get(job_id)
            if rec is not None and not self._attend(rec):
                again.add(job_id)
        state.attention = again

    def _attend(self, rec: JobRec) -> bool:
        """Whether nothing more has to be seen to for this job."""
        if rec.phase is Phase.STOPPING or rec.phase in (Phase.WAITING, Phase.HELD):
            return True
        if rec.cancel:
            self.stop(rec, reason(ReasonCode(rec.cancel)))
            return True
        if rec.phase not in ACTIVE:
            return True
        if rec.lost:
            self.preempt(rec, reason(ReasonCode.NODE_LOST, ("nodes", ", ".join(sorted(self._gone(rec))))))
            return True
        draining = sorted({p.node for p in rec.places if self._draining(p.node)})
        if draining:
            self.preempt(rec, reason(ReasonCode.DRAINED, ("nodes", ", ".join(draining))))
            return True
        if rec.spec.elastic and len(rec.places) > rec.spec.max_tasks:
            if rec.phase is not Phase.RUNNING:
                return False
            places = list(rec.places[rec.spec.max_tasks :])
            self.shrink(
                rec,
                places,
                reason(ReasonCode.SHRUNK_FOR, ("why", "max_tasks lowered"), ("max_tasks", rec.spec.max_tasks)),
            )
            return True
        if len(rec.places) < rec.spec.min_tasks:
            if rec.stale_since + self.state.policy.stale_gang_ms <= self.now_ms:
                facts = (("tasks", len(rec.places)), ("min_tasks", rec.spec.min_tasks))
                self.preempt(rec, reason(ReasonCode.GANG_INCOMPLETE, *facts))
                return True
            return False
        return True

    def _gone(self, rec: JobRec) -> set[str]:
        nodes = self.state.book.nodes
        return {p.node for p in rec.places if p.node not in nodes or not nodes[p.node].up}

    def _draining(self, node_id: str) -> bool:
        node = self.state.book.nodes.get(node_id)
        return node is not None and node.draining

    def keep_promises(self) -> None:
        """Claims whose places are free now become leases; claims that can no longer be kept are dropped."""
        book = self.state.book
        waiting = [book.jobs[job_id] for job_id in sorted(book.claimants)]
        if waiting:
            book.measure()
        for rec in sorted(
            waiting, key=lambda r: self.state.waiting.keys.get(r.id, self.state.order_key(r, self.now_ms))
        ):
            if not self._keepable(rec):
                book.withdraw(rec)
                self.state.part(rec)
                self.state.settle(rec, self.now_ms)
                self.state.stale = True
            elif self._ready(rec):
                places, flavor = rec.claim, rec.claim_flavor
                if rec.phase is Phase.WAITING:
                    self.start(rec, places, flavor)
                else:
                    book.withdraw(rec)
                    self.enlarge(rec, places, reason(ReasonCode.GREW, ("tasks", len(rec.places) + len(places))))

    def _keepable(self, rec: JobRec) -> bool:
        book = self.state.book
        if rec.phase not in (Phase.WAITING, Phase.RUNNING, Phase.RESIZING, Phase.PREEMPTING):
            return False
        for place in rec.claim:
            node = book.nodes.get(place.node)
            if (
                node is None
                or not node.opened
                or any(slot in book.blocked or slot not in book.now.slot_at for slot in place.slots)
            ):
                return False
        if rec.leaving or any(job_id in book.jobs and book.jobs[job_id].leaving for job_id in rec.claim_on):
            return True
        return self._ready(rec)

    def _ready(self, rec: JobRec) -> bool:
        """The promised places are free and the limits hold with everybody who is still there."""
        book = self.state.book
        if rec.phase not in (Phase.WAITING, Phase.RUNNING):
            return False
        leaf = book.leaf_of(rec)
        need = task_amounts(rec.spec, rec.claim_flavor or rec.flavor, len(rec.claim))
        if book.tree.limit_gap(leaf, need, "used") is not None:
            return False
        if book.tree.lending_gap(leaf, need, "used", book.capacity) is not None:
            return False
        if user_reason(self.state, leaf, rec.spec, tuple((key, 0) for key, _ in need)) is not None:
            return False  # the promise itself is counted already
        book.now.give(rec.claim, rec.spec.shape)
        ready = book.now.can_hold(rec.claim, rec.spec.shape)
        book.now.take(rec.claim, rec.spec.shape)
        return ready

    def share_out(self) -> None:
        """Entitlements; a change of any of them makes a full look necessary."""
        state = self.state
        policy = state.policy
        state.book.measure()
        self.alarms += entitle(
            state.book.tree, state.book.capacity, policy.whole_device_shares, policy.usage_strength_milli
        )
        keys = sorted(state.book.capacity)
        shares = tuple(tuple(node.entitled.get(key, 0) for key in keys) for node in state.book.tree.by_name.values())
        if shares != state.entitled_before:
            state.entitled_before = shares
            state.stale = True

    # -- capacity taken from others

    def wish(self, rec: JobRec, flavor: str, count: int, evict: bool = True) -> Wish:
        spec = rec.spec
        need = task_amounts(spec, flavor, count)
        held = len(rec.places)
        core = task_amounts(spec, flavor, core_tasks(spec, held + count) - core_tasks(spec, held))
        near = frozenset(place.node for place in rec.places)
        starved = is_starved(rec, self.state.policy, self.now_ms)
        leaf = self.state.book.leaf_of(rec)
        return Wish(spec, leaf, flavor, count, need, core, near, evict, rec.rank, rec.user_step, starved)

    def collect(self, rec: JobRec, wish: Wish, victims: list[Unit]) -> tuple[str, ...]:
        """Order the victims to leave; who they are."""
        idlers = {unit.rec.id for unit in victims if unit.idle and idle_harm(wish, unit, self.state.book.tree)}
        by_job: dict[str, list[Unit]] = {}
        for unit in victims:
            by_job.setdefault(unit.rec.id, []).append(unit)
        for job_id in sorted(by_job):
            units = by_job[job_id]
            victim = units[0].rec
            charge(self.state, units[0].leaf, sum(gpu_loss(unit) for unit in units))
            facts: tuple[tuple[str, int | str], ...] = (
                ("for", rec.id), ("queue", rec.spec.queue), ("own_queue", victim.spec.queue),
                ("priority", rec.spec.priority), ("own_priority", victim.spec.priority),
                ("gpu_milli", sum(len(u.places) for u in units) * victim.spec.shape.gpu_milli),
                ("lost_ms", units[0].lost_ms),
            )  # fmt: skip
            idle = job_id in idlers
            if idle:
                facts += (("idle_ms", self.now_ms - victim.low_since),)
            if units[0].evict:
                code = ReasonCode.RECLAIMED_FOR
                if victim.spec.queue == rec.spec.queue:
                    lower = victim.spec.priority < rec.spec.priority
                    code = ReasonCode.PREEMPTED_FOR if lower else ReasonCode.ROTATED_FOR
                    facts += (("rank", rec.rank), ("own_rank", victim.rank)) if not lower else ()
                if victim.behind == rec.id and code is ReasonCode.ROTATED_FOR:
                    code = ReasonCode.ASKED_BACK_FOR
                if is_starved(rec, self.state.policy, self.now_ms):
                    code = ReasonCode.STARVED_FOR
                victim.evictions += 1
                self.preempt(victim, reason(ReasonCode.IDLE if idle else code, *facts, blockers=[rec.id]))
            else:
                dropped = [place for unit in units for place in unit.places]
                self.shrink(
                    victim,
                    dropped,
                    reason(ReasonCode.IDLE if idle else ReasonCode.SHRUNK_FOR, *facts, blockers=[rec.id]),
                )
        return tuple(sorted(by_job))

    def migrate(self, rec: JobRec, moves: list[Move], on: tuple[str, ...]) -> None:
        """Order running jobs to other places so that `rec` fits; each keeps a promise for where it goes."""
        for move in moves:
            mover = move.rec
            lost = move.lost_ms * mover.spec.shape.gpu_milli * len(mover.places)
            charge(self.state, self.state.book.leaf_of(mover), lost)
            facts = (("for", rec.id), ("lost_ms", move.lost_ms), ("queue", mover.spec.queue))
            self.preempt(mover, reason(ReasonCode.MIGRATED_FOR, *facts, blockers=[rec.id]))
        ids = tuple(sorted({*on, *(move.rec.id for move in moves)}))
        for move in moves:
            self.state.book.promise(move.rec, move.to, move.rec.flavor, ids)

    def discard(self, rec: JobRec, victims: list[Unit]) -> None:
        ids = tuple(sorted({unit.rec.id for unit in victims}))
        self.orders.append(
            Discarded(rec.id, ids, reason(ReasonCode.FAIR_SHARE_EXCEEDED, ("unstable", 1), blockers=ids))
        )

    def soonest_safe(self, queue_jobs: list[JobRec]) -> list[int]:
        """The times at which protected jobs lose their protection, soonest first."""
        times = {safe_until(rec, self.state.policy) for rec in queue_jobs if rec.phase in ACTIVE}
        return sorted(time for time in times if time > self.now_ms)

    # -- the answer

    def plan(self) -> Plan:
        state = self.state
        decisions = self.orders.copy()
        for job_id in sorted(self.grown):
            rec = state.book.jobs[job_id]
            rec.phase = Phase.RESIZING
            rec.epoch += 1
            rec.resized_at = self.now_ms
            state.book.account(rec)
            decisions.append(Resize(rec.id, rec.epoch, rec.places, rec.spec.grace_ms, self.grown[job_id]))
        for job_id in self.started:
            rec = state.book.jobs[job_id]
            rec.places = canonical(state.book.now, rec.places)
            facts = (("tasks", len(rec.places)), ("gpu_milli", rec.spec.shape.gpu_milli * len(rec.places)), ("flavor", rec.flavor),
                     ("waited_ms", max(0, self.now_ms - rec.spec.submitted_at_ms)))  # fmt: skip
            decisions.append(Start(rec.id, rec.epoch, rec.attempt, rec.places, reason(ReasonCode.PLACED, *facts)))
        state.just_started = set()
        state.cycle += 1
        return Plan(state.cycle, self.now_ms, tuple(decisions), tuple(self.alarms))
