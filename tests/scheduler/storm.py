"""Users, an executor that is sometimes slow, telemetry, and nodes that come and go; every invariant is looked at wherever it must hold.

What happens next is asked of `choose`: Hypothesis in test_invariants, a seeded `random.Random` in test_invariants_fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from heliostat_scheduler.core import JobSpec, NodeSpec, Policy, Preempt, Preemptibility, QueueSpec, Resize, TaskShape
from heliostat_scheduler.core import events as ev

from tests.scheduler.at_rest import REST
from tests.scheduler.invariants import PLAN, STATE, Before, Seen
from tests.scheduler.world import DECISIVE, FIXED, SEMI, World, job, node, queue

T = TypeVar("T")
FREE = Preemptibility.PREEMPTIBLE
LEAVES = ("a", "b", "c")
SHAPES = ((1, 1), (1, 1), (1, 1), (1, 2), (1, 2), (2, 1), (0.5, 1), (1, 3), (4, 1))
"""(devices a task, tasks)"""
ALL = frozenset({*STATE, *PLAN, *REST, "S15", "S16"})
ACTIONS = (
    *("submit",) * 9, *("step",) * 8, *("decide",) * 4, *("answer",) * 3, *("wait",) * 3, "finish", "finish", "cancel", "fail_start",
    "node_down", "node_up", "node_up", "cordon", "hold", *("rank",) * 2, "goodput", "checkpoint", *("telemetry",) * 2,
)  # fmt: skip


class Choose(Protocol):
    def __call__(self, options: Sequence[T], /) -> T: ...


class Storm:
    """One world. checks: the numbers of the invariants that are looked at."""

    def __init__(self, choose: Choose, checks: frozenset[str] = ALL) -> None:
        self.choose = choose
        self.checks = checks
        self.count = 0
        self.down: set[str] = set()
        policy = Policy(
            min_runtime_ms=choose((0, 0, 5_000)), cooldown_ms=2_000, resize_interval_ms=1_000, starvation_ms=choose((0, 0, 20_000)),
            starvation_turn_ms=4_000, idle_warmup_ms=0, suspect_after_ms=2_000, idle_after_ms=4_000, aging_step_ms=choose((0, 10_000)),
        )  # fmt: skip
        self.world = World(self._nodes(), self._tree(), policy, at=1_000)

    def _nodes(self) -> list[NodeSpec]:
        choose = self.choose
        return [node(f"n{i}", choose((1, 2, 3, 4)), cpu_milli=2_000) for i in range(choose((1, 2, 3)))]

    def _tree(self) -> list[QueueSpec]:
        """Three leaves, two of them below a parent; sometimes the quotas can be kept all together, sometimes not."""
        choose = self.choose
        a, b = choose((0, 1, 2)), choose((0, 1, 2))
        limit = {"limit": choose((1, 3))} if choose((False, False, True)) else {}
        lend = {"lending_limit": choose((0, 1))} if choose((False, True)) else {}
        return [
            queue("p", a + b + choose((-1, 0, 1)) if a + b else 0, weight=choose((0, 1, 2))),
            queue("a", a, parent="p", weight=choose((0, 1, 2)), **limit),
            queue("b", b, parent="p", priority=choose((100, 101))),
            queue("c", choose((0, 1, 2, 4)), weight=choose((1, 2)), rotate=choose((True, True, False)), **lend),
        ]

    def act(self, action: str) -> None:
        getattr(self, f"do_{action}")()
        for number, check in STATE.items():
            if number in self.checks:
                check(self.world)

    # -- what may happen

    def do_submit(self) -> None:
        self.count += 1
        self.world.submit(self._spec())

    def _spec(self) -> JobSpec:
        choose = self.choose
        gpus, tasks = choose(SHAPES)
        kind = choose((*(FREE,) * 6, FIXED, SEMI))
        more: dict[str, object] = {"shape": TaskShape(cpu_milli=1_000)} if choose((False,) * 7 + (True,)) else {}
        return job(
            f"j{self.count:03d}", gpus, choose(LEAVES), tasks, self.world.now, max_tasks=tasks + choose((0, 1, 2)),
            elastic=choose((False, True, True)), priority=choose((50, 100, 150)), preemptibility=kind, spread=choose(("any", "any", "one_node")),
            max_runtime_ms=choose((None, 4_000, 60_000)), user=choose(("ann", "bob")), **more,
        )  # fmt: skip

    def do_decide(self) -> None:
        before = Before.of(self.world)
        seen = Seen(self.world, before, self.world.decide())
        for number, check in PLAN.items():
            if number in self.checks:
                check(seen)

    def do_answer(self) -> None:
        if self.world.order:
            self.world.answer(self.choose(sorted(self.world.order)))

    def do_step(self) -> None:
        """A decision that is carried out at once."""
        self.do_decide()
        self.world.answer_all()

    def do_finish(self) -> None:
        if self.world.held:
            self.world.finish(self.choose(sorted(self.world.held)), self.choose(("succeeded", "failed")))

    def do_cancel(self) -> None:
        if self.world.specs:
            self.world.cancel(self.choose(sorted(self.world.specs)))

    def do_fail_start(self) -> None:
        starting = [job_id for job_id, (order, _) in sorted(self.world.order.items()) if order == "start"]
        if starting:
            job_id = self.choose(starting)
            epoch = self.world.order[job_id][1]
            self.world.gone(job_id)
            self.world.apply(ev.JobStartFailed(job_id, epoch, "cpu_busy", self.world.now + 3_000))
            if job_id not in self.world.engine.state.book.jobs:
                self.world.specs.pop(job_id)

    def do_wait(self) -> None:
        self.world.now += self.choose((1, 1_000, 5_000))

    def do_node_down(self) -> None:
        up = sorted(set(self.world.nodes) - self.down)
        if len(up) > 1:
            name = self.choose(up)
            self.down.add(name)
            self.world.apply(ev.NodeDown(name))

    def do_node_up(self) -> None:
        if self.down:
            name = self.choose(sorted(self.down))
            self.down.discard(name)
            self.world.apply(ev.NodeUp(self.world.nodes[name]))

    def do_cordon(self) -> None:
        """One node at a time."""
        closed = [name for name, rec in self.world.engine.state.book.nodes.items() if rec.cordoned]
        name = self.choose(closed or sorted(self.world.nodes))
        self.world.apply(ev.NodeUncordoned(name) if closed else ev.NodeCordoned(name, self.choose((False, True))))

    def do_hold(self) -> None:
        waiting = sorted(set(self.world.specs) - set(self.world.held))
        if waiting:
            job_id = self.choose(waiting)
            phase = self.world.engine.phase(job_id)
            self.world.apply(ev.JobReleased(job_id) if phase == "held" else ev.JobHeld(job_id))

    def do_rank(self) -> None:
        if self.world.specs:
            job_id, rank = self.choose(sorted(self.world.specs)), self.choose((1_000, 60_000, 3_600_000))
            self.world.apply(ev.Estimated(job_id, remaining_ms=rank, rank_ms=rank))

    def do_goodput(self) -> None:
        if self.world.held:
            power = self.choose((0.3, 0.7, 1.0))
            curve = tuple((size, round(1000 * size**power)) for size in range(1, 6))
            self.world.apply(ev.Estimated(self.choose(sorted(self.world.held)), goodput_milli=curve))

    def do_checkpoint(self) -> None:
        if self.world.held:
            self.world.apply(ev.Checkpointed(self.choose(sorted(self.world.held)), self.world.now))

    def do_telemetry(self) -> None:
        """A run of windows, so that some jobs are found idle."""
        if not self.world.held:
            return
        job_id, activity = self.choose(sorted(self.world.held)), self.choose((0, 0, 0, 100, 900, None))
        for _ in range(self.choose((1, 3, 5))):
            self.world.now += 1_000
            self.world.measure(job_id, 1_000, activity, self.choose((False, False, False, True)))

    # -- the end: the faults stop

    def end(self) -> None:
        """S15: a fixpoint is reached and stays; then what must hold at rest; S16: victims that come back evict nobody."""
        world = self.world
        for name in sorted(world.nodes):
            if name in self.down:
                world.apply(ev.NodeUp(world.nodes[name]))
            if world.engine.state.book.nodes[name].cordoned:
                world.apply(ev.NodeUncordoned(name))
        world.answer_all()
        for _ in range(60):
            world.now += 10_000
            if not any(isinstance(order, DECISIVE) for order in world.step().decisions):
                break
        else:
            assert "S15" not in self.checks, "S15: no fixpoint"
        for _ in range(5):
            plan = world.step()
            still = not any(isinstance(order, DECISIVE) for order in plan.decisions)
            assert still or "S15" not in self.checks, f"S15: {plan}"
        for number, check in REST.items():
            if number in self.checks:
                check(world)
        if "S16" in self.checks:
            self._victims_return()

    def _victims_return(self) -> None:
        """With the clock frozen, every victim that waits is taken back and submitted again as a new job, otherwise unchanged."""
        world = self.world
        victims = [
            job_id for job_id in sorted(set(world.evicted())) if job_id in world.specs and job_id not in world.held
        ]
        starved = world.engine.state.policy.starvation_ms
        for job_id in victims:
            spec = world.specs[job_id]
            if starved or world.engine.phase(job_id) == "held":
                continue
            world.cancel(job_id)
            world.submit(replace(spec, id=f"{job_id}-again"))
        for _ in range(6):
            before = Before.of(world)
            for order in world.step().decisions:
                shrunk = isinstance(order, Resize) and len(order.places) < len(before.target[order.job_id])
                assert not isinstance(order, Preempt) and not shrunk, f"S16: {order} when {victims} came again"
