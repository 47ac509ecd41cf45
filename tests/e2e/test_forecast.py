"""Estimates, what-if, timeline, replay and records on a live cluster: one `up`, a few short jobs, `down`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from heliostat import local
from heliostat.local import UpOptions
from heliostat.settings import Settings, load

from tests.e2e.ray_cluster import free_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
OPTIONS = UpOptions(gpus=2, object_store_bytes=200_000_000, port=free_ports(1)[0])


class House:
    """The installation and a client of its API."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def call(self, method: str, path: str, body: Any = None) -> Any:  # Any: JSON
        token = self.settings.admin_token_path.read_text().strip()
        reply = httpx.request(
            method, f"http://127.0.0.1:{OPTIONS.port}/api/v1{path}", json=body, timeout=60, trust_env=False,
            headers={"Authorization": f"Bearer {token}"},
        )  # fmt: skip
        assert reply.is_success, reply.text
        return reply.json()

    def submit(self, seconds: int, gpus: int, **more: Any) -> str:  # Any: JSON
        return str(self.call("POST", "/jobs", {"command": ["sleep", str(seconds)], "gpus": gpus, **more})["id"])

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = 120) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit_s} s for {what}\n{self.told()}"
            time.sleep(0.2)

    def state(self, job: str) -> str:
        return str(self.call("GET", f"/jobs/{job}")["state"])

    def told(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.settings.logs_dir.glob("*.log")))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home: Path = tmp_path_factory.mktemp("f") / "h"
    settings = load(environ={"HELIOSTAT_HOME": str(home)})
    running = local.up(settings, OPTIONS)
    try:
        assert running.connected
        yield House(settings)
    finally:
        local.down(settings)


def test_what_will_happen_and_what_happened(house: House) -> None:
    holder = house.submit(600, 2, max_runtime_s=900)
    house.wait(lambda: house.state(holder) == "running", "the holder to run")
    waiting = house.submit(1, 1, name="next", max_runtime_s=60)
    house.wait(lambda: house.call("GET", f"/jobs/{waiting}").get("estimate_made") is not None, "an estimate")
    job = house.call("GET", f"/jobs/{waiting}")
    assert job["estimated_start"] <= job["estimated_start_p90"]

    why = house.call("GET", f"/jobs/{waiting}/explanation?wait_s=20")
    assert why["remedies_complete"] and why["estimated_start_p90"] and why["code"]
    assert {check["name"] for check in house.call("GET", f"/jobs/{holder}/explanation")["checks"]} >= {
        "protected for now"
    }
    assert "1 wait; the next" in house.call("GET", "/queues/default/explanation")["sentence"]

    plan = house.call("POST", "/jobs?plan=true", {"command": ["true"], "gpus": 1, "max_runtime_s": 60})
    assert plan["eta"]["p90"] and plan["cost"]["gpu_hours_limit"] > 0

    changed = house.call("POST", "/whatif", {"cancel": [holder]})
    assert [(row["job"], row["change"]) for row in changed["rows"]] == [(waiting, "earlier")]
    assert house.state(holder) == "running", "nothing live is touched"

    house.call("POST", f"/jobs/{holder}/cancel")
    house.wait(lambda: house.state(waiting) == "succeeded", "the waiting job to end")
    house.wait(lambda: house.call("GET", "/forecast/report")["all"]["jobs"] >= 1, "the estimate to be scored", 90)

    spans = house.call("GET", "/timeline")["spans"]
    assert {span["job"] for span in spans} == {holder, waiting}
    assert {span["closed"]["code"] for span in spans if span["job"] == holder} == {"CancelRequested"}

    replayed = house.call("POST", "/replay")
    assert replayed["differs"] is None and replayed["cycles"] >= 4
    records = house.call("GET", "/records")
    assert [chain["first_broken"] for chain in records["chains"]] == [None, None]
    assert all(chain["rows"] > 0 for chain in records["chains"])
