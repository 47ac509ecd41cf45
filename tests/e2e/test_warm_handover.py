"""Resizes that keep processes, what makes them plain, and many of them beside strays that wait for every GPU. Two logical GPUs."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from heliostat_jobs.spec import STEPS_FILE, recount_run
from heliostat_scheduler.live.board_state import Said
from heliostat_scheduler.live.protocol import PREEMPT, RELEASED, RUN, STARTED, SlotRef
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from tests.e2e.lease_world import LeaseWorld, end, lease_world, lines, wait_until
from tests.e2e.ray_cluster import RayCluster

pytestmark = [
    pytest.mark.ray, pytest.mark.slow, pytest.mark.cluster(num_cpus=6, num_gpus=2), pytest.mark.timeout(1200)
]  # fmt: skip
SCRIPTS = Path(__file__).parent / "scripts"
SCRIPT = str(SCRIPTS / "elastic_steps.py")
STEPS = 120
DIGITS = str(Path(__file__).parents[2] / "benchmarks" / "elastic" / "script.py")
CYCLES, PAUSES = 20, 5


@pytest.fixture(scope="module")
def world(ray_cluster: RayCluster) -> Iterator[LeaseWorld]:
    with lease_world(ray_cluster, gpus=2) as made:
        yield made


def more_steps(run: Path, driver: subprocess.Popen[bytes], number: int) -> None:
    ran = lines(run / STEPS_FILE)
    wait_until(lambda: lines(run / STEPS_FILE) >= ran + number, f"{number} more steps", driver)


def pids(started: Said) -> dict[str, int]:
    return {rank["slot"]: rank["pid"] for rank in started.facts["ranks"]}


def assert_whole(run: Path, driver: subprocess.Popen[bytes]) -> None:
    assert driver.wait(240) == 0, (run / "driver-1.log").read_text()[-3000:]
    count = recount_run(run)
    assert (count.distinct, count.recomputed, count.missing, count.changed) == (STEPS, 0, 0, 0)


def test_processes_stay_when_a_run_shrinks_and_when_it_grows(world: LeaseWorld, tmp_path: Path) -> None:
    first, second = world.slots
    lease = world.grant("job-obeys")
    driver = world.start(lease, tmp_path, [SCRIPT, str(tmp_path), str(STEPS), "obeys"])
    before = pids(world.wait_said(lease, STARTED, driver))
    more_steps(tmp_path, driver, 25)

    lease = world.order("job-obeys", RUN, deadline_s=60, slots=(second,))
    assert world.wait_said(lease, RELEASED, driver).facts["how"] == "saved"
    shrunk = world.wait_said(lease, STARTED, driver)
    assert pids(shrunk) == {second.slot: before[second.slot]}, "rank 1 has become rank 0 in its process"
    assert (shrunk.facts["kept"], shrunk.facts["warm"]) == (1, 0)
    more_steps(tmp_path, driver, 25)

    lease = world.order("job-obeys", RUN, deadline_s=60, slots=(first, second))
    assert world.wait_said(lease, RELEASED, driver).facts["how"] == "grows"
    grown = world.wait_said(lease, STARTED, driver)
    assert (grown.facts["kept"], grown.facts["warm"]) == (1, 1)
    assert pids(grown)[second.slot] == before[second.slot] and pids(grown)[first.slot] != before[first.slot]
    assert_whole(tmp_path, driver)


def test_a_script_that_never_looks_is_kept_from_its_next_checkpoint_on(world: LeaseWorld, tmp_path: Path) -> None:
    """Its rank 1 has gone on to the next step when rank 0 ends: the collective breaks, and with it the old loop."""
    log = tmp_path / "epochs.jsonl"
    lease = world.grant("job-torch")
    argv = [str(SCRIPTS / "plain_torch.py"), str(log), "elastic"]
    driver = world.start(lease, tmp_path, argv)
    before = pids(world.wait_said(lease, STARTED, driver))
    wait_until(lambda: lines(log) >= 5, "five epochs", driver)
    lease = world.order("job-torch", RUN, deadline_s=120, slots=world.slots[1:])
    assert world.wait_said(lease, RELEASED, driver).facts["how"] == "saved"
    shrunk = world.wait_said(lease, STARTED, driver)
    slot = world.slots[1].slot
    assert (shrunk.facts["kept"], pids(shrunk)) == (1, {slot: before[slot]})
    assert driver.wait(240) == 0, (tmp_path / "driver-1.log").read_text()[-3000:]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [*range(19), *range(20, 60)], "19 was saved; its line comes after report()"
    assert [row["world_size"] for row in rows] == [2] * 19 + [1] * 40


@pytest.mark.parametrize(
    ("mode", "choice", "why"),
    [
        pytest.param("returns", "1", "the script caught the exception that ends its loop", id="returns"),
        pytest.param("stays", "1", "the script did not come back from its loop within 5 s", id="stays"),
        pytest.param("once", "1", "context has already been set", id="cannot begin twice"),
        pytest.param("obeys", "0", "the job chose plain restarts", id="opted out"),
    ],
)
def test_the_restart_is_plain_and_loses_nothing(
    world: LeaseWorld, tmp_path: Path, mode: str, choice: str, why: str
) -> None:
    job = f"job-{mode}-{choice}"
    lease = world.grant(job)
    argv = [SCRIPT, str(tmp_path), str(STEPS), mode]
    driver = world.start(lease, tmp_path, argv, HELIOSTAT_WARM_HANDOVER=choice)
    before = pids(world.wait_said(lease, STARTED, driver))
    more_steps(tmp_path, driver, 25)
    lease = world.order(job, RUN, deadline_s=60, slots=world.slots[:1])
    plain: list[Said] = []

    def look() -> bool:
        plain[:] = [s for s in world.said(job) if s.epoch == lease.epoch and s.facts.get("plain_because")]
        return bool(plain)

    wait_until(look, "a plain restart", driver)
    assert why in plain[0].facts["plain_because"] and plain[0].facts["kept"] == 0
    assert set(pids(plain[0]).values()).isdisjoint(before.values())
    assert_whole(tmp_path, driver)


@pytest.mark.parametrize("kind", ["PyTorch", "without PyTorch"])
def test_many_resizes_beside_strays(world: LeaseWorld, tmp_path: Path, kind: str) -> None:
    run, job = tmp_path / "run", f"job-churn-{kind[:2]}"
    lease = world.grant(job)
    argv = [DIGITS, str(run)] if kind == "PyTorch" else [SCRIPT, str(run), "1000000", "obeys"]
    driver = world.start(lease, run, argv)
    world.wait_said(lease, STARTED, driver)
    stray, group = stray_actor(), placement_group([{"GPU": 1}], name="stray-group")
    groups, node = world.groups(), ray.get_runtime_context().get_node_id()

    def settled(order: str, slots: tuple[SlotRef, ...], awaited: str) -> None:
        lease = world.order(job, order, deadline_s=60, slots=slots)
        world.wait_said(lease, RELEASED, driver)
        world.wait_said(lease, awaited, driver)
        assert world.slot_states() == ["CREATED"] * 2 and world.groups() == groups
        assert placement_group_table()[group.id.hex()]["state"] == "PENDING" and not has_started(stray)
        assert [(n["NodeID"], n["Alive"]) for n in ray.nodes()] == [(node, True)], "the raylet is another or dead"

    for cycle in range(CYCLES):
        more_steps(run, driver, 15)
        settled(RUN, (world.slots[cycle % 2],), STARTED)
        more_steps(run, driver, 15)
        settled(RUN, world.slots, STARTED)
    for _ in range(PAUSES):
        more_steps(run, driver, 15)
        settled(PREEMPT, world.slots, RELEASED)
        standing = lines(run / STEPS_FILE)
        lease = world.order(job, RUN, slots=world.slots)
        world.wait_said(lease, STARTED, driver)
        assert lines(run / STEPS_FILE) >= standing
    more_steps(run, driver, 15)
    end(driver, signal.SIGKILL)
    count = recount_run(run)
    assert (count.recomputed, count.missing, count.changed) == (0, 0, 0) and count.distinct > 15 * (2 * CYCLES + PAUSES)
    starts = [said for said in world.said(job) if said.what == STARTED]
    kept = [said.facts["kept"] for said in starts if said.facts["kept"]]
    print(f"{count.distinct} steps, {len(starts)} starts, {len(kept)} with kept processes")
    assert len(kept) == 2 * CYCLES
    ray.kill(stray)
    remove_placement_group(group)


def test_the_strays_would_start_on_a_gpu_that_nobody_holds(world: LeaseWorld) -> None:
    """The last one: it leaves the cluster with one slot less."""
    stray, group = stray_actor(), placement_group([{"GPU": 1}], name="stray-group")
    assert not has_started(stray) and not is_created(group)
    remove_placement_group(ray.util.get_placement_group(f"test-slot:{0}"))
    wait_until(lambda: has_started(stray) or is_created(group), "a stray on the GPU that was held", None)
    ray.kill(stray)
    remove_placement_group(group)


def stray_actor() -> Any:
    class Stray:
        def started(self) -> bool:
            return True

    return ray.remote(num_cpus=0, num_gpus=1)(Stray).remote()


def has_started(actor: Any) -> bool:
    ready, _ = ray.wait([actor.started.remote()], timeout=0.2)
    return bool(ready)


def is_created(group: Any) -> bool:
    return bool(placement_group_table()[group.id.hex()]["state"] == "CREATED")
