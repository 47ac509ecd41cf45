"""Which nodes the waiting jobs would use, and when nodes are asked for, asked for again and let go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat_scheduler.core import Engine, JobSpec, Policy, QueueSpec, ReasonCode, TaskShape
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.fleet import FIRST_PAUSE_MS, Fleet, FleetPlan, Machine, offered
from heliostat_scheduler.core.model import NodeComing, NodePool, NodeSpec
from heliostat_scheduler.core.node_demand import NodeDemand, node_demand
from heliostat_scheduler.core.reasons import RemedyKind, sentence

from tests.scheduler.world import FIXED, World, job, node

S, M = 1_000, 60_000


def pool(flavor: str = "big", gpus: int = 4, most: int = 4, **more: int) -> NodePool:
    return NodePool(
        replace(node("", gpus, flavor), cpu_milli=8_000), most, **{"idle_ms": 5 * M, "join_ms": 10 * M, **more}
    )


def cluster(*nodes: NodeSpec, pools: tuple[NodePool, ...] = (pool(),), queues: list[QueueSpec] | None = None) -> World:
    world = World(list(nodes), queues)
    world.apply(ev.PoolsChanged(pools))
    return world


def demand(world: World, **room: int) -> NodeDemand:
    world.step()
    before = world.engine.snapshot()
    found = node_demand(world.engine, room or {"big": 4}, world.now)
    assert world.engine.snapshot() == before, "asking changes nothing"
    return found


CASES = [
    pytest.param([], [], {}, id="nobody waits"),
    pytest.param([], [job("a", 1)], {"big": 1}, id="no node at all, one job"),
    pytest.param([], [job(f"j{i}", 1) for i in range(5)], {"big": 2}, id="five small jobs fill two nodes of four"),
    pytest.param([], [job("a", 1, tasks=9)], {"big": 3}, id="a gang of nine needs three nodes"),
    pytest.param([], [job("a", 1, tasks=17)], {}, id="what the budget cannot hold asks for nothing"),
    pytest.param([], [job("a", 1, tasks=16), job("b", 1, at=1)], {"big": 4}, id="never more than the budget"),
    pytest.param([node("n1", 4, "big")], [job("a", 1, tasks=4)], {}, id="what is free is used first"),
    pytest.param([node("n1", 4, "small")], [job("a", 1, tasks=4, flavors=("small",)), job("b", flavors=("small",), at=1)], {},
                 id="no pool of the flavor that is asked for"),
    pytest.param([], [job("a", 1, max_tasks=9)], {"big": 1}, id="only the smallest size of an elastic job asks"),
    pytest.param([], [job("c", shape=TaskShape(0, 2_000))], {}, id="a job without GPUs asks for no node with GPUs"),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "jobs", "wanted"), CASES)
def test_demand(nodes: list[NodeSpec], jobs: list[JobSpec], wanted: dict[str, int]) -> None:
    world = cluster(*nodes)
    world.submit(*jobs)
    assert demand(world).nodes == wanted


def test_a_job_that_its_queue_holds_back_asks_for_nothing() -> None:
    world = cluster(queues=[QueueSpec("q", quota=(("big", 4_000),), limit=(("big", 8_000),))])
    fixed = job("a", 1, queue="q", tasks=4, preemptibility=FIXED)
    world.submit(
        fixed,
        replace(fixed, id="b", submitted_at_ms=1),
        job("c", 1, queue="q", tasks=4, at=2),
        job("d", 1, queue="q", at=3),
    )
    found = demand(world)
    assert (found.nodes, found.jobs) == ({"big": 2}, {"big": ("a", "c")})


def test_demand_says_who_would_start_and_for_what_flavors_somebody_waits() -> None:
    world = cluster(pools=(pool(), pool("old", 1, 2)))
    world.submit(job("a", 1, tasks=3), job("b", flavors=("old",), at=1), job("c", flavors=("old",), at=2))
    found = demand(world, big=4, old=1)
    assert found.jobs == {"big": ("a",), "old": ("b",)}
    assert (found.nodes, found.waited) == ({"big": 1, "old": 1}, frozenset({"big", "old"}))


def test_nodes_without_gpus_are_asked_for_by_jobs_without() -> None:
    bare = NodePool(NodeSpec("", "cpu", cpu_milli=4_000), 2)
    world = cluster(pools=(pool(), bare))
    world.submit(job("c", shape=TaskShape(0, 3_000)), job("d", shape=TaskShape(0, 3_000), at=1))
    assert demand(world, big=4, cpu=2).nodes == {"cpu": 2}


# ---- the fleet -------------------------------------------------------------------------------------------------------


class Yard:
    """A fleet with one pool, its nodes, and what it wants."""

    def __init__(self, pool: NodePool, nodes: int = 0) -> None:
        self.fleet, self.pool, self.now, self.need, self.waited = Fleet(), pool, 0, 0, False
        self.machines = {f"n{i}": Machine(f"n{i}", pool.flavor) for i in range(nodes)}

    def look(self, ms: int = 0, **changes: Machine | None) -> FleetPlan:
        self.now += ms
        for name, machine in changes.items():
            if machine is None:
                del self.machines[name]
            else:
                self.machines[name] = machine
        room = offered({self.pool.flavor: self.pool}, self.machines.values())[self.pool.flavor]
        need = min(self.need, room)
        flavor = self.pool.flavor
        found = NodeDemand(
            {flavor: need} if need else {},
            {flavor: ("j",)} if need else {},
            frozenset({flavor} if self.waited or need else ()),
        )
        plan = self.fleet.plan({flavor: self.pool}, found, self.machines.values(), self.now)
        assert plan.want[flavor] + len(self.machines) <= max(self.pool.max_nodes, len(self.machines)), (
            "beyond the budget"
        )
        for name in plan.let_go:
            self.machines[name] = replace(self.machines[name], let_go=True)
        for name in plan.take_back:
            self.machines[name] = replace(self.machines[name], let_go=False)
        return plan


def up(name: str, **more: bool) -> Machine:
    return Machine(name, "big", **more)


def test_what_is_wanted_is_asked_for_until_it_is_there() -> None:
    yard = Yard(pool(most=2))
    yard.need = 3
    assert yard.look().want == {"big": 2}
    yard.need = 1
    assert yard.look(30 * S, n1=up("n1", held=True)).want == {"big": 1}
    assert yard.fleet.took_ms == {"big": 30 * S}
    yard.need = 0
    plan = yard.look(S)
    assert (plan.want, plan.coming, yard.fleet.asks) == ({"big": 0}, (), {})


def test_who_waits_is_told_when_nodes_are_expected() -> None:
    yard = Yard(pool())
    yard.need = 1
    assert yard.look(S).coming == (NodeComing("big", 1, S + 10 * M, ("j",)),)
    yard.look(20 * S, n1=up("n1", held=True))
    assert yard.look(S).coming == (NodeComing("big", 1, 41 * S, ("j",)),), "as long as the last one took"


def test_nodes_that_do_not_come_are_asked_for_again_after_a_pause_that_doubles() -> None:
    yard = Yard(pool())
    yard.need = 2
    yard.look()
    for tries, pause in ((1, 1), (2, 2), (3, 4)):
        assert yard.look(10 * M - 1).want == {"big": 2}
        plan = yard.look(1)
        assert (plan.want, plan.next_ms) == ({"big": 0}, yard.now + pause * FIRST_PAUSE_MS)
        assert plan.coming == (NodeComing("big", 2, yard.now + pause * FIRST_PAUSE_MS, ("j",), tries, late=True),)
        assert yard.look(pause * FIRST_PAUSE_MS - 1).want == {"big": 0}
        assert yard.look(1).want == {"big": 2}
    yard.need = 0
    assert yard.look(S).coming == ()
    yard.need = 1
    assert yard.look(S).coming[0].tries == 1, "a new wish begins anew"


def test_a_node_that_dies_on_its_way_is_no_more_wanted_than_before() -> None:
    yard = Yard(pool(most=3))
    yard.need = 1
    assert yard.look().want == {"big": 1}
    yard.need = 0
    assert yard.look(5 * S, n1=up("n1", held=True)).want == {"big": 0}
    yard.need = 1
    assert yard.look(5 * S, n1=None).want == {"big": 1}, "at once, the first time"
    yard.need = 0
    yard.look(5 * S, n2=up("n2", held=True))
    yard.need = 1
    plan = yard.look(5 * S, n2=None)
    assert (plan.want, plan.coming[0].late, plan.coming[0].tries) == ({"big": 0}, True, 3)
    yard.need = 0
    assert yard.look(S).want == {"big": 0} and not yard.fleet.asks


def test_nodes_that_were_let_go_have_not_died() -> None:
    yard = Yard(pool(idle_ms=S))
    yard.look()
    for name in ("n1", "n2", "n3"):
        yard.look(0, **{name: up(name)})
        assert yard.look(2 * S).let_go == (name,)
        yard.look(S)
        yard.look(S, **{name: None})
    yard.need = 1
    plan = yard.look(S)
    assert (plan.want, plan.coming[0].tries) == ({"big": 1}, 1)


def test_an_idle_node_is_let_go_after_its_time_and_a_busy_one_never() -> None:
    yard = Yard(pool(), nodes=2)
    yard.look(0, n1=up("n1", held=True))
    plan = yard.look(5 * M - 1)
    assert (plan.let_go, plan.next_ms) == ((), yard.now + 1)
    assert yard.look(1).let_go == ("n0",)
    assert yard.look(20 * M).let_go == ()
    assert yard.look(0, n1=up("n1")).let_go == ()
    assert yard.look(5 * M).let_go == ("n1",)


KEPT = [
    pytest.param({"held": True}, False, 0, id="somebody is on it"),
    pytest.param({"closed": True}, False, 0, id="somebody took it out of use"),
    pytest.param({}, True, 0, id="somebody waits for the flavor"),
    pytest.param({}, False, 1, id="as many as the pool keeps"),
]


@pytest.mark.parametrize(("state", "waited", "fewest"), KEPT)
def test_a_node_is_kept(state: dict[str, bool], waited: bool, fewest: int) -> None:
    yard = Yard(pool(min_nodes=fewest))
    yard.waited = waited
    yard.look(0, n1=up("n1", **state))
    assert yard.look(60 * M).let_go == ()


def test_a_node_that_was_let_go_is_taken_back_before_another_is_asked_for() -> None:
    yard = Yard(pool(most=2), nodes=1)
    yard.look()
    assert yard.look(5 * M).let_go == ("n0",)
    yard.need = 1
    plan = yard.look(S)
    assert (plan.take_back, plan.want, plan.coming) == (("n0",), {"big": 0}, ())
    yard.need = 2
    yard.machines["n0"] = up("n0", let_go=True)
    plan = yard.look(S)
    assert (plan.take_back, plan.want) == (("n0",), {"big": 1})


def test_the_fewest_that_are_kept_are_asked_for_without_a_job() -> None:
    yard = Yard(pool(min_nodes=2))
    assert yard.look().want == {"big": 2}
    assert yard.look(S, n1=up("n1")).want == {"big": 1}
    assert yard.look(60 * M, n2=up("n2")).let_go == ()


# ---- what the waiting jobs are told ----------------------------------------------------------------------------------


def test_a_job_that_only_nodes_to_come_can_hold_waits_and_does_not_never_fit() -> None:
    world = cluster(node("n1", 1, "small"))
    world.submit(
        job("a", 1, tasks=16),
        job("b", 1, tasks=17, at=1),
        job("c", flavors=("big",), at=2),
        job("d", flavors=("huge",), at=3),
    )
    world.step()
    codes = [str(reason.code) for name in "abcd" if (reason := world.engine.reason(name))]
    assert codes == ["NoCapacityYet", "NeverFits", "NoCapacityYet", "FlavorMismatch"]


def test_who_waits_for_a_node_on_its_way_says_so_with_a_time_and_after_a_restart() -> None:
    world = cluster()
    world.submit(job("a"), job("b", at=1))
    world.step()
    world.apply(ev.NodesComing((NodeComing("big", 1, 9_000, ("a",)),)))
    for engine in (world.engine, Engine.restore(world.engine.snapshot()), world.engine.fork()):
        engine.decide(world.now)
        reason, other = engine.reason("a"), engine.reason("b")
        assert reason is not None and other is not None
        assert (reason.code, reason.until_ms, other.code) == (
            ReasonCode.NODE_JOINING,
            9_000,
            ReasonCode.NO_CAPACITY_YET,
        )
        assert sentence(reason) == "waits for 1 node of flavor big, asked for and not there yet"
    assert world.engine.digest() == Engine.restore(world.engine.snapshot()).digest()
    remedies = world.engine.explain("a", world.now).remedies
    assert [(r.kind, r.at_ms) for r in remedies] == [(RemedyKind.WAIT, 9_000)]
    world.apply(ev.NodesComing((NodeComing("big", 2, 9_000, ("a",), 3, late=True),)))
    late = world.engine.reason("a")
    assert late is not None and sentence(late) == (
        "waits for 2 nodes of flavor big, which did not come (asked 3 times); asked for again in a while"
    )


def test_when_all_nodes_are_there_that_may_be_it_says_so_and_what_to_raise() -> None:
    world = cluster(node("n1", 1, "big"), pools=(pool(gpus=1, most=1),))
    world.submit(job("a"), job("b", at=1))
    world.step()
    reason = world.engine.reason("b")
    assert reason is not None and "all 1 node that flavor big may have are there" in sentence(reason)
    explained = world.engine.explain("b", world.now)
    check = next(check for check in explained.checks if check.name == "more nodes can be had")
    assert (check.ok, dict(check.facts)["more_nodes"]) == (False, 0)
    assert [r.text for r in explained.remedies if r.action == "add_nodes"] == [
        "raise max of big under nodes in queues.yaml to 2: add 1 node with 1 GPU (big)"
    ]


def test_two_pools_of_one_flavor_are_refused() -> None:
    world = World([], policy=Policy())
    with pytest.raises(ev.IllegalEvent, match="same flavor"):
        world.apply(ev.PoolsChanged((pool(), pool())))
