"""From a registered model to predictions over HTTP, and what happens when parts die. One installation, one story, in order."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from heliostat import local
from heliostat.artifacts import ArtifactFolders
from heliostat.client.client import Client
from heliostat.client.endpoints import Endpoint
from heliostat.client.prediction import Predictor
from heliostat.control.head import RecordedHead
from heliostat.endpoints.serve_rest import DashboardServe, ServeRest
from heliostat.local import UpOptions, ports, records
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import load
from heliostat.wire.errors import HeliostatError, ServiceError, Unauthenticated
from heliostat_jobs.recipes import wine_forest
from heliostat_serving.spec import GatewayConfig, GatewaySpec, gateway_application

from tests.e2e.ray_cluster import free_ports
from tests.platform.endpoints.serve_suite import Entry, ServeSuite

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
OPTIONS = UpOptions(gpus=2, object_store_bytes=200_000_000, port=free_ports(1)[0], i_have_a_firewall=True)
ROW = [[13.2, 1.78, 2.14, 11.2, 100.0, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.4, 1050.0]]
SERVE_PORT = ports.choose(("serve",), {})["serve"]


class House:
    def __init__(self, home: Path) -> None:
        self.settings = load(home=home, environ={})
        home.joinpath("serving").mkdir(parents=True)
        home.joinpath("serving", "port").write_text(str(SERVE_PORT))

    def up(self) -> None:
        assert local.up(self.settings, OPTIONS).connected, self.tell()

    @property
    def client(self) -> Client:
        return Client(load(home=self.settings.home, environ={}))

    @property
    def wine(self) -> Endpoint:
        return self.client.endpoint("wine")

    def kill(self, kind: type[ControlRecord] | type[RayRecord]) -> None:
        record: ControlRecord | RayRecord | None
        if kind is ControlRecord:
            record = records.read(self.settings.control_state_path, ControlRecord)
        else:
            record = records.read(self.settings.ray_state_path, RayRecord)
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)

    def wait(self, reached: Callable[[], bool], what: str, limit_s: float) -> float:
        """Seconds until it was reached."""
        began = time.monotonic()
        while not reached():
            assert time.monotonic() - began < limit_s, f"waited {limit_s} s for {what}\n{self.tell()}"
            time.sleep(0.05)
        return time.monotonic() - began

    def tell(self) -> str:
        return (self.settings.logs_dir / "control.log").read_text()[-3000:]


class Load:
    """Calls without any retry, one after the other, as long as it is entered. failed: every answer but 200."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[tuple[float, str]] = []
        self.failed: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def last(self, seconds: float) -> set[str]:
        """The versions that answered within the last seconds."""
        return {version for at, version in self.answers if at > time.monotonic() - seconds}

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        with httpx.Client(timeout=30, trust_env=False, headers=headers) as client:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    reply = client.post(f"{self._url}/predict", json={"inputs": {"features": ROW}})
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if reply.status_code == 200:
                    self.answers.append((began, reply.json()["deployment"]))
                else:
                    self.failed.append(f"{reply.status_code} {reply.text[:200]}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("home") / "h")
    try:
        made.up()
        for seed in (1, 2, 3):
            folder = tmp_path_factory.mktemp("model") / "wine"
            wine_forest.write(folder, seed=seed, trees=5)
            made.client.push("wine", folder)
        yield made
    finally:
        local.down(made.settings)
        assert local.leftovers(made.settings) == []


@pytest.fixture(scope="module")
def key(house: House) -> str:
    """A key of the endpoint that the tests below use; the endpoint is there from the first of them on."""
    return house.wine.create_key("tests")["key"]


class TestServeRest(ServeSuite):
    """The real REST passes the suite of the fake; nothing of ours is deployed yet."""

    http: ClassVar[dict[str, Any]] = {"host": "127.0.0.1", "port": SERVE_PORT}

    @pytest.fixture
    def rest(self, house: House) -> ServeRest:
        return DashboardServe(RecordedHead(house.settings.ray_state_path).record)

    @pytest.fixture
    def pause(self) -> Callable[[], None]:
        return lambda: time.sleep(0.2)

    @pytest.fixture
    def application(self) -> Entry:
        def entry(name: str) -> dict[str, Any]:
            endpoint = name.removeprefix("gw-")
            config = GatewayConfig(endpoint, keys=(), targets=())
            return gateway_application(GatewaySpec(endpoint, num_cpus=0.01), config)

        return entry


def test_a_registered_model_answers_with_a_key(house: House) -> None:
    endpoint = house.client.deploy("wine:1", "wine").wait_ready(180)
    with pytest.raises(HeliostatError) as missing:
        endpoint.predict(ROW)
    assert missing.value.code == "key_missing"
    endpoint.create_key("first")
    outputs = endpoint.predict(ROW, fresh_key=True)
    assert outputs["label"] == [0] and len(outputs["probabilities"][0]) == 3
    assert [row["state"] for row in house.wine.deployments] == ["ready"]


def test_a_revoked_key_is_refused_within_five_seconds(house: House) -> None:
    made = house.wine.create_key("short-lived")
    predictor = Predictor(house.wine.url, made["key"])
    predictor.predict({"features": ROW}, fresh_key=True)
    house.client.endpoint_calls.revoke_key(made["id"])

    def refused() -> bool:
        try:
            predictor.predict({"features": ROW})
        except Unauthenticated:
            return True
        return False

    took = house.wait(refused, "the key to be refused", 5)
    print(f"revoked key refused after {took:.2f} s")


def test_traffic_splits_and_rolls_back_under_load_without_a_failure(house: House, key: str) -> None:
    Predictor(house.wine.url, key).predict({"features": ROW}, fresh_key=True)
    with Load(house.wine.url, key) as load:
        house.client.deploy("wine:2", "wine").wait_ready(180, version="v2")
        house.wait(lambda: load.last(0.3) == {"v2"}, "the new version to take over", 5)
        house.wine.traffic({"v1": 50, "v2": 50})
        house.wait(lambda: load.last(2) == {"v1", "v2"}, "both to answer", 5)
        house.wine.traffic({"v2": 100})
        house.wait(lambda: load.last(0.5) == {"v2"}, "v2 alone", 5)
        house.wine.traffic({"v1": 100})
        house.wait(lambda: load.last(0.5) == {"v1"}, "v1 alone", 5)
        began = time.monotonic()
        house.wine.rollback()
        took = house.wait(lambda: any(v == "v2" and at > began for at, v in load.answers), "the rollback to show", 5)
    print(f"rollback seen after {took:.2f} s; {len(load.answers)} answers under load")
    assert load.failed == []


def test_a_damaged_artifact_never_gets_traffic_and_tells_why(house: House) -> None:
    version = house.client.model("wine:3")
    folder = Path(ArtifactFolders(str(house.settings.artifacts_dir)).uri(version.sha256).removeprefix("file://"))
    (folder / "model.skops").chmod(0o600)
    with (folder / "model.skops").open("ab") as damaged:
        damaged.write(b"more")
    house.client.deploy("wine:3", "wine")
    with pytest.raises(ServiceError) as failed:
        house.wine.wait_ready(180, version="v3")
    assert failed.value.code == "deployment_failed"
    row = house.wine.deployments[-1]
    assert row["share"] == 0 and "model.skops" in str(row["traceback"])
    assert house.wine.state == "ready"


def test_calls_are_counted_and_logged(house: House) -> None:
    house.wait(lambda: any(line["version"] == "v2" for line in house.wine.logs()), "the access log", 15)
    rows = house.wine.usage()
    assert sum(row["requests"] for row in rows if row["status"] == 2) > 10
    assert any(row["status"] == 4 for row in rows), "refused calls are counted too"
    assert any(found["last_used_at"] for found in house.client.endpoint_calls.keys("wine"))


def test_the_endpoint_answers_while_the_control_plane_is_dead(house: House, key: str) -> None:
    url = house.wine.url
    with Load(url, key) as load:
        house.kill(ControlRecord)
        time.sleep(1)
        house.up()
        house.wait(lambda: bool(load.last(0.5)), "answers", 5)
    assert load.failed == []
    assert house.wine.state == "ready" and len(house.client.job(house.wine.deployments[0]["job"]).data) > 0


def test_after_the_head_was_killed_it_answers_again_with_helio_up_alone(house: House, key: str) -> None:
    before = {row["version"]: row["share"] for row in house.wine.deployments if row["share"]}
    url = house.wine.url
    house.kill(RayRecord)
    house.wait(lambda: house.wine.state != "ready", "the endpoint to be seen as waiting", 60)
    began = time.monotonic()
    house.up()
    predictor = Predictor(url, key)

    def answers() -> bool:
        try:
            predictor.predict({"features": ROW})
        except HeliostatError:
            return False
        return True

    house.wait(answers, "an answer", 150)
    print(f"answers again {time.monotonic() - began:.1f} s after helio up")
    house.wait(
        lambda: {r["version"]: r["share"] for r in house.wine.deployments if r["share"]} == before, "traffic", 60
    )


def test_a_removed_endpoint_leaves_nothing(house: House) -> None:
    house.wine.remove()
    house.wait(lambda: not house.client.endpoints(), "the endpoint to be gone", 60)
    rest = DashboardServe(RecordedHead(house.settings.ray_state_path).record)
    assert rest.state().applications == {}
