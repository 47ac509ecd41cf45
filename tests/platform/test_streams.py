"""Server-sent events: order, resumption, heartbeats, ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from heliostat.access import Principal, Role
from heliostat.api.events_routes import _events, _log
from heliostat_scheduler.core.lifecycle import JobState

from tests.platform.conftest import House

Body = Callable[..., dict[str, Any]]
ROOT = Principal("t", "root", "*", Role.ADMIN)
OCR = Principal("t", "o", "ocr", Role.MEMBER)


def always() -> bool:
    return True


def parsed(raw: str) -> list[dict[str, Any]]:
    """The frames with data; comments vanish."""
    frames = []
    for block in raw.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            frames.append({**fields, "data": json.loads(fields["data"])})
    return frames


async def next_frame(stream: AsyncIterator[bytes]) -> dict[str, Any]:
    """The next event, passing heartbeats; fails after 5 s."""
    async with asyncio.timeout(5):
        async for chunk in stream:
            if found := parsed(chunk.decode()):
                return found[0]
    raise AssertionError("the stream ended")


async def test_the_stream_of_a_finished_job_tells_its_story_and_ends(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    await client.post("/api/v1/jobs", json=body(id="a"))
    await client.post("/api/v1/jobs/a/cancel")
    answer = await client.get("/api/v1/events?job=a")
    frames = parsed(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [frame["event"] for frame in frames] == ["job_submitted", "job_moved", "end"]
    assert frames[1]["data"]["to"] == "cancelled"


async def test_last_event_id_continues_behind_an_event(client: httpx.AsyncClient, body: Body) -> None:
    await client.post("/api/v1/jobs", json=body(id="a"))
    await client.post("/api/v1/jobs/a/cancel")
    all_of_it = parsed((await client.get("/api/v1/events?job=a")).text)
    rest = parsed((await client.get("/api/v1/events?job=a", headers={"Last-Event-ID": all_of_it[0]["id"]})).text)
    assert rest == all_of_it[1:]
    assert (await client.get("/api/v1/events?job=a", headers={"Last-Event-ID": "x"})).status_code == 400


async def test_events_arrive_as_they_happen_and_only_those_of_the_project(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    doors, closing = house.app.state.doors, house.app.state.closing
    stream, other = _events(doors, closing, ROOT, None, 0, always), _events(doors, closing, OCR, None, 0, always)
    await client.post("/api/v1/jobs", json=body(id="a"))
    assert (await next_frame(stream))["data"]["job"] == "a"
    waiting = asyncio.ensure_future(next_frame(stream))
    await asyncio.sleep(0)
    async with house.client("ocr/member") as member:
        await member.post("/api/v1/jobs", json=body(id="b"))
    assert (await waiting)["data"]["job"] == "b"
    assert (await next_frame(other))["data"]["job"] == "b"
    await stream.aclose()  # type: ignore[attr-defined]
    await other.aclose()  # type: ignore[attr-defined]


async def test_an_idle_stream_sends_heartbeats_and_ends_when_the_server_does(house: House) -> None:
    stream = _events(house.app.state.doors, house.app.state.closing, ROOT, None, 0, always)
    async with asyncio.timeout(5):
        assert [await anext(stream) for _ in range(3)] == [b": heartbeat\n\n"] * 3
        house.app.state.closing.close()
        rest = [chunk async for chunk in stream]
    assert len(rest) <= 1


async def test_a_revoked_token_ends_its_open_streams(house: House, client: httpx.AsyncClient, body: Body) -> None:
    await client.post("/api/v1/jobs", json=body(id="a"))
    async with asyncio.timeout(5):
        open_streams = [
            asyncio.ensure_future(client.get(path)) for path in ("/api/v1/events", "/api/v1/jobs/a/logs?follow=true")
        ]
        await asyncio.sleep(0)
        tokens = house.app.state.doors.tokens
        for token in tokens.listed(("vision",)):
            tokens.revoke(token.id, by="test")
        for answer in await asyncio.gather(*open_streams):
            assert "event: end" not in answer.text


async def test_another_projects_job_has_no_stream(house: House, client: httpx.AsyncClient, body: Body) -> None:
    await client.post("/api/v1/jobs", json=body(id="a"))
    async with house.client("ocr/member") as other:
        assert (await other.get("/api/v1/events?job=a")).status_code == 404
        assert (await other.get("/api/v1/jobs/a/logs?follow=true")).status_code == 404


class TestLogs:
    async def test_a_log_is_read_from_an_offset_in_bytes(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        await client.post("/api/v1/jobs", json=body(id="a"))
        house.control.logs_of["a"] = "grün\nblau\n"
        whole = await client.get("/api/v1/jobs/a/logs")
        assert whole.text == "grün\nblau\n"
        assert whole.headers["heliostat-next-offset"] == "11"
        assert (await client.get("/api/v1/jobs/a/logs?offset=6")).text == "blau\n"

    async def test_following_ends_when_the_job_is_over_and_resumes_at_the_offset(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        await client.post("/api/v1/jobs", json=body(id="a"))
        stream = _log(house.app.state.doors, house.app.state.closing, "a", 0, always)
        house.control.logs_of["a"] = "one\n"
        first = await next_frame(stream)
        assert (first["event"], first["id"], first["data"]) == (
            "log",
            "4",
            {"offset": 0, "text": "one\n", "next_offset": 4},
        )
        house.control.logs_of["a"] += "two\n"
        assert (await next_frame(stream))["data"]["text"] == "two\n"
        house.control.move("a", JobState.CANCELLED)
        assert (await next_frame(stream))["event"] == "end"
        resumed = parsed((await client.get("/api/v1/jobs/a/logs?follow=true", headers={"Last-Event-ID": "4"})).text)
        assert [frame["data"].get("text") for frame in resumed] == ["two\n", None]
