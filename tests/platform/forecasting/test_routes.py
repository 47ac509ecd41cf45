"""The doors of forecasts and records: shapes, who may ask, and that foreign jobs stay hidden."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from heliostat.forecasting.keeping import keep
from heliostat.forecasting.link import Eta

from tests.platform.conftest import House
from tests.platform.fake_control import node

ANSWER = {
    "rows": [{"job": "theirs", "queue": "research", "before": None, "after": None, "by_s": None, "change": "later"}],
    "evicted": [
        {"job": "theirs", "for": "mine", "queue": "research", "times": 1, "first": None, "code": "ReclaimedFor"}
    ],
    "spared": [],
}


async def submit(house: House, who: str, id: str) -> None:
    async with house.client(who) as client:
        answer = await client.post("/api/v1/jobs", json={"command": ["true"], "gpus": 1, "id": id})
        assert answer.status_code == 201, answer.text


async def test_a_question_reaches_the_forecaster_as_it_was_asked(house: House, client: httpx.AsyncClient) -> None:
    house.control.forecasts = {"rows": [], "evicted": [], "spared": []}
    asked = {"quota": ["research=6"], "nodes": ["+2xh200:8"], "policy": {"reclaim": False}, "horizon_s": 3600}
    answer = await client.post("/api/v1/whatif", json=asked)
    assert answer.status_code == 200
    (question,) = house.control.questions
    assert question["ask"] == "whatif" and question["horizon_ms"] == 3_600_000
    assert (question["quota"], question["nodes"], question["policy"]) == (
        ["research=6"],
        ["+2xh200:8"],
        {"reclaim": False},
    )


async def test_a_new_job_is_checked_like_a_submission(house: House, client: httpx.AsyncClient) -> None:
    house.control.forecasts = {"rows": [], "evicted": [], "spared": []}
    fine = await client.post("/api/v1/whatif", json={"job": {"command": ["true"], "gpus": 2, "queue": "research"}})
    assert fine.status_code == 200 and house.control.questions[0]["job"]["min_tasks"] == 2
    refused = await client.post("/api/v1/whatif", json={"job": {"command": ["true"], "gpus": 2, "queue": "nowhere"}})
    assert refused.status_code >= 400 and refused.json()["code"] == "unknown_queue"


TREE = """\
default: research
queues:
  company: {quota: {gpu: 4}}
  research: {parent: company, quota: {gpu: 3}}
  ops: {parent: company, quota: {gpu: 1}}
