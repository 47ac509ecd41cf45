"""What must hold, whatever happens: one checker an invariant. docs/scheduler-invariants.md is the list.

A checker looks at the world's own books (what the executor was told and what it answered), not at the engine's. Three kinds: STATE after
every event, PLAN after every decision, REST (`at_rest`) once everything has settled. Each raises AssertionError, its number first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heliostat_scheduler.core import (
    Engine,
    Plan,
    Preempt,
    Preemptibility,
    ReasonCode,
    Resize,
    Start,
    TaskPlace,
)
from heliostat_scheduler.core.codec import from_json, to_json
from heliostat_scheduler.core.harm import safe_until
from heliostat_scheduler.core.reasons import sentence

from tests.scheduler.books import (
    WHOLE,
    accepted,
    below_common,
    capacity,
    chain,
    core_held,
    core_of,
    domain,
    free_whole,
    guarantee,
    opened,
    owned,
    planned,
    quota,
    specs_of,
)
from tests.scheduler.world import World

FOR_SOMEBODY = frozenset(
    {
        ReasonCode.PREEMPTED_FOR,
        ReasonCode.RECLAIMED_FOR,
        ReasonCode.ROTATED_FOR,
        ReasonCode.STARVED_FOR,
        ReasonCode.MIGRATED_FOR,
        ReasonCode.IDLE,
    }
)
"""Reasons of evictions that nobody but the policy wanted."""
RECLAIMS = FOR_SOMEBODY - {ReasonCode.MIGRATED_FOR} | {ReasonCode.SHRUNK_FOR}


@dataclass(frozen=True)
class Before:
    """The world just before a decision. safe: until when each job is protected; planned and free: by flavor."""

    target: dict[str, tuple[TaskPlace, ...]]
    planned: dict[str, dict[str, int]]
    phase: dict[str, str]
    safe: dict[str, int]
    claims: frozenset[str]
    free: dict[str, int]

    @classmethod
    def of(cls, world: World) -> Before:
        jobs = world.engine.state.book.jobs
        return cls(
            {job_id: world.target[job_id] for job_id in world.held if world.runs(job_id)},
            {flavor: planned(world, flavor) for flavor in world.flavors()},
            {job_id: str(rec.phase) for job_id, rec in jobs.items()},
            {job_id: safe_until(rec, world.engine.state.policy) for job_id, rec in jobs.items()},
            frozenset(job_id for job_id, rec in jobs.items() if rec.claim),
            {flavor: sum(free_whole(world, flavor).values()) for flavor in world.flavors()},
        )


@dataclass(frozen=True)
class Seen:
    """A decision, and the world before and after it."""

    world: World
    before: Before
    plan: Plan

    def taken(self) -> list[tuple[str, str, str, int, bool]]:
        """What was taken from whom for whom: (victim, beneficiary, code, milli-GPU, whole job)."""
        rows = []
        for order in self.plan.decisions:
            if not isinstance(order, (Preempt, Resize)):
                continue
            other = str(order.reason.fact("for"))
            if order.reason.code not in RECLAIMS or not other:
                continue
            had = len(self.before.target.get(order.job_id, ()))
            left = 0 if isinstance(order, Preempt) else len(order.places)
            milli = (had - left) * self.world.specs[order.job_id].shape.gpu_milli
            if milli:
                rows.append((order.job_id, other, order.reason.code.value, milli, isinstance(order, Preempt)))
        return rows


# -- after every event


def never_over_allocated(world: World) -> None:
    assert all(milli <= WHOLE for milli in world.used().values()), f"S1: {world.used()}"
    for node, milli in world.cpu_used().items():
        assert milli <= world.nodes[node].cpu_milli, f"S1: {milli} milli-CPU of {node}"


def limits_hold(world: World) -> None:
    for flavor in world.flavors():
        used = world.queue_used(flavor)
        for spec in specs_of(world).values():
            _limited(world, (spec.name, "", flavor), used.get(spec.name, 0), dict(spec.limit))
    _user_limits_hold(world)


def _user_limits_hold(world: World) -> None:
    """Nobody has more of a queue than it gives one user, promises included (whoever was told to leave apart)."""
    for spec in specs_of(world).values():
        jobs = [job_id for job_id, job in world.specs.items() if job.queue == spec.name]
        for user in sorted({world.specs[job_id].user for job_id in jobs}):
            mine = [job_id for job_id in jobs if world.specs[job_id].user == user]
            for flavor in world.flavors():
                held = sum(owned(world, job_id, flavor) for job_id in mine)
                _limited(world, (spec.name, user, flavor), held, dict(spec.user_limit))


def _limited(world: World, whose: tuple[str, str, str], held: int, limits: dict[str, int]) -> None:
    """At most the limit, or what is left of what was held when the limit was lowered."""
    known = world.over.get(whose, 0)
    bound = max(limits.get(whose[2], held), known)
    assert held <= bound, f"S3: {' '.join(whose)} has {held} of {bound}"
    world.over[whose] = min(known, held)


def promises_end(world: World) -> None:
    """Nothing is reserved but for live jobs, and what is free in the engine's view is what nobody holds or was promised."""
    book = world.engine.state.book
    for view, occupied in (
        (book.now, world.held),
        (book.soon, {j: world.target.get(j, ()) for j in world.held if world.runs(j)}),
    ):
        left = {slot.id: WHOLE for name in opened(world) for slot in world.nodes[name].slots}
        for job_id, rec in book.jobs.items():
            for place in (*occupied.get(job_id, ()), *rec.claim):
                for slot in place.slots:
                    if slot in left:
                        left[slot] -= min(WHOLE, world.specs[job_id].shape.gpu_milli)
        for slot, milli in left.items():
            seen = view.nodes[book.slot_home[slot]].free[view.slot_at[slot]]
            assert seen == milli, f"S12: {slot} has {milli} free, the engine sees {seen}"


