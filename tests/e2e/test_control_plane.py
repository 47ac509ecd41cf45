"""The whole of it on one machine: `up`, jobs through HTTP, kill -9 of the parts, `up` again, `down`. One cluster, in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from heliostat import local
from heliostat.local import UpOptions, records
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import Settings, load

from tests.e2e.ray_cluster import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

OPTIONS = UpOptions(gpus=2, object_store_bytes=200_000_000, port=free_ports(1)[0])
ENDED = ("succeeded", "failed", "cancelled", "timed_out")


class House:
    """The installation under test and a client of its API."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def up(self) -> local.Running:
        running = local.up(self.settings, OPTIONS)
        assert running.connected, (self.settings.logs_dir / "bridge.log").read_text()[-3000:]
        return running

    def call(self, method: str, path: str, **options: Any) -> Any:  # Any: JSON
        token = self.settings.admin_token_path.read_text().strip()
        url = f"http://127.0.0.1:{OPTIONS.port}/api/v1{path}"
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        reply = httpx.request(method, url, headers=headers, timeout=30, trust_env=False, **options)
        assert reply.is_success, reply.text
        return reply.json() if "json" in reply.headers["content-type"] else reply.text

    def submit(self, **body: Any) -> str:  # Any: JSON
        return str(self.call("POST", "/jobs", json=body)["id"])

    def job(self, job_id: str) -> dict[str, Any]:  # Any: JSON
        found: dict[str, Any] = self.call("GET", f"/jobs/{job_id}")
        return found

    def log(self, job_id: str) -> str:
        return str(self.call("GET", f"/jobs/{job_id}/logs"))

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = 180) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit_s} s for {what}\n{self.tell()}"
            time.sleep(0.2)

    def ended(self, job_id: str) -> dict[str, Any]:  # Any: JSON
        self.wait(lambda: self.job(job_id)["state"] in ENDED, f"{job_id} to end")
        return self.job(job_id)

    def tell(self) -> str:
        return "\n".join(
            f"== {name}\n{(self.settings.logs_dir / name).read_text()[-1500:]}"
            for name in ("control.log", "bridge.log")
        )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(load(home=tmp_path_factory.mktemp("home") / "h", environ={}))
    try:
        made.up()
        yield made
    finally:
        local.down(made.settings)
        assert local.leftovers(made.settings) == []


def test_up_again_starts_nothing(house: House) -> None:
    before = (house.settings.control_state_path.read_text(), house.settings.ray_state_path.read_text())
    assert house.up().started == ()
    assert (house.settings.control_state_path.read_text(), house.settings.ray_state_path.read_text()) == before


def test_a_command_runs_in_its_slot(house: House) -> None:
    job = house.submit(kind="command", command=["bash", "-c", "echo gpu=$CUDA_VISIBLE_DEVICES"], gpus=1)
    assert house.ended(job)["state"] == "succeeded"
    assert house.log(job) == "gpu=0\n"


def test_a_failing_command_tells_its_exit_code(house: House) -> None:
    job = house.submit(kind="command", command=["bash", "-c", "exit 7"])
    ended = house.ended(job)
    assert (ended["state"], ended["exit_code"]) == ("failed", 7)


def test_a_ray_job_runs_with_its_log(house: House) -> None:
    job = house.submit(kind="ray", entrypoint="python -c \"print('from the driver')\"", gpus=1)
    assert house.ended(job)["state"] == "succeeded"
    assert "from the driver" in house.log(job)


def test_a_running_job_is_cancelled(house: House) -> None:
    job = house.submit(kind="command", command=["sleep", "600"], gpus=2)
    house.wait(lambda: house.job(job)["state"] == "running", "the job to run")
    house.call("POST", f"/jobs/{job}/cancel")
    assert house.ended(job)["state"] == "cancelled"
    free = [slot["state"] for node in house.call("GET", "/cluster")["nodes"] for slot in node["slots"]]
    assert free == ["free", "free"]


