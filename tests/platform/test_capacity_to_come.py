"""What the cluster could give, with nodes that can be had."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from heliostat.queuefile import parse
from heliostat.submission import capacity_of

from tests.platform.conftest import House
from tests.platform.fake_control import node

POOLS = parse("queues: {default: {quota: unlimited}}\nnodes: {big: {gpus: 4, cpus: 16, memory: 64GiB, max: 3}}").pools

CASES = [
    pytest.param([], 12, id="none is there yet"),
    pytest.param([node("n1", 4, flavor="big")], 12, id="one is there"),
    pytest.param([node("n1", 8, flavor="big")] * 4, 32, id="more are there than may be had"),
    pytest.param([{**node("n1", 4, flavor="big"), "state": "lost"}], 12, id="one is gone: another takes its place"),
    pytest.param([{**node("n1", 0, flavor="big"), "state": "let_go"}], 12, id="one is leaving"),
]


@pytest.mark.parametrize(("nodes", "gpus"), CASES)
def test_room(nodes: list[dict[str, Any]], gpus: int) -> None:
    capacity = capacity_of({"nodes": nodes}, POOLS)
    assert (capacity.gpus("big"), capacity.flavors) == (gpus, ("big",))


def test_a_flavor_without_a_pool_is_as_it_was() -> None:
    lost = {**node("n1", 2, flavor="old"), "state": "lost"}
    assert capacity_of({"nodes": [lost]}, POOLS).gpus("old") == 2


async def test_a_job_for_nodes_to_come_is_taken_as_soon_as_the_file_is_in_force(house: House) -> None:
    job = {"kind": "command", "command": ["true"], "flavor": "big", "gpus": 4}
    async with house.client("*/admin") as admin:
        refused = await admin.post("/api/v1/jobs", json=job)
        assert (refused.status_code, refused.json()["code"]) == (400, "unknown_flavor"), refused.text
        current = (await admin.get("/api/v1/queues/file")).text
        text = current + "\nnodes: {big: {gpus: 4, cpus: 16, memory: 64GiB, max: 3}}\n"
        told: httpx.Response = await admin.put("/api/v1/queues/file", content=text, headers={"If-Match": "*"})
        assert told.status_code == 200, told.text
        taken = await admin.post("/api/v1/jobs", json=job)
        assert taken.status_code in (200, 201, 202), taken.text
        never = await admin.post("/api/v1/jobs", json={**job, "gpus": 13})
        assert (never.status_code, never.json()["code"]) == (422, "never_fits")