def books_agree(world: World) -> None:
    """The engine's accounts equal a brute-force sum, and shares never exceed what there is."""
    book = world.engine.state.book
    for flavor in world.flavors():
        used = world.queue_used(flavor)
        for name, account in book.tree.by_name.items():
            assert account.used.get(flavor, 0) == used.get(name, 0), f"S20: {name}: {account.used} is {used}"
        for parent in (book.tree.root, *book.tree.by_name.values()):
            if parent.children:
                share = sum(child.entitled.get(flavor, 0) for child in parent.children)
                assert share <= parent.entitled.get(flavor, 0), f"S20: {parent.name or 'the root'} gives away {share}"


def every_waiting_job_has_one_reason(world: World) -> None:
    for job_id in world.specs:
        why = world.engine.reason(job_id)
        assert (why is None) == (job_id in world.held), f"S23: {job_id} has reason {why}"
        assert why is None or "{" not in sentence(why), f"S23: {why}"


def restored_is_equal(world: World) -> None:
    """A snapshot restores to the same state, which makes the same plan; so does a copy."""
    engine = world.engine
    data = engine.snapshot()
    twin = Engine.restore(data)
    assert (twin.snapshot(), twin.digest()) == (data, engine.digest()), "S18: restored otherwise"
    one, other = twin.decide(world.now), engine.fork().decide(world.now)
    assert to_json(one.decisions) == to_json(other.decisions), "S18: a restored engine decides otherwise"


# -- after every decision


def gangs_are_whole(seen: Seen) -> None:
    for order in seen.plan.decisions:
        if isinstance(order, (Start, Resize)):
            spec = seen.world.specs[order.job_id]
            assert spec.min_tasks <= len(order.places) <= spec.max_tasks, f"S2: {order}"
            nodes = {place.node for place in order.places}
            where = {str(domain(seen.world, name, spec.spread)) for name in nodes}
            assert len(where) == 1, f"S2: torn apart: {order}"
            flavors = {seen.world.nodes[name].flavor for name in nodes} if spec.shape.gpu_milli else set()
            assert len(flavors) <= 1 and flavors <= set(accepted(seen.world, spec)), f"S2: {flavors}: {order}"
            assert isinstance(order, Resize) or nodes <= set(opened(seen.world)), f"S2: on a closed node: {order}"


