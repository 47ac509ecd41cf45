"""Nodes taken out of use and back, through the whole control plane."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from heliostat.control.messages import NodeAsked
from heliostat.control.port import ControlError
from heliostat_scheduler.live.fake_cluster import FakeNode, Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant


@pytest.fixture
def two(make_plant: Callable[..., Plant]) -> Plant:
    """Two nodes with one GPU each; the second one is called `other`."""
    plant = make_plant(gpus=1)
    plant.cluster.add_node(FakeNode("other", gpus=1))
    plant.advance(1_000)
    return plant


def ask(plant: Plant, what: str, node: str = "other") -> BaseException | None:
    from concurrent.futures import Future

    answer: Future[None] = Future()
    plant.post(NodeAsked(what, node, "ann", answer))
    plant.advance(200)
    return answer.exception()


def state(plant: Plant, node: str = "other") -> str:
    known = plant.loop.executor.nodes.get(node)
    return "" if known is None else plant.loop.nodes.state(known)


def place(plant: Plant, job: str) -> str:
    return plant.loop.executor.attempts[job].node


def slots(plant: Plant, node: str = "other") -> int:
    return sum(ref.node == node for ref in plant.cluster.slots.values())


def test_nothing_new_starts_on_a_cordoned_node_and_what_runs_goes_on(two: Plant) -> None:
    for job in ("a", "b"):
        two.submit(job, work=Program(runs_ms=3_000))
    two.until(lambda: {two.state("a"), two.state("b")} == {"running"}, "both to run")
    assert ask(two, "cordon") is None and state(two) == "cordoned"
    two.until(lambda: two.state("a") == two.state("b") == "succeeded", "both to succeed")
    for job in ("c", "d"):
        two.submit(job, work=Program(runs_ms=1_500))
    two.until(lambda: two.state("c") == "running", "the first of two")
    assert (two.state("d"), place(two, "c") == "other", slots(two)) == ("queued", False, 1)
    assert ask(two, "uncordon") is None and state(two) == "up"
    two.submit("e", gpus=2, work=Script(runs_ms=300))
    two.until(lambda: two.state("e") == "succeeded", "a job on both nodes")
    two.check_quiet()


@pytest.mark.parametrize("fault", [None, Plant.restart_control, Plant.kill_bridge])
def test_a_drained_node_is_left_with_a_checkpoint_and_its_gpus_are_given_back(
    two: Plant, fault: Callable[[Plant], None] | None
) -> None:
    two.submit("stays", work=Program(runs_ms=4_000))
    two.until(lambda: two.state("stays") == "running", "the first job to run")
    moving = "other" if place(two, "stays") != "other" else two.loop.executor.head_node
    two.submit("moves", work=Script(steps=60, checkpoint_every=10))
    two.until(lambda: len(two.ray.executed) >= 15, "some steps")
    assert place(two, "moves") == moving
    assert ask(two, "drain", moving) is None
    if fault is not None:
        fault(two)
    two.until(lambda: state(two, moving) == "drained", "the node to be drained")
    assert slots(two, moving) == 0 and two.state("moves") == "queued"
    two.until(lambda: two.state("moves") == "succeeded", "the job to go on elsewhere")
    assert len(set(two.ray.executed)) == len(two.ray.executed) == 60
    assert ask(two, "uncordon", moving) is None
    two.until(lambda: slots(two, moving) == 1, "the slot to be back")
    assert state(two, moving) == "up"
    two.check_quiet()


def test_a_cordon_outlives_the_control_plane(two: Plant) -> None:
    ask(two, "cordon")
    two.restart_control()
    two.advance(2_000)
    assert state(two) == "cordoned"
    two.submit("a", gpus=2, work=Script(runs_ms=300))
    two.advance(2_000)
    assert two.state("a") == "queued"


def test_an_unknown_node_is_refused(two: Plant) -> None:
    error = ask(two, "drain", "nowhere")
    assert isinstance(error, ControlError) and error.code == "unknown_node"
