"""Lent GPUs: the scheduler's grant, the slot's group gone, the replica on the GPU, and everything back in the end. One installation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from heliostat import local
from heliostat.client.client import Client
from heliostat.local import UpOptions, environments, ports, records
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import Settings, load
from heliostat_jobs.recipes import wine_forest

from tests.e2e.ray_cluster import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.slow]
OPTIONS = UpOptions(gpus=2, object_store_bytes=200_000_000, port=free_ports(1)[0], i_have_a_firewall=True)
ROW = [[13.2, 1.78, 2.14, 11.2, 100.0, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.4, 1050.0]]
STRAY = Path(__file__).parent / "scripts" / "stray_gpu_actor.py"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("home") / "h"
    home.joinpath("serving").mkdir(parents=True)
    home.joinpath("serving", "port").write_text(str(ports.choose(("serve",), {})["serve"]))
    made = load(home=home, environ={})
    try:
        assert local.up(made, OPTIONS).connected
        folder = tmp_path_factory.mktemp("model") / "wine"
        wine_forest.write(folder, seed=1, trees=5)
        client_of(made).push("wine", folder)
        yield made
    finally:
        local.down(made)
        assert local.leftovers(made) == []


@pytest.fixture(scope="module")
def stray(settings: Settings) -> Iterator[Path]:
    """A plain Ray driver whose actor waits for a GPU all the time; its output."""
    ray = records.read(settings.ray_state_path, RayRecord)
    assert ray is not None
    output = settings.home / "stray.log"
    env = environments.of_bridge(settings, ray)
    del env[records.INSTANCE]  # nobody of ours: `up` must not sweep it away
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(STRAY)], env=env, stdout=out, stderr=out, start_new_session=True
        )
    yield output
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def client_of(settings: Settings) -> Client:
    return Client(load(home=settings.home, environ={}))


def wait(reached: Callable[[], bool], what: Callable[[], Any], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


def kinds(client: Client) -> list[str]:
    return [event["kind"] for event in client.events()]


def test_a_replica_gets_a_lent_gpu_and_nobody_else_does(settings: Settings, stray: Path) -> None:
    client = client_of(settings)
    endpoint = client.deploy("wine:1", "wine", gpus=1, cpus=0.5).wait_ready(240)
    endpoint.create_key("tests")
    assert endpoint.predict(ROW, fresh_key=True)["label"] == [0]
    (node,) = client.cluster()["nodes"]
    held = [slot for slot in node["slots"] if slot["job"] == endpoint.deployments[0]["job"]]
    assert len(held) == 1, "its serving job holds one slot"
    time.sleep(4)
    assert endpoint.predict(ROW)["label"] == [0], "the watchdog lets a replica with a grant be"
    print("stray:", stray.read_text().split("\n"))


def test_the_loan_outlives_the_control_plane(settings: Settings, stray: Path) -> None:
    record = records.read(settings.control_state_path, ControlRecord)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    assert local.up(settings, OPTIONS).connected
    client = client_of(settings)
    endpoint = client.endpoint("wine")
    endpoint.create_key("after")
    time.sleep(4)
    assert endpoint.predict(ROW, fresh_key=True)["label"] == [0]
    assert client.job(endpoint.deployments[0]["job"]).data["attempts"] == 1
    assert [len(found["slots"]) for found in client.cluster()["nodes"]] == [2], "a lent slot is a slot"


def test_returned_slots_run_jobs_again(settings: Settings, stray: Path) -> None:
    client = client_of(settings)
    client.endpoint("wine").remove()
    job = client.submit(["bash", "-c", "echo gpus=$CUDA_VISIBLE_DEVICES"], gpus=2)
    wait(lambda: client.read_job(job.id)["state"] == "succeeded", lambda: (client.read_job(job.id), kinds(client)), 120)
    assert client.job(job.id).logs().text().strip() == "gpus=0,1"

    def count(what: str) -> int:
        return stray.read_text().count(what)

    wait(lambda: count("stray was killed") >= count("stray runs"), stray.read_text, 10)
    killed = kinds(client).count("intruder_killed")
    print(f"a stray actor got a GPU {count('stray runs')} times and was refused {count('stray was refused')} times")
    assert count("stray was refused") > 0, "while a GPU is lent nobody without a grant may wait for one"
    assert killed >= count("stray was killed") + count("stray was refused"), "each is told as an event"