"""


@pytest.mark.parametrize(
    ("quota", "says"),
    [
        pytest.param(
            ["research=99"],
            "company: sum of its children's quotas of gpu (100) is above its own quota (4)",
            id="a child",
        ),
        pytest.param(
            ["company=1"], "company: sum of its children's quotas of gpu (4) is above its own quota (1)", id="a parent"
        ),
    ],
)
async def test_quotas_that_could_never_be_applied_are_refused_as_by_apply(
    house: House, quota: list[str], says: str
) -> None:
    house.control.forecasts = {"rows": [], "evicted": [], "spared": []}
    name, gpus = quota[0].split("=")
    changed = "\n".join(
        re.sub(r"gpu: \d+", f"gpu: {gpus}", line) if line.startswith(f"  {name}:") else line
        for line in TREE.splitlines()
    )
    async with house.client("*/admin") as root:
        assert (await root.put("/api/v1/queues/file", content=TREE, headers={"If-Match": "*"})).status_code == 200
        applied = (await root.post("/api/v1/queues/file/diff", content=changed)).json()
        asked = await root.post("/api/v1/whatif", json={"quota": quota})
        both = await root.post("/api/v1/whatif", json={"quota": ["company=9", "research=8"]})
    assert [error["detail"] for error in applied["errors"]] == [says]
    assert (asked.status_code, asked.json()["code"]) == (400, "bad_question") and says in asked.json()["detail"]
    assert both.status_code == 200, "together they could be applied"
    assert house.control.questions[-1]["quota"] == ["company=9", "research=8"] and len(house.control.questions) == 1


async def test_quotas_above_the_cluster_are_warned_of_as_by_apply(house: House) -> None:
    house.control.forecasts = {"rows": [], "evicted": [], "spared": [], "warnings": ["from the engine"]}
    house.control.nodes = [node("n", 4, cpus=8)]
    async with house.client("*/admin") as root:
        fine = (await root.post("/api/v1/whatif", json={"quota": ["research=2"]})).json()["warnings"]
        more = (await root.post("/api/v1/whatif", json={"quota": ["research=99"]})).json()["warnings"]
        nodes = {"quota": ["research=99"], "nodes": ["+100xgpu:1"]}
        with_nodes = (await root.post("/api/v1/whatif", json=nodes)).json()["warnings"]
        text = (await root.get("/api/v1/queues/file")).text.replace("gpu: 4", "gpu: 99")
        applied = (await root.post("/api/v1/queues/file/diff", content=text)).json()["warnings"]
        queues = (await root.get("/api/v1/queues")).json()["warnings"]
    assert fine == with_nodes == ["from the engine"]
    assert more == [*applied, "from the engine"] and "(research 99, production 2), the cluster has 4" in applied[0]
    assert "(research 4, production 2), the cluster has 4" in queues[0] and "in proportion" in queues[0]


async def test_jobs_of_other_projects_have_no_name(house: House, client: httpx.AsyncClient) -> None:
    await submit(house, "ocr/member", "theirs")
    await submit(house, "vision/member", "mine")
    house.control.forecasts = ANSWER
    told = (await client.post("/api/v1/whatif", json={"cancel": ["mine"]})).json()
    assert "theirs" not in str(told) and told["evicted"][0]["for"] == "mine"
    foreign = await client.post("/api/v1/whatif", json={"cancel": ["theirs"]})
    assert (foreign.status_code, foreign.json()["code"]) == (404, "unknown_job")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        pytest.param("POST", "/api/v1/whatif", {"cancel": []}, 503, "busy", id="no forecasting process yet"),
        pytest.param("POST", "/api/v1/whatif", {"horizon_s": 0}, 400, "invalid_request", id="no horizon"),
        pytest.param(
            "POST", "/api/v1/whatif", {"horizon_s": 0.0001}, 400, "invalid_request", id="a horizon of nothing"
        ),
        pytest.param("POST", "/api/v1/whatif", {"colour": 1}, 400, "invalid_request", id="an unknown edit"),
        pytest.param("GET", "/api/v1/queues/nowhere/explanation", None, 404, "unknown_queue", id="an unknown queue"),
        pytest.param("GET", "/api/v1/timeline?from_ms=5&to_ms=5", None, 400, "bad_request", id="an empty window"),
        pytest.param("POST", "/api/v1/replay", None, 403, "forbidden", id="replay is the administrator's"),
        pytest.param("GET", "/api/v1/records", None, 403, "forbidden", id="the records are the administrator's"),
    ],
)
async def test_refusals(client: httpx.AsyncClient, method: str, path: str, body: Any, status: int, code: str) -> None:
    answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_estimate_is_shown_wherever_the_job_is(house: House, client: httpx.AsyncClient) -> None:
    await submit(house, "vision/member", "mine")
    now = house.clock()
    house.control.eta_of["mine"] = Eta(now, now + 60_000, now + 120_000)
    job = (await client.get("/api/v1/jobs/mine")).json()
    assert job["estimated_start"] < job["estimated_start_p90"] and job["estimate_made"]
    told = (await client.get("/api/v1/jobs/mine/explanation")).json()
    assert told["estimated_start_p90"] == job["estimated_start_p90"]
    ray = (await client.get("/api/jobs/mine")).json()
    assert "; estimated start " in ray["message"] and "in 9 of 10 cases by" in ray["message"]


async def test_where_nothing_is_known_of_run_times_no_time_is_told(house: House, client: httpx.AsyncClient) -> None:
    await submit(house, "vision/member", "mine")
    now = house.clock()
    house.control.eta_of["mine"] = Eta(now, now + 60_000, now + 120_000, 2)
    job = (await client.get("/api/v1/jobs/mine")).json()
    assert job["unknown_runtimes"] == 2 and job["estimate_made"]
    assert job["estimated_start"] is None and job["estimated_start_p90"] is None
    told = (await client.get("/api/v1/jobs/mine/explanation")).json()
    assert told["unknown_runtimes"] == 2 and told["estimated_start"] is None and told["estimated_start_p90"] is None
    ray = (await client.get("/api/jobs/mine")).json()
    assert ray["message"].endswith(
        "it may start at any time: nothing is known yet about how long 2 running jobs will run"
    )


async def test_the_report_counts_what_came_true(house: House, client: httpx.AsyncClient) -> None:
    house.store.write(lambda session: keep(session, 1_000, [["a", "research", 60_000, 120_000, 1, 2, 5, 0]]))
    told = (await client.get("/api/v1/forecast/report")).json()
    assert told["all"] == told["guessed"] == {"jobs": 0} and sum(told["calibration"]["counts"]) == 0


async def test_the_report_of_a_queue_that_there_is_not_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/forecast/report?queue=research")).status_code == 200
    assert (await client.get("/api/v1/forecast/report?queue=nowhere")).json()["code"] == "unknown_queue"


async def test_the_administrator_sees_that_the_records_are_whole(house: House) -> None:
    async with house.client("*/admin") as client:
        told = (await client.get("/api/v1/records")).json()
    assert [chain["first_broken"] for chain in told["chains"]] == [None, None] and told["contradiction"] is None


async def test_a_replay_that_ends_before_it_begins_is_refused(house: House) -> None:
    async with house.client("*/admin") as client:
        answer = await client.post("/api/v1/replay?first=5&last=3")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_a_queue_is_explained(client: httpx.AsyncClient) -> None:
    told = (await client.get("/api/v1/queues/research/explanation")).json()
    assert told["sentence"] == "no job waits here"
