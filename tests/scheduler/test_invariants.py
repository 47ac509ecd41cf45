"""Property tests: whatever happens, in whatever order, the invariants hold after every plan.

Numbers in the names are those of the list of invariants (docs/scheduler-invariants.md).
"""

from __future__ import annotations

from heliostat_scheduler.core import Engine, Policy, Preempt, Preemptibility, QueueSpec, ReasonCode, Resize, Start
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.codec import from_json, to_json
from heliostat_scheduler.core.reasons import sentence
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.scheduler.world import DECISIVE, World, job, node, queue

QUEUES = ("a", "b", "c")
WAIT_STEP_MS = 1_000


@st.composite
def trees(draw: st.DrawFn) -> list[QueueSpec]:
    """Three leaves, two of them below a parent, with quotas, weights and sometimes limits."""
    amounts = st.integers(0, 4)
    limit = draw(st.sampled_from([{}, {"limit": 4}]))
    lend = draw(st.sampled_from([{}, {"lending_limit": 1}]))
    return [
        queue("p", draw(amounts) + 2, weight=draw(st.integers(0, 2))),
        queue("a", draw(amounts), parent="p", weight=draw(st.integers(0, 2)), **limit),
        queue("b", draw(amounts), parent="p", priority=draw(st.sampled_from([100, 101]))),
        queue("c", draw(amounts), weight=draw(st.integers(1, 2)), **lend),
    ]