def lending_limits_hold(seen: Seen) -> None:
    """What others took from a lender is at most what it lends (their own quota apart): looked at where one of them alone got more."""
    for flavor in seen.world.flavors():
        _lending_limits_hold(seen, flavor)


def _lending_limits_hold(seen: Seen, flavor: str) -> None:
    world, used = seen.world, seen.world.queue_used(flavor)
    orders = [order for order in seen.plan.decisions if isinstance(order, (Start, Resize))]
    got = {order.job_id for order in orders if world.specs[order.job_id].shape.gpu_milli}
    grew = {
        world.specs[job_id].queue
        for job_id in got
        if len(world.target[job_id]) > len(seen.before.target.get(job_id, ()))
        and world.flavor(world.target[job_id]) == flavor
    }
    specs = specs_of(world)
    for lender in specs.values():
        lends = dict(lender.lending_limit).get(flavor)
        kept = max(0, quota(lender, flavor) - (lends or 0))
        if lends is None or lender.parent or used.get(lender.name, 0) >= kept:
            continue
        siblings = [spec.name for spec in specs.values() if spec.parent == "" and spec.name != lender.name]
        movers = [name for name in siblings if any(name in chain(world, queue) for queue in grew)]
        if len(movers) == 1:
            rest = capacity(world, flavor) - kept - sum(used.get(name, 0) for name in siblings if name != movers[0])
            bound = max(rest, quota(specs[movers[0]], flavor))
            assert used.get(movers[0], 0) <= bound, f"S4: {movers[0]} uses {used} though {lender.name} keeps {kept}"


def guaranteed_work_stays(seen: Seen) -> None:
    """Who loses work to another queue was above its guarantee before each single loss (a gang may straddle the line)."""
    world = seen.world
    lost: dict[tuple[str, str], list[int]] = {}
    for victim, other, _, milli, _ in seen.taken():
        theirs = below_common(world, world.specs[other].queue, world.specs[victim].queue)[1]
        for name in theirs:
            lost.setdefault((name, world.flavor(seen.before.target[victim])), []).append(milli)
    for (name, flavor), amounts in lost.items():
        most = max(seen.before.planned[flavor].get(name, 0), planned(world, flavor).get(name, 0) + sum(amounts))
        left, kept = most - (sum(amounts) - max(amounts)), guarantee(world, name, flavor)
        assert left > kept, f"S6: {name} lost {amounts} of {most} {flavor}, guaranteed {kept}"


def the_unstoppable_stays(seen: Seen) -> None:
    """It is not evicted, and never borrows: what cannot be taken back stays within quota at every level."""
    for order in seen.plan.decisions:
        if isinstance(order, Preempt) and order.reason.code in FOR_SOMEBODY:
            kind = seen.world.specs[order.job_id].preemptibility
            assert kind is Preemptibility.PREEMPTIBLE, f"S7: {kind} work was evicted: {order}"
    got = [order for order in seen.plan.decisions if isinstance(order, (Start, Resize))]
    for order in got:
        spec = seen.world.specs[order.job_id]
        if core_of(spec, len(order.places)) > core_of(spec, len(seen.before.target.get(order.job_id, ()))):
            flavor = seen.world.flavor(order.places)
            core = core_held(seen.world, flavor)
            for name in chain(seen.world, spec.queue):
                bound = quota(specs_of(seen.world)[name], flavor)
                assert core.get(name, 0) <= bound, f"S7: {name} holds {core} that may not stop, its quota is {bound}"


def no_eviction_for_an_equal(seen: Seen) -> None:
    """In one queue only a lower class is displaced; turns among equals need a much shorter rest, idle work may go to an equal."""
    world, policy = seen.world, seen.world.engine.state.policy
    jobs = world.engine.state.book.jobs
    for victim, other, code, _, whole in seen.taken():
        mine, theirs = world.specs[other], world.specs[victim]
        if mine.queue != theirs.queue or not whole:
            continue
        if code == ReasonCode.ROTATED_FOR:
            ratio = jobs[victim].rank * 1000 > jobs[other].rank * policy.rotate_hysteresis_milli > 0
            assert mine.priority == theirs.priority and ratio, f"S8: {victim} gave its turn to {other}"
        elif code == ReasonCode.IDLE:
            assert theirs.priority <= mine.priority, f"S8: {victim} idle, but of a higher class than {other}"
        elif code != ReasonCode.STARVED_FOR:
            assert theirs.priority < mine.priority, f"S8: {victim} evicted for its equal {other}"


