"""Growth by learned goodput keeps every rule that a start keeps: one node, one domain, quota of what may not stop, lending limits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from heliostat_scheduler.core import JobSpec, NodeSpec, Policy, QueueSpec
from heliostat_scheduler.core import events as ev

from tests.scheduler.world import FIXED, SEMI, World, job, node, queue

POLICY = Policy(cooldown_ms=0, resize_interval_ms=0, aging_step_ms=0)
LINEAR = tuple((tasks, 1000 * tasks) for tasks in range(1, 9))
GROWING = job("x", 2, max_tasks=4, elastic=True)


@dataclass(frozen=True)
class Case:
    """The job runs with what is free at first, then the closed nodes open and its goodput is known. `tasks`: what it has in the end."""

    say: str
    spec: JobSpec
    tasks: int
    nodes: tuple[NodeSpec, ...] = (node("n0", 4), node("n1", 4))
    queues: list[QueueSpec] = field(default_factory=lambda: [queue("default", -1)])


def rack(name: str, gpus: int, where: str) -> NodeSpec:
    return replace(node(name, gpus), labels=(("rack", where),))


CASES = [
    Case("it grows as far as it scales", GROWING, 4),
    Case("on one node", replace(GROWING, spread="one_node"), 2),
    Case("inside one rack", replace(GROWING, spread="rack"), 3,
         (rack("n0", 2, "r0"), rack("n1", 4, "r1"), rack("n2", 2, "r1"), rack("n3", 4, "r2"))),
    Case("what may not stop does not borrow", replace(GROWING, preemptibility=FIXED), 2, queues=[queue("default", 4)]),
    Case("the surplus of a core may", replace(GROWING, preemptibility=SEMI), 4, queues=[queue("default", 4)]),
    Case("not what another queue does not lend", GROWING, 3, queues=[queue("default", 4), queue("other", 4, lending_limit=2)]),
    Case("not above a limit", GROWING, 3, queues=[queue("default", 4, limit=6)]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.say)
def test_growth(case: Case) -> None:
    made = World(list(case.nodes), case.queues, POLICY, at=1_000)
    for spec in case.nodes[1:]:
        made.apply(ev.NodeCordoned(spec.id))
    made.submit(replace(case.spec, max_tasks=1))
    made.settle()
    made.apply(ev.JobChanged(case.spec))
    made.specs["x"] = case.spec
    made.apply(ev.Estimated("x", goodput_milli=LINEAR))
    for spec in case.nodes[1:]:
        made.apply(ev.NodeUncordoned(spec.id))
    for _ in range(5):
        made.now += 1_000
        made.settle()
    assert made.tasks("x") == case.tasks


SETTLED = job("y", 1, tasks=2, elastic=True)
FULL = tuple((tasks, 1000 * tasks) for tasks in (1, 2))


@dataclass(frozen=True)
class Scattered:
    """x and y have two devices each of the first node (4 devices), z is on the second; x may grow in its place if y moves there."""

    say: str
    tasks: int
    spec: JobSpec = field(default_factory=lambda: job("x", 1, tasks=2, max_tasks=4, elastic=True))
    neighbour: JobSpec = SETTLED
    known: bool = True
    others: int = 4
    """Devices of the second node; z holds `held` of them."""
    held: int = 2
    limit: int = -1


SCATTERED = [
    Scattered("its neighbour moves to what is free", 4),
    Scattered("not one whose goodput nobody knows", 2, known=False),
    Scattered("not one that may not be resized", 2, neighbour=replace(SETTLED, elastic=False)),
    Scattered("not one that holds more than is gained", 2, spec=job("x", 1, tasks=2, max_tasks=3, elastic=True), others=5, held=3),
    Scattered("not where the neighbour finds no room", 2, held=3),
    Scattered("not while a limit forbids the growth", 2, limit=6),
]  # fmt: skip


def scattered(case: Scattered, neighbour: JobSpec) -> World:
    """Everybody is where Scattered says, and x may grow from now on."""
    nodes = [node("n0", 4), node("n1", case.others)]
    queues = [queue("default", -1, limit=case.limit)]
    made = World(nodes, queues, replace(POLICY, resize_interval_ms=30_000), at=1_000)
    made.apply(ev.NodeCordoned("n1"))
    made.submit(replace(case.spec, max_tasks=2))
    made.submit(neighbour)
    made.settle()
    made.apply(ev.NodeUncordoned("n1"))
    made.apply(ev.NodeCordoned("n0"))
    made.submit(job("z", 1, tasks=case.held))
    made.settle()
    made.apply(ev.NodeUncordoned("n0"))
    if case.known:
        made.apply(ev.Estimated("y", goodput_milli=FULL))
    made.apply(ev.JobChanged(case.spec))
    made.specs["x"] = case.spec
    made.apply(ev.Estimated("x", goodput_milli=LINEAR))
    return made


@pytest.mark.parametrize("case", SCATTERED, ids=lambda case: case.say)
def test_room_is_made_on_the_own_node(case: Scattered) -> None:
    made = scattered(case, case.neighbour)
    before = made.held["y"]
    for _ in range(5):
        made.now += 1_000
        made.settle()
    assert made.tasks("x") == case.tasks
    assert {place.node for place in made.held["x"]} == {"n0"}
    moved = {place.node for place in made.held["y"]} == {"n1"}
    assert moved == (case.tasks == 4)
    assert moved or made.held["y"] == before


def test_who_was_resized_just_now_does_not_move() -> None:
    small = replace(SETTLED, min_tasks=1, max_tasks=1)
    made = scattered(SCATTERED[0], small)
    made.apply(ev.JobChanged(replace(small, max_tasks=2)))
    made.specs["y"] = replace(small, max_tasks=2)
    made.apply(ev.JobChanged(replace(SCATTERED[0].spec, max_tasks=2)))
    made.settle()
    assert made.tasks("y") == 2
    made.apply(ev.JobChanged(SCATTERED[0].spec))
    made.now += 29_000
    made.settle()
    assert made.tasks("x") == 2
    made.now += 2_000
    made.settle()
    assert made.tasks("x") == 4


def test_nobody_moves_off_a_node_that_the_growing_job_may_not_use() -> None:
    made = World([rack("n0", 4, "r0"), node("n1", 4), node("n2", 4)], policy=POLICY, at=1_000)
    small = job("x", 1, tasks=2, elastic=True, spread="rack")
    for home, specs in (("n0", (small, job("rigid", 1, tasks=2))), ("n1", (SETTLED,)), ("n2", (job("z", 1, tasks=2),))):
        for name in sorted({"n0", "n1", "n2"} - {home}):
            made.apply(ev.NodeCordoned(name))
        made.apply(ev.NodeUncordoned(home))
        made.submit(*specs)
        made.settle()
    for name in ("n0", "n1", "n2"):
        made.apply(ev.NodeUncordoned(name))
    before = made.held["y"]
    assert {place.node for place in before} == {"n1"}
    made.apply(ev.JobChanged(replace(small, max_tasks=4)))
    made.specs["x"] = replace(small, max_tasks=4)
    made.apply(ev.Estimated("x", goodput_milli=LINEAR))
    made.apply(ev.Estimated("y", goodput_milli=FULL))
    made.settle()
    assert (made.tasks("x"), made.held["y"]) == (2, before)


@pytest.mark.parametrize("policy", [Policy(min_runtime_ms=60_000), Policy()], ids=["minimum runtime", "cooldown"])
def test_an_owner_grows_as_soon_as_the_borrowers_protection_ends(policy: Policy) -> None:
    made = World([node("n0", 4)], [queue("own", 4), queue("b")], policy, at=1_000)
    made.submit(job("borrower", 1, "b", 3))
    made.settle()
    if not policy.min_runtime_ms:  # evicted once, it has a cooldown
        made.submit(job("passing", 1, "own", 2, made.now))
        made.settle()
        made.finish("passing")
        made.settle()
        assert made.runs("borrower")
    made.submit(job("elastic", 1, "own", 1, made.now, max_tasks=4, elastic=True))
    made.settle()
    assert made.tasks("elastic") == 1 and made.runs("borrower")
    wakeup = made.engine.next_wakeup_ms()
    assert wakeup is not None and wakeup <= made.now + max(60_000 if policy.min_runtime_ms else 0, 30_000)
    made.now = wakeup
    made.settle()
    assert made.tasks("elastic") == 4 and not made.runs("borrower")


def _limited(gpus: int) -> QueueSpec:
    return QueueSpec("a", quota=(("gpu", 4_000),), user_limit=(("gpu", gpus * 1_000),))


@pytest.mark.parametrize(("limit", "tasks"), [(1, 1), (3, 3)])
def test_what_is_taken_back_stays_within_the_users_limit(limit: int, tasks: int) -> None:
    made = World([node("n0", 4)], [_limited(limit), queue("b")], POLICY, at=1_000)
    made.submit(*(job(f"borrower-{i}", 1, "b") for i in range(3)))
    made.settle()
    made.submit(job("bob", 1, "a", at=made.now, max_tasks=4, elastic=True, user="bob"))
    made.settle()
    assert made.tasks("bob") == tasks and len(made.running()) == 1 + 4 - tasks


def test_a_promise_ends_when_the_users_limit_was_lowered_meanwhile() -> None:
    made = World([node("n0", 4)], [_limited(2), queue("b")], POLICY, at=1_000)
    made.submit(job("borrower", 1, "b", 4))
    made.settle()
    made.submit(job("bob", 1, "a", 2, made.now, user="bob"))
    made.decide()
    assert made.engine.state.book.jobs["bob"].claim
    made.apply(ev.QueuesChanged((_limited(1), queue("b"))))
    made.answer_all()
    made.settle()
    assert not made.runs("bob") and made.runs("borrower")
