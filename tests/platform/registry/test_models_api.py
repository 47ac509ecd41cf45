"""/api/v1/models: push, look, move aliases, pull, delete; who may, and what a stranger learns."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from heliostat.api.options import DoorOptions
from heliostat.registry import ModelLimits
from heliostat.store import events
from heliostat.store.tables import Audit
from sqlalchemy import select

from tests.platform.conftest import House
from tests.platform.registry import artifact

PUSH = "/api/v1/models/digits/versions"
ZIP = {"Content-Type": "application/zip"}


async def push(client: httpx.AsyncClient, seed: int = 0, path: str = PUSH, **params: Any) -> httpx.Response:
    return await client.post(path, params=params, content=artifact.zipped(artifact.files(seed)), headers=ZIP)


async def pushed(client: httpx.AsyncClient, seed: int = 0, **params: Any) -> dict[str, Any]:
    told = await push(client, seed, **params)
    assert told.status_code == 201, told.text
    made: dict[str, Any] = told.json()
    return made


def problem(told: httpx.Response) -> tuple[int, str]:
    assert told.headers["content-type"].startswith("application/problem+json"), told.text
    body = told.json()
    assert body["remedy"] and body["detail"]
    return told.status_code, body["code"]


async def test_a_push_becomes_the_next_version(house: House, client: httpx.AsyncClient) -> None:
    first = await pushed(client, 1, alias=["champion"], tag=["team=a"], metric=["accuracy=0.97"])
    second = await pushed(client, 2)
    assert (first["version"], second["version"]) == (1, 2)
    assert first["metrics"] == {"accuracy": 0.97} and first["tags"] == {"team": "a"}
    assert first["aliases"] == ["champion"] and first["format"] == "safetensors"
    assert first["signature"]["inputs"] == [{"name": "x", "dtype": "FP32", "shape": [-1, 4]}]
    assert first["sha256"] != second["sha256"] and first["files"] == 3
    listed = (await client.get("/api/v1/models")).json()["items"]
    assert [(m["name"], m["versions"], m["latest"]["version"], m["aliases"]) for m in listed] == [
        ("digits", 2, 2, {"champion": 1})
    ]
    for which, version in (("1", 1), ("v2", 2), ("latest", 2), ("champion", 1), ("@champion", 1)):
        assert (await client.get(f"{PUSH}/{which}")).json()["version"] == version
    with house.store.read() as session:
        kinds = [event.kind for event in events.after(session, 0, project="vision")]
        audited = [row.action for row in session.execute(select(Audit)).scalars()]
    assert kinds[:3] == ["model_registered", "model_alias_moved", "model_registered"]
    assert "model_registered" in audited and "model_alias_moved" in audited


async def test_pages(client: httpx.AsyncClient) -> None:
    for seed in range(5):
        await pushed(client, seed)
    await pushed(client, path="/api/v1/models/other/versions")
    seen, cursor = [], ""
    while True:
        page = (await client.get(PUSH, params={"limit": 2, "cursor": cursor})).json()
        seen += [item["version"] for item in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert seen == [5, 4, 3, 2, 1]
    first = (await client.get("/api/v1/models", params={"limit": 1})).json()
    second = (await client.get("/api/v1/models", params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert [first["items"][0]["name"], second["items"][0]["name"], second["next_cursor"]] == ["digits", "other", None]
    odd = ["xx", encoded('["' + "9" * 30 + '", ""]'), encoded("[" * 20_000)]
    for cursor in odd:
        assert problem(await client.get(PUSH, params={"cursor": cursor})) == (400, "invalid_cursor"), cursor[:60]


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def test_a_repetition_with_the_same_key_is_answered_from_memory(client: httpx.AsyncClient) -> None:
    body = artifact.zipped(artifact.files())
    told = [await client.post(PUSH, content=body, headers={**ZIP, "Idempotency-Key": "k1"}) for _ in range(2)]
    assert [answer.status_code for answer in told] == [201, 201]
    assert told[0].json() == told[1].json() and told[1].headers["idempotency-replayed"] == "true"
    other = await client.post(PUSH, content=artifact.zipped(artifact.files(9)), headers={"Idempotency-Key": "k1"})
    assert problem(other) == (422, "idempotency_key_reused")
    assert (await client.get(PUSH)).json()["items"][0]["version"] == 1


async def test_pull_brings_back_what_was_pushed(client: httpx.AsyncClient) -> None:
    made = await pushed(client, 3)
    told = await client.get(f"{PUSH}/1/archive")
    assert told.headers["etag"] == f'"{made["sha256"]}"'
    with zipfile.ZipFile(io.BytesIO(told.content)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(content.pop("manifest.json"))
    assert content == artifact.files(3)
    assert [row["path"] for row in manifest["files"]] == sorted(content)
    again = await client.get(f"{PUSH}/1/archive", headers={"If-None-Match": told.headers["etag"]})
    assert again.status_code == 304 and not again.content


async def test_a_corrupted_artifact_is_refused_and_healed_by_the_same_push(
    house: House, client: httpx.AsyncClient
) -> None:
    made = await pushed(client)
    folders = house.app.state.doors.registry.folders
    weights = Path(folders.uri(made["sha256"]).removeprefix("file://")) / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    told = await client.get(f"{PUSH}/1/archive")
    assert problem(told) == (500, "artifact_damaged") and "model.safetensors" in told.json()["detail"]
    assert (await pushed(client))["sha256"] == made["sha256"]
    assert (await client.get(f"{PUSH}/1/archive")).status_code == 200


async def test_aliases_move_and_a_stale_move_is_refused(client: httpx.AsyncClient) -> None:
    for seed in (1, 2, 3):
        await pushed(client, seed)
    path = "/api/v1/models/digits/aliases/champion"
    made = await client.put(path, json={"version": 1}, headers={"If-None-Match": "*"})
    assert made.status_code == 200 and made.json()["version"] == 1
    assert problem(await client.put(path, json={"version": 2}, headers={"If-None-Match": "*"})) == (412, "alias_moved")
    tag = made.headers["etag"]
    assert (await client.put(path, json={"version": 2}, headers={"If-Match": tag})).status_code == 200
    assert problem(await client.put(path, json={"version": 3}, headers={"If-Match": tag})) == (412, "alias_moved")
    assert (await client.get(path)).json()["version"] == 2
    assert problem(await client.put(path, json={"version": 9})) == (404, "unknown_version")
    assert problem(await client.put("/api/v1/models/digits/aliases/latest", json={"version": 1})) == (400, "bad_alias")
    assert problem(await client.put(path, json={"version": 0})) == (400, "invalid_request")
    assert (await client.delete(path)).status_code == 204
    assert problem(await client.get(path)) == (404, "unknown_version")


async def test_deletion_is_guarded_and_numbers_are_not_used_twice(house: House, client: httpx.AsyncClient) -> None:
    first, second = await pushed(client, 1, alias=["champion"]), await pushed(client, 2)
    told = await client.delete(f"{PUSH}/1")
    assert problem(told) == (409, "model_in_use") and "@champion" in told.json()["detail"]
    assert (await client.delete(f"{PUSH}/2")).status_code == 204
    folders = house.app.state.doors.registry.folders
    assert folders.has(first["sha256"]) and not folders.has(second["sha256"])
    assert (await pushed(client, 4))["version"] == 3
    assert (await client.delete("/api/v1/models/digits")).status_code == 204
    assert problem(await client.get("/api/v1/models/digits")) == (404, "unknown_model")
    assert (await client.get("/api/v1/models")).json()["items"] == []
    assert not folders.has(first["sha256"])
    assert (await pushed(client, 1))["version"] == 4


async def test_an_artifact_stays_while_another_version_has_it(house: House, client: httpx.AsyncClient) -> None:
    made = await pushed(client)
    async with house.client("ocr/member") as other:
        same = await pushed(other)
    assert same["sha256"] == made["sha256"] and same["version"] == 1
    assert (await client.delete(f"{PUSH}/1")).status_code == 204
    async with house.client("ocr/member") as other:
        assert (await other.get(f"{PUSH}/1/archive")).status_code == 200


async def test_another_projects_models_do_not_exist(house: House, client: httpx.AsyncClient) -> None:
    await pushed(client, alias=["champion"])
    async with house.client("ocr/member") as other:
        for method, path in (
            ("GET", "/api/v1/models/digits"), ("GET", PUSH), ("GET", f"{PUSH}/1"), ("GET", f"{PUSH}/champion"),
            ("GET", f"{PUSH}/1/archive"), ("GET", f"{PUSH}/1/lineage"), ("DELETE", f"{PUSH}/1"),
            ("DELETE", "/api/v1/models/digits"), ("GET", "/api/v1/models/digits/aliases/champion"),
            ("DELETE", "/api/v1/models/digits/aliases/champion"),
        ):  # fmt: skip
            assert problem(await other.request(method, path)) == (404, "unknown_model"), (method, path)
        assert problem(await other.get("/api/v1/models", params={"project": "vision"})) == (404, "unknown_project")
        assert (await other.get("/api/v1/models")).json()["items"] == []
    async with house.client("*/admin") as admin:
        assert [m["project"] for m in (await admin.get("/api/v1/models")).json()["items"]] == ["vision"]
        assert (await admin.get(f"{PUSH}/1", params={"project": "vision"})).json()["version"] == 1


async def test_a_viewer_reads_and_changes_nothing(house: House, client: httpx.AsyncClient) -> None:
    await pushed(client)
    async with house.client("vision/viewer") as viewer:
        assert (await viewer.get(f"{PUSH}/1")).status_code == 200
        assert problem(await push(viewer)) == (403, "forbidden")
        assert problem(await viewer.put("/api/v1/models/digits/aliases/a", json={"version": 1})) == (403, "forbidden")
        assert problem(await viewer.delete(f"{PUSH}/1")) == (403, "forbidden")


async def test_a_pickle_takes_an_admin_and_is_audited(house: House, client: httpx.AsyncClient) -> None:
    body = artifact.zipped(artifact.files(kind="pickle"))
    assert problem(await client.post(PUSH, content=body)) == (403, "pickle_refused")
    assert problem(await client.post(PUSH, content=body, params={"allow_pickle": True})) == (403, "forbidden")
    async with house.client("vision/admin") as admin:
        assert problem(await admin.post(PUSH, content=body)) == (403, "pickle_refused")
        made = await admin.post(PUSH, content=body, params={"allow_pickle": True})
    assert made.status_code == 201 and made.json()["format"] == "pickle"
    with house.store.read() as session:
        rows = list(session.execute(select(Audit).where(Audit.action == "pickle_allowed")).scalars())
    assert [(row.actor, row.object) for row in rows] == [("u-vision/admin", "digits:1")]


@pytest.mark.parametrize("kind", ["skops", "onnx"])
async def test_other_formats(client: httpx.AsyncClient, kind: str) -> None:
    told = await client.post(PUSH, content=artifact.zipped(artifact.files(kind=kind)))
    assert told.status_code == 201 and told.json()["format"] == kind


async def test_variants_and_lineage(client: httpx.AsyncClient) -> None:
    for seed in (1, 2, 3):
        await pushed(client, seed, **({"variant_of": seed - 1} if seed > 1 else {}))
    told = (await client.get(f"{PUSH}/2/lineage")).json()
    assert [one["version"] for one in told["ancestors"]] == [1] and [one["version"] for one in told["variants"]] == [3]
    assert told["pushed_by"] == "u-vision/member" and told["job"] is None
    assert problem(await push(client, 5, variant_of=77)) == (404, "unknown_version")


async def test_an_upload_beyond_the_limit_is_413_and_leaves_nothing(make_house: Any, tmp_path: Path) -> None:
    house = make_house(options=DoorOptions(models=ModelLimits(upload_bytes=4_000)))
    async with house.client() as client:
        body = artifact.zipped({**artifact.files(), "big.txt": b"x" * 10_000})
        assert problem(await client.post(PUSH, content=body)) == (413, "artifact_too_large")
        assert (await client.get("/api/v1/models")).json()["items"] == []
    assert list((tmp_path / "artifacts").rglob("*")) == []