def harm_has_a_use(seen: Seen) -> None:
    """Whoever was named as the reason of an eviction got something by the same plan (minimal sets: test_exhaustive)."""
    jobs = seen.world.engine.state.book.jobs
    for order in seen.plan.decisions:
        if isinstance(order, Preempt) and order.reason.code in FOR_SOMEBODY:
            other = str(order.reason.fact("for"))
            assert jobs[other].claim or jobs[other].places, f"S9: {order.job_id} evicted, {other} got nothing"


def surplus_goes_first(seen: Seen) -> None:
    """No whole job is stopped for one whose need lower surplus of its own queue would have met (single devices; test_exhaustive: all)."""
    world, before = seen.world, seen.before
    rows = seen.taken()
    others = {other for _, other, *_ in rows}
    jobs = world.engine.state.book.jobs
    got = {order.job_id for order in seen.plan.decisions if isinstance(order, Start)}
    got |= {job_id for job_id, rec in jobs.items() if rec.claim and job_id not in before.claims}
    if len(others) != 1 or got - others or not any(whole for *_, whole in rows):
        return
    wish = world.specs[others.pop()]
    specs = specs_of(world)
    ruled = any(spec.lending_limit for spec in specs.values()) or any(specs[q].limit for q in chain(world, wish.queue))
    flavor = world.flavor(jobs[wish.id].claim or world.target.get(wish.id, ()))
    if wish.shape.gpu_milli != WHOLE or wish.spread != "any" or ruled:
        return
    surplus = 0
    for job_id, places in before.target.items():
        spec = world.specs[job_id]
        mild = spec.queue == wish.queue and spec.priority < wish.priority and spec.elastic
        ready = before.phase[job_id] == "running" and before.safe[job_id] <= world.now
        whole = spec.shape.gpu_milli == WHOLE and not jobs[job_id].claim and world.flavor(places) == flavor
        if mild and ready and whole and {place.node for place in places} <= set(opened(world)):
            surplus += len(places) - spec.min_tasks
    had = len(before.target.get(wish.id, ()))
    assert had or before.free[flavor] + surplus < wish.min_tasks, (
        f"S10: {rows} though {surplus} tasks of surplus were there"
    )


def idle_means_measured(seen: Seen) -> None:
    """Nobody is taken for idle without readings of low activity and no progress that cover the time, the last one fresh."""
    world, policy = seen.world, seen.world.engine.state.policy
    for order in seen.plan.decisions:
        if isinstance(order, (Preempt, Resize)) and order.reason.code is ReasonCode.IDLE:
            low = world.low.get(order.job_id, [])
            covered = low[-1][0] - (low[0][0] - low[0][1]) if low else 0
            assert covered >= policy.idle_after_ms, f"S22: {order.job_id} idle after {covered} ms: {low}"
            assert world.now <= low[-1][0] + 2 * low[-1][1], f"S22: {order.job_id}: an old reading"


def plans_survive_json(seen: Seen) -> None:
    assert from_json(to_json(seen.plan)) == seen.plan, "S18: a plan does not survive its bytes"


Check = Callable[[World], None]
STATE: dict[str, Check] = {
    "S1": never_over_allocated,
    "S3": limits_hold,
    "S12": promises_end,
    "S18": restored_is_equal,
    "S20": books_agree,
    "S23": every_waiting_job_has_one_reason,
}
PLAN: dict[str, Callable[[Seen], None]] = {
    "S2": gangs_are_whole,
    "S4": lending_limits_hold,
    "S6": guaranteed_work_stays,
    "S7": the_unstoppable_stays,
    "S8": no_eviction_for_an_equal,
    "S9": harm_has_a_use,
    "S10": surplus_goes_first,
    "S18": plans_survive_json,
    "S22": idle_means_measured,
}