def test_jobs_go_on_while_the_control_plane_is_dead(house: House) -> None:
    command = house.submit(kind="command", command=["bash", "-c", "sleep 4; echo slept"], gpus=1)
    driver = house.submit(kind="ray", entrypoint="python -c \"import time; time.sleep(6); print('drove')\"", gpus=1)
    house.wait(lambda: all(house.job(j)["state"] == "running" for j in (command, driver)), "both to run")
    kill(records.read(house.settings.control_state_path, ControlRecord))
    assert house.up().started == ("control",)
    for job, word in ((command, "slept"), (driver, "drove")):
        assert house.ended(job)["state"] == "succeeded"
        assert (house.job(job)["attempts"], word in house.log(job)) == (1, True)


def test_the_bridge_comes_back_by_itself(house: House) -> None:
    job = house.submit(kind="command", command=["bash", "-c", "sleep 5; echo done"], gpus=1)
    house.wait(lambda: house.job(job)["state"] == "running", "the job to run")
    os.kill(house.call("GET", "/cluster")["bridge"]["pid"], signal.SIGKILL)
    ended = house.ended(job)
    assert (ended["state"], ended["attempts"], house.log(job)) == ("succeeded", 1, "done\n")


def test_a_killed_driver_is_tried_again(house: House) -> None:
    script = "import os, time; n = os.environ['HELIOSTAT_ATTEMPT']; print('attempt', n, flush=True); time.sleep(600 * (n == '1'))"
    job = house.submit(kind="ray", entrypoint=f'python -c "{script}"', gpus=1)
    house.wait(lambda: "attempt 1" in house.log(job), "its first attempt")
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0].endswith("python") and script in process.info["cmdline"]:
            process.kill()
    ended = house.ended(job)
    assert (ended["state"], ended["attempts"]) == ("succeeded", 2)
    assert f"[heliostat] attempt 2 of {job} started" in house.log(job)


def test_the_death_of_the_ray_head_loses_no_job(house: House) -> None:
    script = "echo attempt $HELIOSTAT_ATTEMPT; test $HELIOSTAT_ATTEMPT != 1 || sleep 600"
    command = house.submit(kind="command", command=["bash", "-c", script], gpus=1)
    driver = house.submit(kind="ray", entrypoint=f"bash -c '{script}'", gpus=1)
    house.wait(lambda: all(house.job(j)["state"] == "running" for j in (command, driver)), "both to run")
    kill(records.read(house.settings.ray_state_path, RayRecord))
    house.wait(lambda: all(house.job(j)["state"] == "queued" for j in (command, driver)), "both to be queued again", 60)
    waiting = house.submit(kind="command", command=["echo", "late"])
    assert house.job(waiting)["state"] == "queued"
    assert house.up().started == ("ray",)
    for job in (command, driver, waiting):
        assert house.ended(job)["state"] == "succeeded"
    assert "attempt 2" in house.log(command) and "attempt 2" in house.log(driver)


def test_down_leaves_no_process_and_up_finds_every_job(house: House) -> None:
    before = {job["id"]: job["state"] for job in house.call("GET", "/jobs?limit=200")["items"]}
    running = house.submit(kind="command", command=["bash", "-c", "test $HELIOSTAT_ATTEMPT != 1 || sleep 600"], gpus=1)
    house.wait(lambda: house.job(running)["state"] == "running", "the job to run")
    local.down(house.settings)
    assert local.leftovers(house.settings) == []
    assert house.up().started == ("ray", "control")
    after = {job["id"]: job["state"] for job in house.call("GET", "/jobs?limit=200")["items"]}
    assert before.items() <= after.items()
    assert house.ended(running)["state"] == "succeeded"


def kill(record: ControlRecord | RayRecord | None) -> None:
    assert record is not None and record.identity.alive()
    os.kill(record.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while record.identity.alive():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_home_is_private(house: House) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in (house.settings.home, house.settings.admin_token_path)}
    assert modes == {house.settings.home: 0o700, Path(house.settings.admin_token_path): 0o600}
