"""The doors to nodes and to the metrics' stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from heliostat.store.tables import Audit, Metric
from heliostat_scheduler.core.lifecycle import JobState
from sqlalchemy import select

from tests.platform.conftest import House
from tests.platform.test_streams import parsed

Body = Callable[..., dict[str, Any]]


async def test_an_admin_takes_a_node_out_of_use_and_back_by_the_beginning_of_its_id(house: House) -> None:
    async with house.client("*/admin") as admin:
        for what, state in (("cordon", "cordoned"), ("drain", "draining"), ("uncordon", "up")):
            told = await admin.post(f"/api/v1/nodes/n2/{what}")
            assert (told.status_code, told.json()["id"], told.json()["state"]) == (200, "n2", state)
    assert next(call for call in house.control.calls if call[0] == "node") == ("node", "cordon", "n2", "u-*/admin")
    with house.store.read() as session:
        actions = [row.action for row in session.execute(select(Audit).order_by(Audit.seq)).scalars()]
    assert actions[-3:] == ["node_cordon", "node_drain", "node_uncordon"]


REFUSED = [
    pytest.param("vision/admin", "n2/drain", 403, "forbidden", id="the admin of a project is none of the platform"),
    pytest.param("*/admin", "n7/drain", 404, "unknown_node", id="no such node"),
    pytest.param("*/admin", "n/drain", 409, "ambiguous_node", id="two nodes begin so"),
    pytest.param("*/admin", "n2/explode", 400, "invalid_request", id="no such order"),
]


@pytest.mark.parametrize(("who", "path", "status", "code"), REFUSED)
async def test_an_order_about_a_node_is_refused(house: House, who: str, path: str, status: int, code: str) -> None:
    async with house.client(who) as client:
        told = await client.post(f"/api/v1/nodes/{path}")
    assert (told.status_code, told.json()["code"]) == (status, code), told.text
    assert told.json()["remedy"] and not [call for call in house.control.calls if call[0] == "node"]


def report(house: House, job: str, *values: float, name: str = "loss") -> None:
    def write(session: Any) -> None:
        for step, value in enumerate(values):
            session.add(Metric(job=job, attempt=1, at_ms=1_000 + step, name=name, value=value, step=step))

    house.store.write(write)


async def test_metrics_come_in_order_then_the_end_and_go_on_behind_a_point(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    await client.post("/api/v1/jobs", json=body(id="a"))
    report(house, "a", 3.0, 2.0, 1.0)
    report(house, "a", 90.0, name="samples_per_s")
    house.control.move("a", JobState.CANCELLED)
    frames = parsed((await client.get("/api/v1/jobs/a/metrics/stream?name=loss")).text)
    assert [frame["event"] for frame in frames] == ["metric"] * 3 + ["end"]
    assert [frame["data"]["value"] for frame in frames[:3]] == [3.0, 2.0, 1.0]
    again = await client.get("/api/v1/jobs/a/metrics/stream?name=loss", headers={"Last-Event-ID": frames[1]["id"]})
    assert parsed(again.text) == frames[2:]
    assert len(parsed((await client.get("/api/v1/jobs/a/metrics/stream")).text)) == 5
    wrong = await client.get("/api/v1/jobs/a/metrics/stream", headers={"Last-Event-ID": "x"})
    assert wrong.status_code == 400
    async with house.client("ocr/member") as stranger:
        assert (await stranger.get("/api/v1/jobs/a/metrics/stream")).status_code == 404


async def test_numbers_of_single_slots_are_history_only(house: House, client: httpx.AsyncClient, body: Body) -> None:
    await client.post("/api/v1/jobs", json=body(id="a"))
    report(house, "a", 0.5, name="gpu_utilization")
    report(house, "a", 0.4, name="gpu_utilization/n1/0")
    assert (await client.get("/api/v1/jobs/a")).json()["metrics"] == {"gpu_utilization": 0.5}
    assert len((await client.get("/api/v1/jobs/a/metrics")).json()["items"]) == 2
