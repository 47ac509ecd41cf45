"""Leases that change under live programs, through the whole platform: demand found in fit(), a resize that the control plane's
death interrupts, a node that is drained. One installation, in order."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heliostat import local
from heliostat.local import UpOptions, records
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import load
from heliostat_jobs.spec import recount_run

from tests.e2e import test_control_plane as plane
from tests.e2e.ray_cluster import RayCluster, add_node, free_ports
from tests.e2e.test_control_plane import House, kill

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SCRIPTS = Path(__file__).parent / "scripts"
CHECKPOINT_EVERY = 50
EPOCHS = 25
HOLD = ["bash", "-c", "test $HELIOSTAT_ATTEMPT != 1 || sleep 600"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    patch = pytest.MonkeyPatch()
    patch.setattr(plane, "OPTIONS", UpOptions(gpus=2, object_store_bytes=200_000_000, port=free_ports(1)[0]))
    made = House(load(home=tmp_path_factory.mktemp("home") / "h", environ={}))
    try:
        made.up()
        yield made
    finally:
        local.down(made.settings)
        patch.undo()
        assert local.leftovers(made.settings) == []


def states(house: House, job: str) -> list[str]:
    events = house.call("GET", f"/jobs/{job}/events")["items"]
    return [event["to"] for event in events if event["kind"] == "job_moved"]


@pytest.mark.slow
def test_a_plain_script_says_in_fit_what_it_needs_and_its_driver_waits_for_it(house: House, tmp_path: Path) -> None:
    holder = house.submit(kind="command", command=["sleep", "600"], gpus=1)
    house.wait(lambda: house.job(holder)["state"] == "running", "one GPU to be held")
    log = tmp_path / "epochs.jsonl"
    plain = house.submit(kind="ray", entrypoint=f"{sys.executable} {SCRIPTS / 'plain_torch.py'} {log}")
    house.wait(lambda: house.job(plain)["gpus"]["min"] == 2, "its fit() to ask for two GPUs")
    waiting = house.job(plain)
    assert (waiting["state"], waiting["position"], waiting["gpus"]) == ("queued", 1, {"min": 2, "max": 2, "held": 0})
    assert not log.exists()
    house.call("POST", f"/jobs/{holder}/cancel")
    ended = house.ended(plain)
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1), house.log(plain)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(60)) and {row["world_size"] for row in rows} == {2}


@pytest.mark.slow
def test_a_script_of_one_worker_runs_on_one_of_two_gpus_and_the_other_goes_back(house: House, tmp_path: Path) -> None:
    log = tmp_path / "epochs.jsonl"
    script = f"{sys.executable} {SCRIPTS / 'plain_torch.py'} {log} one"
    wide = house.submit(kind="ray", entrypoint=script, min_gpus=1, max_gpus=2)
    house.wait(lambda: house.job(wide)["gpus"] == {"min": 1, "max": 1, "held": 1}, "the second GPU to go back")
    other = house.submit(kind="command", command=["true"], gpus=1)
    assert house.ended(other)["state"] == "succeeded"
    assert house.job(wide)["state"] == "running", "beside it"
    ended = house.ended(wide)
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1), house.log(wide)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(60)) and {row["world_size"] for row in rows} == {1}


def test_the_control_plane_dies_in_the_middle_of_a_resize_and_no_step_is_lost(house: House) -> None:
    recipe = f"{sys.executable} -m heliostat_jobs.recipes.digits_cnn --workers 1-2 --epochs {EPOCHS}"
    options = f"--checkpoint-every {CHECKPOINT_EVERY} --step-ms 20"
    plain = {"warm_handover": "false"}  # so that the middle lasts for seconds
    job = house.submit(kind="ray", entrypoint=f"{recipe} {options}", min_gpus=1, max_gpus=2, metadata=plain)
    run = house.settings.runs_dir / job
    house.wait(lambda: recount_run(run).distinct > 2 * CHECKPOINT_EVERY, "a hundred steps on two GPUs")
    urgent = house.submit(kind="command", command=["sleep", "3"], gpus=1, priority="high")
    house.wait(lambda: house.job(job)["state"] == "resizing", "the order", 20)
    kill(records.read(house.settings.control_state_path, ControlRecord))
    assert house.up().started == ("control",)
    assert house.ended(urgent)["state"] == "succeeded"
    ended = house.ended(job)
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1), house.log(job)
    count = recount_run(run)
    assert (count.distinct, count.missing, count.changed) == (EPOCHS * 29, 0, 0)
    assert count.recomputed == 0, "the runner saved its checkpoint without a control plane"
    sizes = [json.loads(line)["world_size"] for line in (run / "steps.jsonl").read_text().splitlines()]
    assert [size for n, size in enumerate(sizes) if n == 0 or sizes[n - 1] != size][:2] == [2, 1]
    assert "resizing" in states(house, job)


def test_a_drained_node_is_left_and_its_gpus_are_given_back(house: House, tmp_path: Path) -> None:
    record = records.read(house.settings.ray_state_path, RayRecord)
    assert record is not None
    env = {"RAY_ADDRESS": record.gcs_address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": record.token_path}
    holder = house.submit(kind="command", command=["sleep", "600"], gpus=2)
    house.wait(lambda: house.job(holder)["state"] == "running", "the head's GPUs to be held")
    with add_node(RayCluster(record.gcs_address, "", tmp_path, 0, tmp_path / "log", env=env)):
        house.wait(lambda: len(nodes(house)) == 2, "the second node")
        other = next(node["id"] for node in nodes(house).values() if not node["is_head"])
        job = house.submit(kind="command", command=HOLD, gpus=1)
        house.wait(lambda: house.job(job)["state"] == "running", "a job on the second node")
        assert nodes(house)[other]["slots"][0]["job"] == job
        told = house.call("POST", f"/nodes/{other[:12]}/drain")
        assert (told["id"], told["state"]) == (other, "draining")
        house.wait(lambda: nodes(house)[other]["state"] == "drained", "the node to be drained", 60)
        assert nodes(house)[other]["slots"] == [] and house.job(job)["state"] == "queued"
        house.call("POST", f"/jobs/{holder}/cancel")
        assert house.ended(job)["state"] == "succeeded", "it went on elsewhere"
        house.call("POST", f"/nodes/{other}/uncordon")
        house.wait(lambda: len(nodes(house)[other]["slots"]) == 1, "its slot to be back", 60)
        gang = house.submit(kind="ray", entrypoint="sleep 3", gpus=3)
        house.wait(lambda: house.job(gang)["gpus"]["held"] == 3, "a gang over both nodes")
        assert [slot["job"] for node in nodes(house).values() for slot in node["slots"]] == [gang] * 3
        assert house.ended(gang)["state"] == "succeeded"
    deadline = time.monotonic() + 60
    while len(nodes(house)) == 2:
        assert time.monotonic() < deadline, "the dead node is still there"
        time.sleep(0.5)


def nodes(house: House) -> dict[str, Any]:  # Any: JSON
    live = [node for node in house.call("GET", "/cluster")["nodes"] if node["state"] != "lost"]
    return {node["id"]: node for node in live}