class Machine(RuleBasedStateMachine):
    """Users, an executor that is sometimes slow, and nodes that come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.down: set[str] = set()

    @initialize(
        queues=trees(),
        sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
        min_runtime=st.sampled_from([0, 0, 5_000]),
    )
    def begin(self, queues: list[QueueSpec], sizes: list[int], min_runtime: int) -> None:
        policy = Policy(min_runtime_ms=min_runtime, cooldown_ms=2_000, resize_interval_ms=1_000, starvation_ms=0)
        nodes = [node(f"n{i}", gpus) for i, gpus in enumerate(sizes)]
        self.world = World(nodes, queues, policy, at=1_000)

    # -- rules

    @rule(
        name=st.sampled_from(QUEUES),
        shape=st.sampled_from([(1, 1), (1, 2), (2, 1), (0.5, 1), (1, 3), (4, 1)]),
        extra=st.integers(0, 2),
        elastic=st.booleans(),
        priority=st.sampled_from([50, 100, 150]),
        kind=st.sampled_from(
            [Preemptibility.PREEMPTIBLE] * 3 + [Preemptibility.NON_PREEMPTIBLE, Preemptibility.SEMI_PREEMPTIBLE]
        ),
        spread=st.sampled_from(["any", "any", "one_node"]),
    )
    def submit(
        self,
        name: str,
        shape: tuple[float, int],
        extra: int,
        elastic: bool,
        priority: int,
        kind: Preemptibility,
        spread: str,
    ) -> None:
        self.count += 1
        gpus, tasks = shape
        spec = job(
            f"j{self.count:03d}", gpus, name, tasks, self.world.now, max_tasks=tasks + extra, elastic=elastic,
            priority=priority, preemptibility=kind, spread=spread,
        )  # fmt: skip
        self.world.submit(spec)

    @rule()
    def decide(self) -> None:
        world = self.world
        before = dict(world.queue_used())
        plan = world.decide()
        self._check_plan(plan.decisions, before)
        assert from_json(to_json(plan)) == plan

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.world.order:
            self.world.answer(data.draw(st.sampled_from(sorted(self.world.order))))

    @rule()
    def answer_all(self) -> None:
        self.world.answer_all()

    @rule(data=st.data(), outcome=st.sampled_from(["succeeded", "failed"]))
    def finish(self, data: st.DataObject, outcome: str) -> None:
        if self.world.held:
            self.world.finish(data.draw(st.sampled_from(sorted(self.world.held))), outcome)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        live = sorted(self.world.specs)
        if live:
            self.world.cancel(data.draw(st.sampled_from(live)))

    @rule(data=st.data())
    def start_fails(self, data: st.DataObject) -> None:
        starting = [job_id for job_id, (order, _) in sorted(self.world.order.items()) if order == "start"]
        if starting:
            job_id = data.draw(st.sampled_from(starting))
            epoch = self.world.order[job_id][1]
            self.world.gone(job_id)
            self.world.apply(ev.JobStartFailed(job_id, epoch, "cpu_busy", self.world.now + 3_000))
            if job_id not in self.world.engine.state.book.jobs:
                self.world.specs.pop(job_id)

    @rule(ms=st.sampled_from([1, 1_000, 5_000]))
    def wait(self, ms: int) -> None:
        self.world.now += ms

    @precondition(lambda self: len(self.world.nodes) > 1)
    @rule(data=st.data())
    def node_down(self, data: st.DataObject) -> None:
        up = sorted(set(self.world.nodes) - self.down)
        if len(up) > 1:
            name = data.draw(st.sampled_from(up))
            self.down.add(name)
            self.world.apply(ev.NodeDown(name))

    @precondition(lambda self: self.down)
    @rule()
    def node_up(self) -> None:
        name = sorted(self.down)[0]
        self.down.discard(name)
        self.world.apply(ev.NodeUp(self.world.nodes[name]))

    @rule(data=st.data())
    def hold_or_release(self, data: st.DataObject) -> None:
        waiting = sorted(set(self.world.specs) - set(self.world.held))
        if waiting:
            job_id = data.draw(st.sampled_from(waiting))
            phase = self.world.engine.phase(job_id)
            self.world.apply(ev.JobReleased(job_id) if phase == "held" else ev.JobHeld(job_id))

    # -- what every plan must satisfy

    def _check_plan(self, decisions: tuple[object, ...], before: dict[str, int]) -> None:
        world = self.world
        jobs = world.engine.state.book.jobs
        for decision in decisions:
            if isinstance(decision, Start):
                spec = world.specs[decision.job_id]
                assert len(decision.places) >= spec.min_tasks, f"S2: a gang started below its minimum: {decisions}"
                assert len(decision.places) <= spec.max_tasks
                if spec.spread == "one_node":
                    assert len({place.node for place in decision.places}) == 1
                assert not {place.node for place in decision.places} & self.down, "placed on a lost node"
            elif isinstance(decision, Preempt):
                spec = world.specs[decision.job_id]
                code = decision.reason.code
                if code in (ReasonCode.PREEMPTED_FOR, ReasonCode.RECLAIMED_FOR, ReasonCode.MIGRATED_FOR):
                    assert spec.preemptibility is Preemptibility.PREEMPTIBLE, (
                        "S7: work that may not be evicted was evicted"
                    )
                    other = str(decision.reason.fact("for"))
                    assert jobs[other].claim or jobs[other].places, "S9: evicted for a job that got nothing"
                if code is ReasonCode.PREEMPTED_FOR:
                    assert spec.priority < world.specs[str(decision.reason.fact("for"))].priority, (
                        "S8: evicted for an equal class"
                    )
            elif isinstance(decision, Resize):
                assert len(decision.places) >= world.specs[decision.job_id].min_tasks, "S2: shrunk below the minimum"

    # -- invariants

    @invariant()
    def never_over_allocated(self) -> None:
        """S1."""
        assert all(milli <= 1000 for milli in self.world.used().values()), self.world.used()

    @invariant()
    def limits_hold(self) -> None:
        """S3."""
        used = self.world.queue_used()
        for spec in self.world.engine.state.book.tree.specs:
            for _, bound in spec.limit:
                assert used.get(spec.name, 0) <= bound, f"{spec.name} uses {used.get(spec.name)} of {bound}"

    @invariant()
    def books_agree(self) -> None:
        """S20: the engine's accounts equal a brute-force sum, and shares never exceed what there is."""
        book = self.world.engine.state.book
        used = self.world.queue_used()
        for name, account in book.tree.by_name.items():
            assert account.used.get("gpu", 0) == used.get(name, 0)
        for parent in (book.tree.root, *book.tree.by_name.values()):
            if parent.children:
                for key in book.capacity:
                    share = sum(child.entitled.get(key, 0) for child in parent.children)
                    assert share <= parent.entitled.get(key, 0)

    @invariant()
    def every_waiting_job_has_one_reason(self) -> None:
        """S23, first half: a reason exactly while the job waits."""
        for job_id in self.world.specs:
            why = self.world.engine.reason(job_id)
            assert (why is None) == (job_id in self.world.held), job_id
            if why is not None:
                assert "{" not in sentence(why)

    @invariant()
    def restored_is_equal(self) -> None:
        """S18: a snapshot restores to the same state, which makes the same plan."""
        engine = self.world.engine
        data = engine.snapshot()
        twin = Engine.restore(data)
        assert twin.snapshot() == data
        assert twin.digest() == engine.digest()
        fork = engine.fork()
        one, other = twin.decide(self.world.now), fork.decide(self.world.now)
        assert to_json(one.decisions) == to_json(other.decisions)

    def teardown(self) -> None:
        """Stop the faults: S15 a fixpoint is reached and stays; S11 nobody waits who fits; S16 victims evict nobody."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for name in sorted(self.down):
            world.apply(ev.NodeUp(world.nodes[name]))
        world.answer_all()
        for _ in range(60):
            world.now += WAIT_STEP_MS * 10
            if not any(isinstance(d, DECISIVE) for d in world.step().decisions):
                break
        else:
            raise AssertionError("S15: no fixpoint")
        for _ in range(5):
            plan = world.step()
            assert not any(isinstance(d, DECISIVE) for d in plan.decisions), f"S15: {plan}"
        self._nobody_fits()

    def _nobody_fits(self) -> None:
        world = self.world
        free = {slot.id: 1000 for spec in world.nodes.values() for slot in spec.slots}
        for slot, milli in world.used().items():
            free[slot] -= milli
        whole = sum(1 for left in free.values() if left == 1000)
        for job_id, spec in world.specs.items():
            why = world.engine.reason(job_id)
            if why is not None and why.code is ReasonCode.INSUFFICIENT_FREE and spec.shape.gpu_milli >= 1000:
                assert whole * 1000 < spec.shape.gpu_milli * spec.min_tasks, f"S11: {job_id} would fit"


TestInvariants = Machine.TestCase
TestInvariants.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
