"""What holds for the whole of /api/v1: problems, pages, idempotency, ETags, limits, health."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from heliostat.api import cursors
from heliostat.api.options import DoorOptions
from heliostat.api.problems import Problem
from heliostat.store import StoreUnavailable, jobs
from heliostat.store.tables import Idempotency
from sqlalchemy.orm import Session

from tests.platform.conftest import QUEUES, House

Body = Callable[..., dict[str, Any]]


class TestProblems:
    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/nowhere", 404, "not_found"),
            ("GET", "/api/v1/nowhere", 404, "not_found"),
            ("PUT", "/api/v1/jobs", 405, "method_not_allowed"),
            ("GET", "/api/v1/jobs/nope", 404, "unknown_job"),
            ("GET", "/api/v1/jobs?limit=0", 400, "invalid_request"),
            ("GET", "/api/v1/jobs?state=sleeping", 400, "invalid_request"),
            ("GET", "/api/v1/jobs?cursor=xyz", 400, "invalid_cursor"),
            ("DELETE", "/api/v1/tokens/nope", 404, "unknown_token"),
            ("GET", "/api/v1/packages/x.zip", 404, "unknown_package"),
        ],
    )
    async def test_every_error_is_a_problem_document(
        self, client: httpx.AsyncClient, method: str, path: str, status: int, code: str
    ) -> None:
        answer = await client.request(method, path)
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
        assert {"type", "title", "detail", "remedy", "request_id", "errors"} <= set(problem)

    async def test_405_names_what_is_allowed(self, client: httpx.AsyncClient) -> None:
        assert "POST" in (await client.put("/api/v1/jobs")).headers["allow"]

    async def test_a_body_that_is_no_json(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/api/v1/jobs", content=b"{", headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")

    async def test_a_fault_of_the_server_says_nothing_about_itself(
        self, house: House, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken() -> list[dict[str, Any]]:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(house.control, "queue_usage", broken)
        answer = await client.get("/api/v1/queues")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "secret" not in answer.text

    async def test_a_store_that_fails_is_503_and_nothing_is_half_made(
        self, house: House, client: httpx.AsyncClient, body: Body, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def full(_work: Any) -> None:
            raise StoreUnavailable("The store is not available: the disk is full.", "Free space.")

        monkeypatch.setattr(house.store, "awrite", full)
        answer = await client.post("/api/v1/jobs", json=body())
        assert (answer.status_code, answer.json()["code"], answer.json()["remedy"]) == (
            503,
            "store_unavailable",
            "Free space.",
        )
        assert answer.headers["retry-after"]
        assert house.control.calls == []


class TestGuard:
    async def test_other_names_of_this_address_are_refused(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/jobs", headers={"Host": "evil.example:8700"})
        assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9", "[::1]:8700", "LOCALHOST"])
    async def test_names_of_this_machine_are_fine(self, client: httpx.AsyncClient, host: str) -> None:
        assert (await client.get("/api/v1/version", headers={"Host": host})).status_code == 200

    async def test_pages_of_other_sites_change_nothing(self, client: httpx.AsyncClient, body: Body) -> None:
        answer = await client.post("/api/v1/jobs", json=body(), headers={"Origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
        own = await client.post("/api/v1/jobs", json=body(), headers={"Origin": "http://127.0.0.1:8700"})
        assert own.status_code == 201

    async def test_an_allowed_origin_may(self, make_house: Callable[..., House], body: Body) -> None:
        house = make_house(options=DoorOptions(origins=("https://console.example",)))
        async with house.client(Origin="https://console.example") as client:
            assert (await client.post("/api/v1/jobs", json=body())).status_code == 201

    async def test_a_body_over_the_limit_is_413_by_its_length_and_by_counting(
        self, make_house: Callable[..., House]
    ) -> None:
        house = make_house(options=DoorOptions(body_bytes=1_000))

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b" " * 400

        async with house.client() as client:
            declared = await client.post("/api/v1/jobs", content=b" " * 2_000)
            counted = await client.post("/api/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"})
            yaml = await client.post("/api/v1/queues/file/diff", content=chunks())
        for answer in (declared, counted, yaml):
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large"), answer.text

    async def test_the_request_id_comes_back_or_is_made(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz", headers={"X-Request-ID": "abc-1"})).headers["x-request-id"] == "abc-1"
        made = (await client.get("/healthz", headers={"X-Request-ID": "a b\tc"})).headers["x-request-id"]
        assert "a b" not in made
        assert len(made) == 15

    async def test_answers_name_the_api_version(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/nowhere")).headers["heliostat-api-version"] == "1"


class TestPages:
    async def test_cursors_walk_through_everything_once_while_jobs_are_added(
        self, client: httpx.AsyncClient, body: Body
    ) -> None:
        for i in range(7):
            await client.post("/api/v1/jobs", json=body(id=f"j{i}"))
        seen, cursor = [], ""
        while True:
            page = (await client.get("/api/v1/jobs", params={"limit": 3, "cursor": cursor})).json()
            seen += [job["id"] for job in page["items"]]
            await client.post("/api/v1/jobs", json=body())
            cursor = page["next_cursor"]
            if not cursor:
                break
        assert seen == [f"j{i}" for i in reversed(range(7))]

    async def test_a_cursor_belongs_to_its_filter(self, client: httpx.AsyncClient, body: Body) -> None:
        for _ in range(3):
            await client.post("/api/v1/jobs", json=body())
        cursor = (await client.get("/api/v1/jobs", params={"limit": 1})).json()["next_cursor"]
        answer = await client.get("/api/v1/jobs", params={"limit": 1, "cursor": cursor, "queue": "production"})
        assert answer.json()["code"] == "invalid_cursor"

    def test_a_cursor_beyond_every_database_is_none(self) -> None:
        with pytest.raises(Problem, match="not one of this list"):
            cursors.decode(cursors.encode(1 << 70, jobs.JobFilter()), jobs.JobFilter())

    async def test_filters(self, house: House, client: httpx.AsyncClient, body: Body) -> None:
        for i in range(4):
            await client.post("/api/v1/jobs", json=body(id=f"j{i}", queue=("research", "production")[i % 2]))
        house.control.run("j0")

        async def ids(query: str) -> list[str]:
            return [job["id"] for job in (await client.get(f"/api/v1/jobs?{query}")).json()["items"]]

        assert await ids("state=running") == ["j0"]
        assert await ids("state=queued&state=running&queue=research") == ["j2", "j0"]
        assert await ids("state=queued,running") == ["j3", "j2", "j1", "j0"]
        assert await ids("user=nobody") == []


class TestIdempotency:
    async def test_a_repetition_is_answered_from_memory(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        first = await client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        again = await client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json()["id"] == first.json()["id"]
        assert again.headers["idempotency-replayed"] == "true"
        assert len(house.control.calls) == 1

    async def test_the_same_key_with_another_body_is_422(self, client: httpx.AsyncClient, body: Body) -> None:
        await client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        answer = await client.post("/api/v1/jobs", json=body(gpus=2), headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")

    async def test_keys_of_two_callers_are_two_keys(self, house: House, client: httpx.AsyncClient, body: Body) -> None:
        first = await client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        async with house.client("ocr/member") as other:
            second = await other.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        assert first.json()["id"] != second.json()["id"]

    async def test_a_refused_request_may_be_corrected_under_the_same_key(
        self, client: httpx.AsyncClient, body: Body
    ) -> None:
        refused = await client.post("/api/v1/jobs", json=body(queue="nope"), headers={"Idempotency-Key": "k"})
        accepted = await client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        assert (refused.status_code, accepted.status_code) == (400, 201)

    async def test_a_key_on_its_way_is_409(self, house: House, client: httpx.AsyncClient, body: Body) -> None:
        gate = threading.Event()
        house.store._writer.submit(lambda session: gate.wait(5))
        first = asyncio.ensure_future(client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"}))
        while not house.app.state.in_flight.keys:  # noqa: ASYNC110  (the app has no event for it)
            await asyncio.sleep(0)
        second = await client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        gate.set()
        assert (await first).status_code == 201
        assert (second.status_code, second.json()["code"]) == (409, "idempotency_in_flight")

    async def test_memories_end_after_a_day(self, house: House, client: httpx.AsyncClient, body: Body) -> None:
        first = await client.post("/api/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
        house.clock.ms += 25 * 3_600_000
        second = await client.post("/api/v1/jobs", json=body(gpus=2), headers={"Idempotency-Key": "k"})
        assert second.status_code == 201
        assert first.json()["id"] != second.json()["id"]
        with house.store.read() as session:
            assert session.query(Idempotency).count() == 1


class TestQueueFile:
    async def test_it_is_replaced_only_by_who_read_the_present_one(self, house: House) -> None:
        async with house.client("*/admin") as root:
            present = await root.get("/api/v1/queues/file")
            assert present.text == QUEUES
            tag = present.headers["etag"]
            new = QUEUES + "  extra: {}\n"
            assert (await root.put("/api/v1/queues/file", content=new)).status_code == 428
            assert (
                await root.put("/api/v1/queues/file", content=new, headers={"If-Match": '"old"'})
            ).status_code == 412
            told = await root.put("/api/v1/queues/file", content=new, headers={"If-Match": tag})
            assert [change["queue"] for change in told.json()["changes"]] == ["extra"]
            assert house.control.calls == [("queues_changed",)]
            assert (await root.get("/api/v1/queues/file")).headers["etag"] == told.headers["etag"] != tag
            assert (await root.put("/api/v1/queues/file", content=QUEUES, headers={"If-Match": tag})).status_code == 412

    async def test_an_invalid_file_names_its_lines_and_changes_nothing(self, house: House) -> None:
        async with house.client("*/admin") as root:
            answer = await root.put(
                "/api/v1/queues/file", content="queues:\n  a: {quta: 1}\n", headers={"If-Match": "*"}
            )
            diffed = await root.post("/api/v1/queues/file/diff", content="queues: [")
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "line 2")
        assert diffed.json()["code"] == "queue_file_invalid"
        assert house.control.calls == []

    async def test_a_diff_shows_and_warns_and_changes_nothing(self, house: House, client: httpx.AsyncClient) -> None:
        told = (await client.post("/api/v1/queues/file/diff", content=QUEUES.replace("gpu: 4", "h100: 4"))).json()
        assert {change["field"] for change in told["changes"]} == {"quota.gpu", "quota.h100"}
        assert told["warnings"] == ["research: flavor h100 is on no node of this cluster"]
        assert (await client.get("/api/v1/queues/file")).text == QUEUES

    async def test_a_queue_does_not_vanish_under_its_jobs(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        await client.post("/api/v1/jobs", json=body(queue="production"))
        async with house.client("*/admin") as root:
            answer = await root.put("/api/v1/queues/file", content="queues: {research: {}}", headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (409, "queue_in_use")
        assert "production (1)" in answer.json()["detail"]

    async def test_new_rules_hold_at_once(self, house: House, client: httpx.AsyncClient, body: Body) -> None:
        async with house.client("*/admin") as root:
            closed = "queues:\n  research: {submit: [{project: ocr}]}\n  production: {}\n"
            await root.put("/api/v1/queues/file", content=closed, headers={"If-Match": "*"})
        assert (await client.post("/api/v1/jobs", json=body(queue="research"))).json()["code"] == "queue_not_allowed"


class TestHealth:
    async def test_ready_needs_the_bridge_and_the_store(
        self, house: House, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        house.control.bridge_up = False
        assert (await client.get("/readyz")).json()["code"] == "bridge_down"

        def failing() -> None:
            raise StoreUnavailable("full")

        monkeypatch.setattr(house.store, "check", failing)
        assert (await client.get("/readyz")).status_code == 503
        assert "bridge_down" in caplog.text
        assert "Traceback" not in caplog.text
        assert (await client.get("/healthz")).status_code == 200

    async def test_figures_count_jobs_and_requests(self, house: House, client: httpx.AsyncClient, body: Body) -> None:
        await client.post("/api/v1/jobs", json=body())
        async with house.client("*/admin") as root:
            text = (await root.get("/metrics")).text
        assert 'heliostat_jobs{queue="research",state="queued"} 1' in text
        assert 'route="/api/v1/jobs",status="201"' in text


class TestOpenApi:
    async def test_it_is_3_1_and_every_operation_has_a_stable_name(self, client: httpx.AsyncClient) -> None:
        schema = (await client.get("/api/v1/openapi.json")).json()
        names = [operation["operationId"] for path in schema["paths"].values() for operation in path.values()]
        assert schema["openapi"].startswith("3.1")
        assert schema["paths"]["/api/v1/jobs"]["post"]["security"] == [{"token": []}]
        assert schema["paths"]["/healthz"]["get"]["security"] == []
        assert len(names) == len(set(names))
        assert {
            "submit_job",
            "list_jobs",
            "get_job",
            "explain_job",
            "put_queue_file",
            "stream_events",
            "create_token",
        } <= set(names)
        assert all(name == name.lower() and "api_v1" not in name for name in names)


async def test_one_job_carries_its_history_metrics_and_result(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    from heliostat.store.tables import Lease, Metric
    from heliostat_scheduler.core.lifecycle import JobState
    from heliostat_scheduler.core.reasons import Reason, ReasonCode

    job = (await client.post("/api/v1/jobs", json=body())).json()["id"]
    house.control.move(job, JobState.ADMITTED, reason=Reason(ReasonCode.PLACED, (("gpus", 1000),)), attempts=1)

    def fill(session: Session) -> None:
        session.add(
            Lease(
                job=job, attempt=1, epoch=1, order="run", places=[{"node": "n1", "slots": []}], secret="s", since_ms=1
            )
        )
        for step in (1, 2):
            session.add(Metric(job=job, attempt=1, at_ms=step, name="loss", value=1 / step, step=step))

    house.store.write(fill)
    told = (await client.get(f"/api/v1/jobs/{job}")).json()
    assert (told["tasks"]["running"], told["gpus"]["held"], told["metrics"]) == (1, 1.0, {"loss": 0.5})
    assert [(entry["code"], entry["attempt"]) for entry in told["reason_history"]] == [("Placed", 1)]
    metrics = (await client.get(f"/api/v1/jobs/{job}/metrics")).json()["items"]
    assert [(metric["step"], metric["value"]) for metric in metrics] == [(1, 1.0), (2, 0.5)]
    events = (await client.get(f"/api/v1/jobs/{job}/events")).json()["items"]
    assert [(event["kind"], event["from"], event["to"]) for event in events] == [
        ("job_submitted", None, "queued"),
        ("job_moved", "queued", "admitted"),
    ]
    with house.store.read() as session:
        assert jobs.get(session, job).version == 2
