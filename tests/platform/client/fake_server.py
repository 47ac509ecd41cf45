"""An in-memory control plane with the JSON of /api/v1, for tests of the client: no socket, no clock of its own.

It stands in for the server at the `Transport` seam. Tests move jobs on by hand (`server.move`), or give a job a script of
states that advances by one with every look at it. `server.break_next` makes the next exchanges fail in a chosen way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from heliostat.wire.transport import Request, Response, Stream, TransportError

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
TOKEN = "hs_test"
CLASSES = {"low": 50, "normal": 100, "high": 150, "critical": 200}
TERMINAL = {"succeeded", "failed", "cancelled", "timed_out"}
QUEUES_YAML = "queues:\n  - name: default\n"


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def problem(status: int, code: str, detail: str, remedy: str = "", **more: object) -> Response:
    body = {
        "type": f"about:{code}",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        "remedy": remedy,
        **more,
    }
    return Response(
        status, {"content-type": "application/problem+json", "heliostat-api-version": "1"}, json.dumps(body).encode()
    )


def answer(document: object, status: int = 200, **headers: str) -> Response:
    base = {"content-type": "application/json", "heliostat-api-version": "1", **headers}
    return Response(status, base, b"" if document is None else json.dumps(document).encode())


class FakeServer:
    """A `Transport` that answers by itself."""

    def __init__(self) -> None:
        self.now = NOON
        self.jobs: dict[str, dict[str, Any]] = {}
        self.scripts: dict[str, list[dict[str, Any]]] = {}
        self.logs: dict[str, str] = {}
        self.packages: dict[str, bytes] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.queue_file = QUEUES_YAML
        self.requests: list[Request] = []
        self.failures: list[Callable[[], Response]] = []
        self.by_key: dict[str, Response] = {}
        self.cut_log_after: int | None = None
        self.explanations: dict[str, dict[str, Any]] = {}

    # ---- what tests do

    def move(self, job_id: str, state: str, **fields: Any) -> None:
        job = self.jobs[job_id]
        self._event(job_id, job["state"], state)
        job.update({"state": state, "state_since": stamp(self.now), **fields})

    def script(self, job_id: str, *steps: dict[str, Any]) -> None:
        """From now on each GET of the job advances it by one step; the last one stays."""
        self.scripts[job_id] = list(steps)

    def refuse(self, times: int) -> None:
        self.failures += [self._refused] * times

    def break_next(self, times: int = 1, status: int | None = None, **headers: str) -> None:
        """The connection breaks (or an error is answered) that often."""
        if status is None:
            self.failures += [self._broken] * times
        else:
            self.failures += [lambda: Response(status, {"content-type": "text/plain", **headers}, b"down")] * times

    # ---- Transport

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        if self.failures:
            return self.failures.pop(0)()
        key = request.headers.get("Idempotency-Key")
        if key and key in self.by_key:
            return self.by_key[key]
        response = self._route(request)
        if key and response.status < 300:
            self.by_key[key] = response
        return response

    def stream(self, request: Request) -> Stream:
        self.requests.append(request)
        if self.failures:
            failed = self.failures.pop(0)()
            return FakeStream(failed.status, failed.headers, iter(()), failed.body)
        parts = urlsplit(request.path)
        if parts.path == "/api/v1/events":
            lines = self._event_lines(
                int(request.headers.get("Last-Event-ID") or 0), parse_qs(parts.query).get("job", [""])[0]
            )
        else:
            job_id = unquote(parts.path.split("/")[-2])
            lines = self._log_lines(job_id, int(parse_qs(parts.query)["offset"][0]))
        return FakeStream(200, {"content-type": "text/event-stream", "heliostat-api-version": "1"}, lines, b"")

    def close(self) -> None:
        return None

    # ---- routes

    def _route(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthenticated", "No valid token.", "Log in: helio login URL")
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        path = parts.path.removeprefix("/api/v1")
        for method, pattern, handler in self._routes():
            match = re.fullmatch(pattern, path)
            if match and method == request.method:
                return handler(request, query, *(unquote(group) for group in match.groups()))
        return problem(404, "not_found", f"No route {request.method} {path}.")

    def _routes(self) -> list[tuple[str, str, Callable[..., Response]]]:
        one = "/jobs/([^/]+)"
        return [
            ("POST", "/jobs", self._submit), ("GET", "/jobs", self._list), ("GET", one, self._get), ("PATCH", one, self._patch),
            ("DELETE", one, self._delete), ("POST", f"{one}/(cancel|hold|release)", self._act),
            ("GET", f"{one}/explanation", self._explain), ("GET", f"{one}/logs", self._log), ("GET", f"{one}/events", self._job_events),
            ("GET", f"{one}/metrics", self._metrics), ("GET", "/events", self._all_events), ("GET", "/queues", self._queues),
            ("GET", "/queues/file", self._file), ("PUT", "/queues/file", self._put_file), ("POST", "/queues/file/diff", self._diff),
            ("GET", "/cluster", self._cluster), ("HEAD", "/packages/(.+)", self._has), ("PUT", "/packages/(.+)", self._put),
            ("GET", "/tokens", self._tokens), ("POST", "/tokens", self._make_token), ("DELETE", "/tokens/(.+)", self._revoke),
            ("GET", "/whoami", lambda *_: answer({"user": "ada", "role": "admin", "project": "default", "token_id": "tok-1"})),
            ("GET", "/version", lambda *_: answer({"server": "0.1.0", "api": 1, "ray": "2.60.0"})),
        ]  # fmt: skip

    def _submit(self, request: Request, query: dict[str, list[str]]) -> Response:
        body = json.loads(request.body)
        if body.get("queue") == "nowhere":
            return problem(400, "unknown_queue", "There is no queue 'nowhere'.", "See them with: helio queue ls")
        least = body.get("gpus", body.get("min_gpus", 0))
        if least > 8:
            return problem(
                422, "NeverFits", f"{least} GPUs never fit: the cluster has 8.", "Ask for at most 8: --gpus 8"
            )
        if query.get("plan"):
            return answer(
                {"fits": True, "starts_now": least == 0, "position": 1, "reason": {"code": "X", "sentence": "busy"}}
            )
        job_id = body.get("id") or f"job-{len(self.jobs) + 1:02d}"
        if job_id in self.jobs:
            return problem(409, "job_exists", f"There is a job {job_id} already.", "Choose another id.")
        self.jobs[job_id] = self._new_job(job_id, body, least)
        self._event(job_id, None, self.jobs[job_id]["state"])
        return answer(self.jobs[job_id], 201)

    def _new_job(self, job_id: str, body: dict[str, Any], least: float) -> dict[str, Any]:
        priority = body.get("priority", "normal")
        state = "held" if body.get("hold") else "queued"
        return {
            "id": job_id, "name": body.get("name", ""), "kind": body["kind"], "project": body.get("project", "default"),
            "user": "ada", "queue": body.get("queue", "default"), "priority": CLASSES.get(priority, priority),
            "priority_class": priority if isinstance(priority, str) else "", "preemptibility": "preemptible", "state": state,
            "state_since": stamp(self.now), "reason": {"code": "PendingEvaluation", "sentence": "not looked at yet", "facts": {}},
            "position": 1, "estimated_start": None, "gpus": {"min": least, "max": body.get("max_gpus", least), "held": 0},
            "cpus": 1, "flavor": "gpu", "entrypoint": body.get("entrypoint") or " ".join(body.get("command", [])),
            "submitted_at": stamp(self.now), "started_at": None, "finished_at": None, "attempts": 0, "exit_code": None,
            "error": None, "metrics": None, "result": None, "gpu_seconds": {"held": 0, "used": None}, "waited_s": 0, "ran_s": 0,
            "metadata": body.get("metadata", {}),
        }  # fmt: skip

    def _list(self, request: Request, query: dict[str, list[str]]) -> Response:
        states, queue = query.get("state"), query.get("queue", [""])[0]
        found = [
            job
            for job in reversed(list(self.jobs.values()))
            if (not states or job["state"] in states) and queue in ("", job["queue"])
        ]
        start, limit = int(query.get("cursor", ["0"])[0]), int(query.get("limit", ["50"])[0])
        more = str(start + limit) if start + limit < len(found) else None
        return answer({"items": found[start : start + limit], "next_cursor": more})

    def _get(self, request: Request, query: dict[str, list[str]], job_id: str) -> Response:
        if job_id not in self.jobs:
            return problem(404, "not_found", f"There is no job {job_id}.", "List yours: helio ps -a")
        steps = self.scripts.get(job_id)
        if steps:
            step = dict(steps.pop(0))
            self.move(job_id, step.pop("state", self.jobs[job_id]["state"]), **step)
        return answer({**self.jobs[job_id], "reason_history": self.jobs[job_id].get("reason_history", [])})

    def _patch(self, request: Request, query: dict[str, list[str]], job_id: str) -> Response:
        body = json.loads(request.body)
        job = self.jobs[job_id]
        if set(body) - {"priority"} and job["state"] not in ("queued", "held"):
            return problem(409, "wrong_state", f"{job_id} is {job['state']}.", "Only a waiting job can be edited.")
        if "priority" in body:
            job["priority_class"] = body["priority"]
        if "gpus" in body:
            body |= {"min_gpus": body["gpus"], "max_gpus": body["gpus"]}
        job["gpus"] = {**job["gpus"], **{key: body[f"{key}_gpus"] for key in ("min", "max") if f"{key}_gpus" in body}}
        job["queue"] = body.get("queue", job["queue"])
        return answer(job)

    def _delete(self, request: Request, query: dict[str, list[str]], job_id: str) -> Response:
        del self.jobs[job_id]
        return answer(None, 204)

    def _act(self, request: Request, query: dict[str, list[str]], job_id: str, verb: str) -> Response:
        if job_id not in self.jobs:
            return problem(404, "not_found", f"There is no job {job_id}.", "List yours: helio ps -a")
        if self.jobs[job_id]["state"] in TERMINAL:
            return problem(409, "wrong_state", f"{job_id} is over.", "Submit it again.")
        self.move(job_id, {"cancel": "cancelled", "hold": "held", "release": "queued"}[verb], reason=None)
        return answer(self.jobs[job_id])

    def _explain(self, request: Request, query: dict[str, list[str]], job_id: str) -> Response:
        return answer({"job_id": job_id, "state": self.jobs[job_id]["state"], **self.explanations.get(job_id, {})})

    def _log(self, request: Request, query: dict[str, list[str]], job_id: str) -> Response:
        text = self.logs.get(job_id, "").encode()[int(query.get("offset", ["0"])[0]) :]
        return Response(200, {"content-type": "text/plain", "heliostat-api-version": "1"}, text)

    def _job_events(self, request: Request, query: dict[str, list[str]], job_id: str) -> Response:
        return answer({"items": [event for event in self.events if event["job"] == job_id]})

    def _all_events(self, request: Request, query: dict[str, list[str]]) -> Response:
        after = int(query.get("after", ["0"])[0])
        return answer({"items": [event for event in self.events if event["seq"] > after]})

    def _metrics(self, request: Request, query: dict[str, list[str]], job_id: str) -> Response:
        points = [
            {"at": stamp(NOON), "name": "loss", "value": value, "step": step}
            for step, value in enumerate((0.9, 0.4, 0.2))
        ]
        return answer({"items": points})

    def _queues(self, request: Request, query: dict[str, list[str]]) -> Response:
        gpu = {"lending_limit": None, "weight": 1, "entitled": {"gpu": 4}}
        return answer({"items": [
            {"name": "root", "parent": None, "quota": None, "limit": None, "used": {"gpu": 3}, "borrowed": None, "priority": 0,
             "running": 1, "waiting": 2, **gpu},
            {"name": "research", "parent": "root", "quota": {"gpu": 4}, "limit": {"gpu": 8}, "used": {"gpu": 3}, "borrowed": {"gpu": 0},
             "priority": 0, "running": 1, "waiting": 2, **gpu},
        ], "warnings": self.warnings})  # fmt: skip

    def _file(self, request: Request, query: dict[str, list[str]]) -> Response:
        headers = {
            "content-type": "application/yaml",
            "etag": f'"{len(self.queue_file)}"',
            "heliostat-api-version": "1",
        }
        return Response(200, headers, self.queue_file.encode())

    def _diff(self, request: Request, query: dict[str, list[str]]) -> Response:
        if b"quotaa" in request.body:
            errors = [{"pointer": "line 3", "detail": "unknown key quotaa"}]
            return problem(400, "invalid_queue_file", "queues.yaml is not valid.", "Correct it.", errors=errors)
        same = request.body.decode() == self.queue_file
        return answer(
            {"changes": [] if same else [{"queue": "research", "field": "quota", "old": {"gpu": 2}, "new": {"gpu": 4}}]}
        )

    def _put_file(self, request: Request, query: dict[str, list[str]]) -> Response:
        if request.headers.get("If-Match") != f'"{len(self.queue_file)}"':
            return problem(412, "stale", "Somebody else changed the queues.", "Look again: helio queue show")
        found = self._diff(request, query)
        self.queue_file = request.body.decode()
        return found

    def _cluster(self, request: Request, query: dict[str, list[str]]) -> Response:
        slots = [
            {"id": "abc/0", "device": 0, "state": "leased", "job": "job-01", "utilization": 0.93},
            {"id": "abc/1", "device": 1, "state": "free", "job": None, "utilization": None},
        ]
        node = {"id": "abcdef0123456789", "ip": "10.0.0.1", "flavor": "a100", "state": "up", "slots": slots, "cpu_milli": 8000,
                "memory_bytes": 32 * 1024**3, "labels": {}}  # fmt: skip
        return answer({"nodes": [node], "ray": {"version": "2.60.0", "address": "x", "up": True}})

    def _has(self, request: Request, query: dict[str, list[str]], name: str) -> Response:
        return answer(None, 200 if name in self.packages else 404)

    def _put(self, request: Request, query: dict[str, list[str]], name: str) -> Response:
        self.packages[name] = request.body
        return answer({"name": name}, 201)

    def _tokens(self, request: Request, query: dict[str, list[str]]) -> Response:
        return answer(
            {
                "items": [
                    {key: value for key, value in token.items() if key != "token"} for token in self.tokens.values()
                ]
            }
        )

    def _make_token(self, request: Request, query: dict[str, list[str]]) -> Response:
        body = json.loads(request.body)
        token_id = f"tok-{len(self.tokens) + 1}"
        seconds = body.get("expires_s")
        self.tokens[token_id] = {
            "id": token_id, "name": body.get("name"), "role": body["role"], "project": body.get("project", "default"), "user": "ada",
            "token": f"hs_{token_id}", "created_at": stamp(self.now), "revoked_at": None, "last_used_at": None,
            "expires_at": stamp(self.now + timedelta(seconds=seconds)) if seconds else None,
        }  # fmt: skip
        return answer(self.tokens[token_id], 201)

    def _revoke(self, request: Request, query: dict[str, list[str]], token_id: str) -> Response:
        if token_id not in self.tokens:
            return problem(404, "not_found", f"There is no token {token_id}.", "List them: helio token ls")
        self.tokens[token_id]["revoked_at"] = stamp(self.now)
        return answer(None, 204)

    # ---- streams and failures

    def _event(self, job_id: str, old: str | None, new: str) -> None:
        seq = len(self.events) + 1
        self.events.append({"seq": seq, "at": stamp(self.now), "kind": "JobMoved", "job": job_id, "actor": "system", "attempt": 1,
                            "from": old, "to": new, "reason": None, "data": {}})  # fmt: skip

    def _event_lines(self, after: int, job_id: str) -> Iterator[str]:
        for event in self.events:
            if event["seq"] > after and job_id in ("", event["job"]):
                yield from (f"id: {event['seq']}", "event: event", f"data: {json.dumps(event)}", "")
        yield from ("event: end", "data: {}", "")

    def _log_lines(self, job_id: str, offset: int) -> Iterator[str]:
        """Ten bytes at a time (more, not to cut a character), broken off once after `cut_log_after` bytes."""
        data = self.logs[job_id].encode()
        yield ": heartbeat"
        while offset < len(data):
            if self.cut_log_after is not None and offset >= self.cut_log_after:
                self.cut_log_after = None
                raise TransportError("the connection broke")
            after = min(offset + 10, len(data))
            while after < len(data) and data[after] & 0xC0 == 0x80:
                after += 1
            piece = data[offset:after].decode()
            document = {"offset": offset, "text": piece, "next_offset": after}
            yield from ("event: log", f"data: {json.dumps(document)}", "")
            offset = after
        yield from ("event: end", "data: {}", "")

    def _refused(self) -> Response:
        raise TransportError("nothing listens on 127.0.0.1:8700", refused=True)

    def _broken(self) -> Response:
        raise TransportError("the connection broke")


class FakeStream:
    """A stream of prepared lines."""

    def __init__(self, status: int, headers: Any, lines: Iterator[str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._lines = lines
        self._body = body

    def lines(self) -> Iterator[str]:
        return self._lines

    def chunks(self) -> Iterator[bytes]:
        yield self._body

    def read(self) -> bytes:
        return self._body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
