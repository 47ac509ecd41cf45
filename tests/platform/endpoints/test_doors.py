"""/api/v1/endpoints and /api/v1/keys from the outside: who may, what is refused, what another project sees."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from heliostat.endpoints import access_log
from heliostat.store.endpoint_tables import Deployment, Endpoint
from heliostat.store.inserting import insert_row
from heliostat.store.model_tables import Model, ModelVersion
from heliostat.store.tables import Job, Lease
from sqlalchemy import select, update

from tests.platform.conftest import House
from tests.platform.endpoints.serving_plant import SIGNATURE

BODY = {"model": "digits:1"}


@pytest.fixture
def house(house: House) -> House:
    """With version 1 of `digits` in project vision."""

    def work(session: Any) -> None:
        insert_row(session, Model, {"project": "vision", "name": "digits", "created_ms": 1, "created_by": "u"})
        insert_row(
            session,
            ModelVersion,
            {"project": "vision", "model": "digits", "version": 1, "sha256": "a" * 64, "format": "skops",
             "signature": SIGNATURE, "size_bytes": 1, "files": 1, "created_ms": 1},
        )  # fmt: skip

    house.store.write(work)
    return house


async def deploy(client: httpx.AsyncClient, name: str = "digits", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return await client.post(f"/api/v1/endpoints/{name}/deployments", json={**BODY, **more}, headers=headers)


def make_ready(house: House, number: int = 1) -> None:
    """As the service does when the smoke request was answered."""

    def work(session: Any) -> None:
        session.execute(update(Deployment).where(Deployment.number == number).values(state="ready"))
        session.execute(update(Endpoint).values(weights={"1": 100}))

    house.store.write(work)


async def test_a_deployment_enters_as_endpoint_deployment_and_job(house: House) -> None:
    async with house.client() as client:
        answer = await deploy(client, replicas_max=3)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert (made["version"], made["state"], made["model"]["version"]) == ("v1", "waiting", 1)
        shown = (await client.get("/api/v1/endpoints/digits")).json()
        assert shown["url"] == "http://127.0.0.1:8000/endpoints/digits" and shown["state"] == "waiting"
        job = (await client.get(f"/api/v1/jobs/{made['job']}")).json()
        assert (job["kind"], job["state"], job["name"]) == ("serve", "queued", "digits-v1")


async def test_repeated_with_the_same_key_it_is_one_deployment(house: House) -> None:
    async with house.client() as client:
        first = await deploy(client, headers={"Idempotency-Key": "k1"})
        again = await deploy(client, headers={"Idempotency-Key": "k1"})
        assert again.json() == first.json() and again.headers["idempotency-replayed"] == "true"
        assert len((await client.get("/api/v1/endpoints/digits")).json()["deployments"]) == 1


async def test_what_belongs_to_another_project_does_not_exist(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
        key = (await client.post("/api/v1/endpoints/digits/keys", json={})).json()["id"]
    async with house.client("ocr/member") as other:
        calls = [
            await other.get("/api/v1/endpoints/digits"),
            await other.delete("/api/v1/endpoints/digits"),
            await other.put("/api/v1/endpoints/digits/traffic", json={"weights": {"v1": 1}}),
            await other.post("/api/v1/endpoints/digits/rollback"),
            await other.get("/api/v1/endpoints/digits/logs"),
            await other.get("/api/v1/endpoints/digits/usage"),
            await other.post("/api/v1/endpoints/digits/keys", json={}),
            await other.get("/api/v1/endpoints/digits/keys"),
            await other.delete(f"/api/v1/keys/{key}"),
            await deploy(other),  # the model is not theirs either
        ]
        assert [call.status_code for call in calls] == [404] * len(calls)
        assert (await other.get("/api/v1/endpoints")).json()["items"] == []
        assert (await other.get("/api/v1/keys")).json()["items"] == []


async def test_a_viewer_looks_and_changes_nothing(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
    async with house.client("vision/viewer") as viewer:
        assert (await viewer.get("/api/v1/endpoints/digits")).status_code == 200
        refused = [
            await deploy(viewer),
            await viewer.delete("/api/v1/endpoints/digits"),
            await viewer.post("/api/v1/endpoints/digits/keys", json={}),
        ]
        assert [call.status_code for call in refused] == [403] * 3


BAD: list[Any] = [
    pytest.param("Digits", {}, 400, "bad_request", id="a name with capitals"),
    pytest.param("digits", {"model": "nobody:1"}, 404, "unknown_model", id="a model that is not there"),
    pytest.param("digits", {"model": "digits:9"}, 404, "unknown_version", id="a version that is not there"),
    pytest.param("digits", {"replicas_min": 3, "replicas_max": 1}, 400, "bad_request", id="a range backwards"),
    pytest.param("digits", {"replicas_max": 1000}, 400, "bad_request", id="too many replicas"),
    pytest.param("digits", {"gpus": 2}, 400, "bad_request", id="two GPUs in one replica"),
    pytest.param("digits", {"gpus": 1, "replicas_min": 9, "replicas_max": 9}, 422, "never_fits", id="more GPUs than there are"),
    pytest.param("digits", {"queue": "nowhere"}, 400, "unknown_queue", id="a queue that is not there"),
    pytest.param("digits", {"queue": "production", "priority": "critical"}, 403, "priority_not_allowed", id="a priority too high"),
    pytest.param("digits", {"direct": True, "sticky": True}, 400, "direct_mode", id="direct and sticky"),
    pytest.param("digits", {"direct": True, "replicas_min": 0}, 400, "direct_mode", id="direct and asleep"),
    pytest.param("digits", {"weight": 101}, 400, "bad_request", id="a weight above 100"),
    pytest.param("digits", {"colour": "red"}, 400, "invalid_request", id="a field that nobody knows"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more", "status", "code"), BAD)
async def test_bad_input_changes_nothing(house: House, name: str, more: dict[str, Any], status: int, code: str) -> None:
    async with house.client() as client:
        answer = await deploy(client, name, **more)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["remedy"]
    with house.store.read() as session:
        assert session.execute(select(Endpoint)).all() == []
        assert session.execute(select(Job)).all() == []


async def test_the_text_of_a_key_is_told_once(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
        made = (await client.post("/api/v1/endpoints/digits/keys", json={"name": "shop", "rate_per_s": 5})).json()
        assert made["key"].startswith("hk_") and made["burst"] == 10
        (listed,) = (await client.get("/api/v1/keys")).json()["items"]
        assert listed["key"] is None and listed["id"] == made["id"]
        assert (await client.delete(f"/api/v1/keys/{made['id']}")).status_code == 204
        (revoked,) = (await client.get("/api/v1/endpoints/digits/keys")).json()["items"]
        assert revoked["revoked_at"]


async def test_a_key_may_pin_when_that_was_asked_for(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
        made = [
            (await client.post("/api/v1/endpoints/digits/keys", json=asked)).json() for asked in ({}, {"pin": True})
        ]
        assert [key["pin"] for key in made] == [False, True]
        listed = (await client.get("/api/v1/endpoints/digits/keys")).json()["items"]
    assert {key["id"]: key["pin"] for key in listed} == {key["id"]: key["pin"] for key in made}


BAD_KEYS: list[Any] = [
    pytest.param({"rate_per_s": 1, "burst": 2**70}, "burst", id="a burst that no number of the database holds"),
    pytest.param({"rate_per_s": 1, "burst": 0}, "burst", id="no burst"),
    pytest.param({"burst": 5}, "burst", id="a burst without a rate"),
    pytest.param({"rate_per_s": 1e9}, "rate_per_s", id="a rate too high"),
]


@pytest.mark.parametrize(("asked", "field"), BAD_KEYS)
async def test_limits_of_a_key_have_bounds(house: House, asked: dict[str, Any], field: str) -> None:
    async with house.client() as client:
        await deploy(client)
        refused = await client.post("/api/v1/endpoints/digits/keys", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_request")
    assert refused.json()["detail"].startswith(field)


async def test_traffic_only_to_versions_that_are_ready(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
        answer = await client.put("/api/v1/endpoints/digits/traffic", json={"weights": {"v1": 100}})
        assert (answer.status_code, answer.json()["code"]) == (409, "not_ready")
        answer = await client.put("/api/v1/endpoints/digits/traffic", json={"weights": {"v7": 100}})
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_deployment")
        make_ready(house)
        answer = await client.put("/api/v1/endpoints/digits/traffic", json={"weights": {"v1": 5}})
        assert answer.json()["weights"] == {"v1": 5} and answer.json()["deployments"][0]["share"] == 1.0
        answer = await client.delete("/api/v1/endpoints/digits/deployments/v1")
        assert (answer.status_code, answer.json()["code"]) == (409, "has_traffic")
        answer = await client.post("/api/v1/endpoints/digits/rollback")
        assert answer.json()["weights"] == {"v1": 100}


async def test_a_name_of_another_project_is_taken(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
    async with house.client("*/admin") as admin:
        answer = await deploy(admin, project="vision")
        assert answer.status_code == 201, "an administrator may deploy there"
        answer = await deploy(admin, project="default")
        assert answer.status_code in (404, 409)


async def test_a_deployed_version_cannot_be_deleted(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
        answer = await client.delete("/api/v1/models/digits/versions/1")
        assert (answer.status_code, answer.json()["code"]) == (409, "model_in_use")
        assert "digits v1" in answer.json()["detail"]
        assert "helio endpoint rm digits v1" in answer.json()["remedy"]


async def test_the_access_log_is_read_on_from_its_place(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
        path = "/api/v1/endpoints/digits/logs"
        begin = (await client.get(path)).json()
        assert begin["items"] == []
        log = house.app.state.doors.endpoints.log_path("digits")
        lines = [{"at_ms": 5, "key": "k", "status": 200, "request_id": str(number)} for number in range(3)]
        access_log.append(log, lines[:2])
        more = (await client.get(path, params={"after": begin["next"]})).json()
        access_log.append(log, lines[2:])
        last = (await client.get(path, params={"after": more["next"]})).json()
        told = [[line["request_id"] for line in answer["items"]] for answer in (more, last)]
        assert told == [["0", "1"], ["2"]]
        assert (await client.get(path, params={"after": "x"})).status_code == 400


async def test_an_endpoint_is_explained_version_by_version(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = [{"name": "research", "pressure": {"gpu": 2.0}}, {"name": "default", "pressure": {}}, {"name": "else"}]
    monkeypatch.setattr(house.control, "queue_usage", lambda: usage)
    async with house.client() as client:
        made = (await deploy(client, replicas_max=3)).json()
        make_ready(house)
        job = made["job"]
        house.control.run(job)
        growth = {"tasks": 1, "wanted": 3, "code": "InsufficientFree", "sentence": "needs 1 GPU, 0 GPU free, 1 GPU short",
                  "facts": {}, "blockers": ["job-else"], "at": None, "remedies": []}  # fmt: skip
        told = {
            "job_id": job,
            "state": "running",
            "sentence": "1 task placed",
            "blockers": [],
            "remedies": [],
            "facts": {},
        }
        house.control.explanations[job] = {**told, "growth": growth}
        house.store.write(lambda session: session.execute(update(Deployment).values(wish=3)))
        house.store.write(lambda session: session.add(_lease(job)))
        answer = await client.get("/api/v1/endpoints/digits/explanation")
        assert answer.status_code == 200, answer.text
        why = answer.json()
        assert why["sentence"] == "2 replicas short of what its versions want"
        (version,) = why["versions"]
        assert version["short"] == 2 and version["explanation"]["growth"]["blockers"] == ["job-else"]
        assert "has 1 of the 3 replicas that it wants; one more needs 1 GPU" in version["sentence"]
        (queue,) = why["queues"]
        assert queue in usage[:2], "only the queue of its serving job"
    async with house.client("ocr/member") as other:
        assert (await other.get("/api/v1/endpoints/digits/explanation")).status_code == 404


async def test_replicas_change_later_by_those_who_may(house: House) -> None:
    async with house.client() as client:
        await deploy(client)
        path = "/api/v1/endpoints/digits/deployments/v1"
        changed = await client.patch(path, json={"replicas_min": 2, "replicas_max": 4})
        assert changed.status_code == 200, changed.text
        replicas = changed.json()["deployments"][0]["replicas"]
        assert (replicas["min"], replicas["max"], replicas["wish"]) == (2, 4, 2)
        bad = await client.patch(path, json={"replicas_min": 3, "replicas_max": 2})
        assert (bad.status_code, bad.json()["code"]) == (400, "bad_request")
        unknown = await client.patch(
            "/api/v1/endpoints/digits/deployments/v9", json={"replicas_min": 1, "replicas_max": 1}
        )
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_deployment")
    async with house.client("vision/viewer") as viewer:
        refused = await viewer.patch(path, json={"replicas_min": 1, "replicas_max": 1})
        assert refused.status_code == 403
    async with house.client("ocr/member") as other:
        assert (await other.patch(path, json={"replicas_min": 1, "replicas_max": 1})).status_code == 404


async def test_an_endpoint_in_direct_mode_says_how_to_change_it(house: House) -> None:
    async with house.client() as client:
        await deploy(client, "fast", direct=True)
        again = await deploy(client, "fast")
        assert (again.status_code, again.json()["code"]) == (409, "direct_mode")
        assert "another name" in again.json()["remedy"]
        asleep = await client.patch(
            "/api/v1/endpoints/fast/deployments/v1", json={"replicas_min": 0, "replicas_max": 1}
        )
        assert (asleep.status_code, asleep.json()["code"]) == (400, "direct_mode")
        await deploy(client, "split")
        direct = await deploy(client, "split", direct=True)
        assert (direct.status_code, direct.json()["code"]) == (409, "direct_mode")


def _lease(job: str) -> Lease:
    place = {"node": "n", "slots": []}
    return Lease(job=job, attempt=1, epoch=1, order="run", places=[place], secret="", since_ms=1)
