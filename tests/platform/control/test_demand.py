"""Discovered demand: a program that declares nothing says in its first fit() what it needs, and its driver waits for the lease."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from heliostat.control.parking import Demand
from heliostat_scheduler.live.fake_cluster import Program
from heliostat_scheduler.live.protocol import ENV_DISCOVER, ENV_WARM

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant

WANTS_TWO = Script(steps=30, demand=(2, 2))


def undeclared(plant: Plant, script: Script = WANTS_TWO) -> None:
    plant.submit("plain", gpus=0, work=script)


def busy(plant: Plant, runs_ms: int = 6_000) -> None:
    plant.submit("holder", gpus=2, work=Program(runs_ms=runs_ms))
    plant.until(lambda: plant.state("holder") == "running", "both GPUs to be held")


def parked(plant: Plant) -> None:
    busy(plant)
    undeclared(plant)
    plant.until(lambda: bool(plant.loop.executor.parked), "the driver to wait in fit()")


def ended(plant: Plant) -> None:
    for job in ("holder", "plain"):
        plant.until(lambda job=job: plant.state(job) == "succeeded", f"{job} to succeed", 300_000)  # type: ignore[misc]
    plant.advance(3_000)
    plant.check_quiet()
    assert sorted(set(plant.ray.executed)) == [("plain", step) for step in range(1, 31)]


def test_what_fit_asks_for_becomes_the_request_and_the_same_driver_goes_on(plant: Plant) -> None:
    undeclared(plant)
    plant.until(lambda: plant.state("plain") == "succeeded", "the program to succeed")
    job = plant.job("plain")
    assert (job.gpu_milli, job.min_tasks, job.max_tasks, job.attempts) == (1000, 2, 2, 1)
    assert plant.states("plain") == [
        "admitted", "starting", "running", "queued", "admitted", "starting", "running", "succeeded",
    ]  # fmt: skip
    assert [size for _, _, size in plant.ray.sizes] == [2]
    assert plant.attempts("plain")[0].outcome == "succeeded"
    plant.advance(1_000)
    plant.check_quiet()


def test_it_waits_in_the_queue_with_a_reason_and_a_position_and_holds_nothing(plant: Plant) -> None:
    parked(plant)
    plant.advance(300)
    assert plant.state("plain") == "queued" and plant.running()["plain"] == 1
    reason = plant.loop.engine.reason("plain")
    assert reason is not None and reason.code.value == "InsufficientFree"
    assert plant.loop.engine.position("plain") == 1
    assert not plant.cluster.cpu_groups, "its CPU lease was given back"
    assert plant.cluster.board.leases["plain"].slots == ()
    ended(plant)
    assert plant.job("plain").attempts == 1


def kill_driver(plant: Plant) -> None:
    plant.ray.kill("plain-a1")


def lose_head(plant: Plant) -> None:
    plant.kill_head()
    plant.advance(3_000)
    plant.start_head()


def kill_board(plant: Plant) -> None:
    plant.cluster.kill_board()


@pytest.mark.parametrize("fault", [Plant.restart_control, Plant.kill_bridge, kill_board, kill_driver, lose_head])
@pytest.mark.parametrize("after_ms", [0, 50, 2_000])
def test_a_death_while_it_waits_costs_nothing(plant: Plant, fault: Callable[[Plant], None], after_ms: int) -> None:
    parked(plant)
    plant.advance(after_ms)
    fault(plant)
    ended(plant)


def test_cancelled_while_it_waits(plant: Plant) -> None:
    parked(plant)
    plant.ask("cancel", "plain")
    plant.advance(100)
    assert plant.state("plain") == "cancelled"
    plant.until(lambda: "plain" not in plant.running(), "its driver to end")
    plant.until(lambda: plant.state("holder") == "succeeded", "the other job to succeed")
    plant.advance(3_000)
    plant.check_quiet()


def test_held_and_released_while_it_waits(plant: Plant) -> None:
    parked(plant)
    plant.ask("hold", "plain")
    plant.until(lambda: plant.state("holder") == "succeeded", "the GPUs to be free")
    plant.advance(2_000)
    assert plant.state("plain") == "held"
    plant.restart_control()
    plant.advance(1_000)
    plant.ask("release", "plain")
    ended(plant)


def test_a_range_that_is_declared_too_wide_is_narrowed(plant: Plant) -> None:
    plant.submit("wide", gpus=2, work=Script(steps=20, demand=(1, 1)), min_tasks=1)
    plant.until(lambda: plant.job("wide").max_tasks == 1, "the range to be narrowed")
    plant.until(lambda: len(plant.loop.executor.attempts["wide"].slots) == 1, "the lease to shrink to it")
    plant.until(lambda: plant.state("wide") == "succeeded", "the job to succeed")
    plant.advance(1_000)
    plant.check_quiet()


def test_only_a_program_that_declared_nothing_is_told_to_discover(plant: Plant) -> None:
    plant.submit("gpu", gpus=1, work=Script(runs_ms=200))
    plant.submit("cpu", gpus=0, work=Script(runs_ms=200))
    plant.until(lambda: len(plant.ray.drivers) == 2, "both drivers")
    told = {d.job: d.submission.runtime_env["env_vars"].get(ENV_DISCOVER) for d in plant.ray.drivers.values()}
    assert told == {"gpu": None, "cpu": "1"}


def test_a_job_may_choose_that_its_processes_are_not_kept(plant: Plant) -> None:
    for job, metadata in (("cold", {"warm_handover": "false"}), ("warm", {"warm_handover": "true"}), ("silent", {})):
        plant.submit(job, gpus=1, work=Script(runs_ms=200), job_metadata=metadata)
    told: dict[str, str | None] = {}

    def look() -> bool:
        told.update({d.job: d.submission.runtime_env["env_vars"].get(ENV_WARM) for d in plant.ray.drivers.values()})
        return len(told) == 3

    plant.until(look, "three drivers")
    assert told == {"cold": "0", "warm": None, "silent": None}


@pytest.mark.parametrize(
    ("facts", "demand"),
    [
        pytest.param({"min_gpus": 1, "max_gpus": 4}, Demand(1, 4), id="a range"),
        pytest.param({"min_gpus": 0, "max_gpus": 4}, None, id="nothing is no demand"),
        pytest.param({"min_gpus": 3, "max_gpus": 2}, None, id="an empty range"),
        pytest.param({"min_gpus": "2"}, None, id="words"),
    ],
)
def test_what_is_a_demand(facts: dict[str, object], demand: Demand | None) -> None:
    assert Demand.of(facts) == demand


def test_what_two_ranges_have_in_common() -> None:
    assert Demand(1, 4).within(2, 8) == Demand(2, 4)
    assert Demand(1, 2).within(3, 4) is None
