"""Tokens and roles at the doors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from heliostat.access import Role, Tokens, Unauthenticated
from heliostat.store import Store, audit
from heliostat.store.tables import Audit, Token
from sqlalchemy import select

from tests.platform.conftest import House

Body = Callable[..., dict[str, Any]]

MATRIX = [
    # method, path, body, then the status for: nobody, viewer, member, project admin, other project's member, platform admin
    ("GET", "/api/v1/jobs", None, (401, 200, 200, 200, 200, 200)),
    ("GET", "/api/v1/jobs/mine", None, (401, 200, 200, 200, 404, 200)),
    ("GET", "/api/v1/jobs/mine/logs", None, (401, 200, 200, 200, 404, 200)),
    ("GET", "/api/v1/jobs/mine/events", None, (401, 200, 200, 200, 404, 200)),
    ("GET", "/api/v1/jobs/mine/metrics", None, (401, 200, 200, 200, 404, 200)),
    ("GET", "/api/v1/jobs/mine/explanation", None, (401, 200, 200, 200, 404, 200)),
    ("POST", "/api/v1/jobs", {"command": ["x"]}, (401, 403, 201, 201, 201, 201)),
    ("PATCH", "/api/v1/jobs/mine", {"priority": "low"}, (401, 403, 200, 200, 404, 200)),
    ("POST", "/api/v1/jobs/mine/hold", None, (401, 403, 200, 200, 404, 200)),
    ("POST", "/api/v1/jobs/mine/cancel", None, (401, 403, 200, 200, 404, 200)),
    ("DELETE", "/api/v1/jobs/mine", None, (401, 403, 409, 409, 404, 409)),
    ("GET", "/api/v1/queues", None, (401, 200, 200, 200, 200, 200)),
    ("GET", "/api/v1/queues/file", None, (401, 200, 200, 200, 200, 200)),
    ("PUT", "/api/v1/queues/file", None, (401, 403, 403, 403, 403, 422)),
    ("GET", "/api/v1/cluster", None, (401, 200, 200, 200, 200, 200)),
    ("GET", "/api/v1/tokens", None, (401, 403, 403, 200, 403, 200)),
    ("POST", "/api/v1/tokens", {"role": "viewer"}, (401, 403, 403, 201, 403, 201)),
    ("GET", "/api/v1/whoami", None, (401, 200, 200, 200, 200, 200)),
    ("GET", "/api/v1/version", None, (401, 200, 200, 200, 200, 200)),
    ("GET", "/api/v1/doctor", None, (401, 403, 403, 403, 403, 200)),
    ("GET", "/api/v1/audit", None, (401, 403, 403, 403, 403, 200)),
    ("GET", "/metrics", None, (401, 403, 403, 403, 403, 200)),
    ("GET", "/healthz", None, (200, 200, 200, 200, 200, 200)),
    ("GET", "/readyz", None, (200, 200, 200, 200, 200, 200)),
    ("GET", "/api/version", None, (401, 200, 200, 200, 200, 200)),
    ("GET", "/api/jobs/", None, (401, 200, 200, 200, 200, 200)),
    ("GET", "/api/jobs/mine", None, (401, 200, 200, 200, 404, 200)),
    ("GET", "/api/jobs/mine/logs", None, (401, 200, 200, 200, 404, 200)),
    ("POST", "/api/jobs/mine/stop", None, (401, 400, 200, 200, 404, 200)),
    ("DELETE", "/api/jobs/mine", None, (401, 400, 409, 409, 404, 409)),
    ("PUT", "/api/v1/packages/x.zip", None, (401, 403, 400, 400, 400, 400)),
]
WHO = ("", "vision/viewer", "vision/member", "vision/admin", "ocr/member", "*/admin")


@pytest.mark.parametrize(("method", "path", "body", "statuses"), MATRIX, ids=[f"{m} {p}" for m, p, _, _ in MATRIX])
async def test_who_may_do_what(house: House, method: str, path: str, body: Any, statuses: tuple[int, ...]) -> None:
    for who, status in zip(WHO, statuses, strict=True):
        async with house.client("vision/member") as owner:
            await owner.post("/api/v1/jobs", json={"command": ["x"], "id": f"mine-{WHO.index(who)}"})
        async with house.client(who) as client:
            answer = await client.request(method, path.replace("mine", f"mine-{WHO.index(who)}"), json=body)
        assert answer.status_code == status, (who, answer.text)


async def test_every_route_but_the_health_checks_needs_a_token(house: House) -> None:
    open_paths = {"/healthz", "/readyz", "/api/v1/openapi.json"}
    schema = house.app.openapi()
    async with house.client("") as nobody:
        for path, methods in schema["paths"].items():
            for method in methods:
                answer = await nobody.request(
                    method, path.replace("{job_id}", "x").replace("{name}", "x").replace("{token_id}", "x")
                )
                assert (answer.status_code == 401) == (path not in open_paths), (method, path, answer.status_code)


BAD_TOKENS = [
    ("no header", {}, "token_missing"),
    ("another scheme", {"Authorization": "Basic abc"}, "token_missing"),
    ("an unknown token", {"Authorization": "Bearer hs_unknown"}, "token_invalid"),
    ("an empty one", {"Authorization": "Bearer "}, "token_missing"),
]


@pytest.mark.parametrize(("headers", "code"), [case[1:] for case in BAD_TOKENS], ids=[case[0] for case in BAD_TOKENS])
async def test_bad_tokens(house: House, headers: dict[str, str], code: str) -> None:
    async with house.client("", **headers) as client:
        answer = await client.get("/api/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["remedy"]


async def test_an_expired_token_is_refused_also_when_it_was_cached(house: House) -> None:
    async with house.client("vision/admin") as admin:
        made = (await admin.post("/api/v1/tokens", json={"role": "member", "expires_s": 60})).json()
    async with house.client("", Authorization=f"Bearer {made['token']}") as client:
        assert (await client.get("/api/v1/whoami")).status_code == 200
        house.clock.ms += 60_000
        answer = await client.get("/api/v1/whoami")
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


async def test_a_revoked_token_is_refused_at_once(house: House) -> None:
    async with house.client("vision/admin") as admin:
        made = (await admin.post("/api/v1/tokens", json={"role": "member", "name": "ci"})).json()
        async with house.client("", Authorization=f"Bearer {made['token']}") as client:
            assert (await client.get("/api/v1/whoami")).json()["user"] == "ci"
            assert (await admin.delete(f"/api/v1/tokens/{made['id']}")).status_code == 204
            answer = await client.get("/api/v1/whoami")
    assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


async def test_a_projects_admin_sees_and_revokes_only_its_own_tokens(house: House) -> None:
    async with house.client("*/admin") as root:
        other = (await root.post("/api/v1/tokens", json={"role": "member", "project": "ocr"})).json()
    async with house.client("vision/admin") as admin:
        assert {token["project"] for token in (await admin.get("/api/v1/tokens")).json()["items"]} == {"vision"}
        assert (await admin.delete(f"/api/v1/tokens/{other['id']}")).status_code == 404
        assert (await admin.post("/api/v1/tokens", json={"role": "admin", "project": "*"})).status_code == 404
        assert (await admin.post("/api/v1/tokens", json={"role": "member", "project": "ocr"})).status_code == 404


async def test_everybody_may_revoke_their_own_token(house: House) -> None:
    async with house.client("vision/viewer") as viewer:
        own = (await viewer.get("/api/v1/whoami")).json()["token_id"]
        assert (await viewer.delete(f"/api/v1/tokens/{own}")).status_code == 204
        assert (await viewer.get("/api/v1/whoami")).status_code == 401


async def test_lists_and_events_show_ones_own_project(house: House, client: httpx.AsyncClient, body: Body) -> None:
    await client.post("/api/v1/jobs", json=body(id="theirs"))
    async with house.client("ocr/member") as other:
        await other.post("/api/v1/jobs", json=body(id="ours"))
        assert [job["id"] for job in (await other.get("/api/v1/jobs")).json()["items"]] == ["ours"]
        assert [job["submission_id"] for job in (await other.get("/api/jobs/")).json()] == ["ours"]
        assert (await other.post("/api/v1/jobs", json=body(after=["theirs"]))).status_code == 404


async def test_what_the_engine_says_does_not_name_other_projects_jobs(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    await client.post("/api/v1/jobs", json=body(id="secret"))
    async with house.client("ocr/member") as other:
        await other.post("/api/v1/jobs", json=body(id="ours"))
        house.control.explanations["ours"] = {
            "sentence": "waits for secret and ours; not for secret-2",
            "blockers": ["secret", "ours"],
            "facts": {},
            "remedies": [{"evicts": ["secret"], "command": "helio cancel secret"}],
        }
        house.control.nodes[0]["slots"][0]["job"] = "secret"
        told = (await other.get("/api/v1/jobs/ours/explanation")).json()
        cluster = (await other.get("/api/v1/cluster")).json()
    assert told["blockers"] == ["(a job of another project)", "ours"]
    assert told["remedies"][0]["evicts"] == ["(a job of another project)"]
    assert told["sentence"].endswith("not for secret-2")
    assert cluster["nodes"][0]["slots"][0]["job"] == "(a job of another project)"
    async with house.client("*/admin") as root:
        assert (await root.get("/api/v1/jobs/ours/explanation")).json()["blockers"] == ["secret", "ours"]


async def test_every_change_is_in_the_audit_log(house: House, client: httpx.AsyncClient, body: Body) -> None:
    await client.post("/api/v1/jobs", json=body(id="a"), headers={"X-Request-ID": "req-1"})
    await client.patch("/api/v1/jobs/a", json={"priority": "low"})
    await client.post("/api/v1/jobs/a/cancel")
    await client.delete("/api/v1/jobs/a")
    with house.store.read() as session:
        rows = session.execute(select(Audit).where(Audit.object == "a").order_by(Audit.seq)).scalars().all()
        assert audit.first_broken(session) is None
    assert [row.action for row in rows] == ["job_submitted", "job_changed", "job_cancel", "job_deleted"]
    assert {row.actor for row in rows} == {"u-vision/member"}
    assert rows[0].request_id == "req-1"
    async with house.client("*/admin") as root:
        told = (await root.get("/api/v1/audit?limit=1000&verify=true")).json()
    assert [entry["action"] for entry in told["items"]][-4:] == [row.action for row in rows]
    assert (told["head"], told["first_broken"]) == (rows[-1].hash, None)


def test_the_text_of_a_token_is_not_in_the_store(store: Store) -> None:
    text, _ = Tokens(store, lambda: 1).create(role=Role.MEMBER, project="p", user="u", by="x")
    assert text.startswith("hs_")
    assert len(text) > 40
    with store.read() as session:
        kept = session.execute(select(Token)).scalar_one()
    assert text.encode() not in kept.hash
    assert len(kept.hash) == 32


def test_the_administrators_file_is_private_reused_and_replaced_when_it_is_of_another_store(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "home" / "token"
    tokens = Tokens(store, lambda: 1)
    text = tokens.ensure_admin(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert tokens.ensure_admin(path) == text
    path.write_text("hs_of_another_store\n")
    fresh = tokens.ensure_admin(path)
    assert fresh != "hs_of_another_store"
    assert tokens.authenticate(fresh).everywhere


def test_the_last_use_is_written_at_most_once_a_minute(store: Store) -> None:
    now = [1_000_000]
    tokens = Tokens(store, lambda: now[0])
    text, _ = tokens.create(role=Role.MEMBER, project="p", user="u", by="x")
    principal = tokens.authenticate(text)
    assert [tokens.touch(principal), tokens.touch(principal)] == [True, False]
    now[0] += 60_000
    assert tokens.touch(principal)


def test_authenticating_with_nothing_says_what_to_send(store: Store) -> None:
    with pytest.raises(Unauthenticated, match="needed"):
        Tokens(store, lambda: 1).authenticate("")


async def test_many_requests_at_once_do_not_mix_callers_up(house: House) -> None:
    async def who(name: str) -> str:
        async with house.client(name) as client:
            return str((await client.get("/api/v1/whoami")).json()["user"])

    names = [*WHO[1:], *WHO[1:]]
    assert await asyncio.gather(*map(who, names)) == [f"u-{name}" for name in names]
