"""Nodes that come and go by demand, through the whole control plane."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from heliostat.control.messages import QueuesTold
from heliostat.store import queuefiles
from heliostat.store.tables import Event
from heliostat_scheduler.core.reasons import ReasonCode, sentence
from heliostat_scheduler.live.fake_cluster import FakeNode, Program
from sqlalchemy import select

from tests.platform.control.plant import Plant

POOL = "{gpus: 2, cpus: 8, max: 2, idle: 5s, join: 10s}"


def put(plant: Plant, pool: str = POOL) -> None:
    text = "queues: {default: {quota: unlimited}}\n" + (f"nodes: {{auto: {pool}}}\n" if pool else "")
    plant.store.write(lambda s: queuefiles.put(s, text, actor="ann", now_ms=plant.cluster.now_ms))
    plant.post(QueuesTold())
    plant.advance(1_500)


@pytest.fixture
def auto(make_plant: Callable[..., Plant]) -> Plant:
    """A head with one GPU, and nodes of two that can be had."""
    plant = make_plant(gpus=1)
    plant.advance(1_000)
    put(plant)
    return plant


def joins(plant: Plant, name: str) -> None:
    plant.cluster.add_node(FakeNode(name, gpus=2, flavor="auto"))
    plant.advance(1_500)


def node_state(plant: Plant, name: str) -> str:
    return plant.loop.nodes.state(plant.loop.executor.nodes[name])


def code(plant: Plant, job: str) -> str:
    reason = plant.loop.engine.reason(job)
    return "" if reason is None else str(reason.code)


def story(plant: Plant) -> list[str]:
    kinds = ("nodes_wanted", "nodes_late", "node_let_go", "node_uncordoned")
    with plant.store.read() as session:
        return list(session.execute(select(Event.kind).where(Event.kind.in_(kinds)).order_by(Event.seq)).scalars())


def test_a_waiting_job_brings_a_node_and_the_node_leaves_when_it_is_idle(auto: Plant) -> None:
    auto.submit("a", gpus=2, work=Program(runs_ms=5_000), flavor="auto")
    auto.until(lambda: auto.cluster.wanted == {"auto": 1}, "a node to be asked for")
    assert code(auto, "a") == "NodeJoining"
    joins(auto, "n1")
    assert (auto.state("a"), auto.cluster.wanted) == ("running", {})
    auto.until(lambda: auto.state("a") == "succeeded", "the job to end")
    auto.advance(3_000)
    assert node_state(auto, "n1") == "up"
    auto.until(lambda: node_state(auto, "n1") == "let_go", "the idle node to be let go")
    assert not [ref for ref in auto.cluster.slots.values() if ref.node == "n1"]
    auto.cluster.lose_node("n1")
    auto.advance(5_000)
    assert auto.cluster.wanted == {} and "n1" not in auto.loop.nodes.cordons
    assert story(auto) == ["nodes_wanted", "node_let_go"]
    auto.check_quiet()


def test_a_job_takes_a_node_back_that_was_let_go(auto: Plant) -> None:
    auto.submit("a", gpus=2, work=Program(runs_ms=1_000), flavor="auto")
    auto.advance(1_500)
    joins(auto, "n1")
    auto.until(lambda: node_state(auto, "n1") == "let_go", "the idle node to be let go")
    auto.submit("b", gpus=2, work=Program(runs_ms=1_000), flavor="auto")
    auto.until(lambda: auto.state("b") == "running", "the job to run there")
    assert (auto.cluster.wanted, node_state(auto, "n1")) == ({}, "up")
    auto.until(lambda: auto.state("b") == "succeeded", "the job to end")
    auto.check_quiet()


@pytest.mark.parametrize("wait_ms", range(0, 2_000, 150))
def test_taken_back_at_any_moment_of_its_leaving_it_has_its_slots_again(auto: Plant, wait_ms: int) -> None:
    auto.submit("a", gpus=2, work=Program(runs_ms=1_000), flavor="auto")
    auto.advance(1_500)
    joins(auto, "n1")
    auto.until(lambda: auto.state("a") == "succeeded", "the job to end")
    auto.advance(4_000 + wait_ms)
    auto.submit("b", gpus=2, work=Program(runs_ms=1_000), flavor="auto")
    auto.until(lambda: auto.state("b") == "succeeded", "the job to run there", 20_000)
    assert len([ref for ref in auto.cluster.slots.values() if ref.node == "n1"]) == 2
    auto.check_quiet()


def test_never_more_than_the_budget_and_who_gets_none_is_told(auto: Plant) -> None:
    for job in ("a", "b", "c"):
        auto.submit(job, gpus=2, work=Program(runs_ms=30_000), flavor="auto")
    auto.until(lambda: auto.cluster.wanted == {"auto": 2}, "two nodes to be asked for")
    auto.advance(4_000)
    assert (auto.cluster.wanted, code(auto, "c")) == ({"auto": 2}, "NoCapacityYet")
    joins(auto, "n1")
    assert auto.cluster.wanted == {"auto": 1}
    joins(auto, "n2")
    reason = auto.loop.engine.reason("c")
    assert (auto.cluster.wanted, auto.state("b")) == ({}, "running")
    assert reason is not None and "all 2 nodes that flavor auto may have are there" in sentence(reason)
    auto.until(lambda: auto.state("c") == "succeeded", "the last one")
    auto.check_quiet()


def test_a_node_that_dies_on_its_way_leaves_no_demand_behind(auto: Plant) -> None:
    auto.submit("a", gpus=2, work=Program(runs_ms=5_000), flavor="auto")
    auto.until(lambda: auto.cluster.wanted == {"auto": 1}, "a node to be asked for")
    auto.cluster.add_node(FakeNode("n1", gpus=2, flavor="auto"))
    auto.cluster.lose_node("n1")
    auto.advance(3_000)
    assert auto.cluster.wanted == {"auto": 1}, "one is wanted, as before"
    auto.ask("cancel", "a")
    auto.advance(3_000)
    assert (auto.cluster.wanted, auto.loop.supply.coming) == ({}, ())
    auto.check_quiet()


def test_a_node_that_never_comes_is_asked_for_again_after_a_pause(auto: Plant) -> None:
    auto.submit("a", gpus=2, work=Program(runs_ms=5_000), flavor="auto")
    auto.until(lambda: auto.cluster.wanted == {"auto": 1}, "a node to be asked for")
    auto.until(lambda: not auto.cluster.wanted, "patience to end")
    reason = auto.loop.engine.reason("a")
    assert reason is not None and reason.code is ReasonCode.NODE_JOINING and "did not come" in sentence(reason)
    auto.until(lambda: auto.cluster.wanted == {"auto": 1}, "it to be asked for again")
    joins(auto, "n1")
    auto.until(lambda: auto.state("a") == "succeeded", "the job")
    assert story(auto)[:3] == ["nodes_wanted", "nodes_late", "nodes_wanted"]
    auto.check_quiet()


@pytest.mark.parametrize("fault", ["bridge", "control", "head"])
def test_what_is_wanted_outlives_a_death(auto: Plant, fault: str) -> None:
    auto.submit("a", gpus=2, work=Program(runs_ms=2_000), flavor="auto")
    auto.until(lambda: auto.cluster.wanted == {"auto": 1}, "a node to be asked for")
    match fault:
        case "bridge":
            auto.kill_bridge()
        case "control":
            auto.restart_control()
        case _:
            auto.kill_head()
            auto.advance(1_000)
            auto.start_head()
    assert auto.cluster.wanted == {}
    auto.until(lambda: auto.cluster.wanted == {"auto": 1}, "it to be asked for again")
    joins(auto, "n1")
    auto.until(lambda: auto.state("a") == "succeeded", "the job")
    auto.check_quiet()


def test_without_pools_nothing_is_asked_for_and_what_was_is_withdrawn(auto: Plant) -> None:
    auto.submit("a", gpus=2, work=Program(runs_ms=2_000), flavor="auto")
    auto.until(lambda: auto.cluster.wanted == {"auto": 1}, "a node to be asked for")
    put(auto, "")
    assert (auto.cluster.wanted, auto.loop.supply.coming, code(auto, "a")) == ({}, (), "FlavorMismatch")
