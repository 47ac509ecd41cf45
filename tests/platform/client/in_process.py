"""The real API in this process, for tests of the client: no socket, a store in a file, and a control plane that only writes rows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI
from heliostat.control.port import ControlError
from heliostat.forecasting.link import Eta
from heliostat.store import Store, jobs, moves
from heliostat.wire.transport import Request, Response, Stream
from heliostat_scheduler.core.events import JobSubmitted
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.reasons import Reason, ReasonCode

NOW_MS = 1_780_000_000_000
LOG = "[heliostat] attempt 1 started\nhéllo\n"


class RowsOnly:
    """A `ControlPort` that moves rows and answers from nothing else. Jobs wait for one fixed reason."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.log = LOG

    def submitted(self, job_id: str) -> None:
        return None

    def changed(self, job_id: str) -> None:
        return None

    def queues_changed(self) -> None:
        return None

    def cancel(self, job_id: str, actor: str) -> None:
        self.move(job_id, JobState.CANCELLED, actor)

    def hold(self, job_id: str, actor: str) -> None:
        self.move(job_id, JobState.HELD, actor)

    def release(self, job_id: str, actor: str) -> None:
        self.move(job_id, JobState.QUEUED, actor)

    def node(self, what: str, node_id: str, actor: str) -> None:
        return None

    def move(self, job_id: str, state: JobState, actor: str = "system", **fields: Any) -> None:  # Any: column values
        self.store.write(
            lambda session: moves.move(
                session, jobs.get(session, job_id), state, reason=None, actor=actor, now_ms=NOW_MS, **fields
            )
        )

    def etas(self, job_ids: Sequence[str]) -> dict[str, Eta]:
        return {}

    def explain_queue(self, name: str) -> dict[str, Any]:  # Any: JSON
        return {"name": name, "sentence": "no job waits here", "first": None, "waiting_by_reason": {}, "borrowers": []}

    def forecast(self, question: dict[str, Any], patience_s: float) -> dict[str, Any]:  # Any: JSON
        raise ControlError("busy", "There is no forecasting process here.")

    def reason(self, job_id: str) -> Reason | None:
        return Reason(ReasonCode.INSUFFICIENT_FREE)

    def position(self, job_id: str) -> int | None:
        return 1

    def standings(self, job_ids: Sequence[str]) -> dict[str, tuple[Reason | None, int | None]]:
        return {job_id: (self.reason(job_id), self.position(job_id)) for job_id in job_ids}

    def explain(self, job_id: str, patience_s: float = 0.0) -> dict[str, Any]:  # Any: JSON
        return {"job_id": job_id, "state": "queued", "code": "InsufficientFree", "sentence": "both are taken", "facts": {},
                "blockers": [], "remedies": [], "checks": [], "position": 1, "as_of": "2026-01-01T00:00:00Z"}  # fmt: skip

    def whatif_submit(self, entry: JobSubmitted) -> dict[str, Any]:  # Any: JSON
        return {"fits": True, "starts_now": True, "reason": None, "remedies": []}

    def cluster(self) -> dict[str, Any]:  # Any: JSON
        slots = [
            {"id": f"n1/{device}", "device": device, "state": "free", "job": None, "utilization": None}
            for device in range(2)
        ]
        node = {"id": "n1", "ip": "127.0.0.1", "flavor": "gpu", "state": "up", "slots": slots, "cpu_milli": 8000,
                "memory_bytes": 2**34, "labels": {}}  # fmt: skip
        return {"nodes": [node], "bridge": {"up": True, "pid": 1}}

    def queue_usage(self) -> list[dict[str, Any]]:  # Any: JSON
        return [{"name": "default", "parent": None, "quota": {"gpu": 2}, "used": {}, "running": 0, "waiting": 1}]

    def logs(self, job_id: str, offset: int = 0) -> tuple[str, int]:
        data = self.log.encode()
        return data[offset:].decode(), len(data)

    def doctor(self) -> list[dict[str, Any]]:  # Any: JSON
        return []


class InProcess:
    """A `Transport` into the application, on an event loop of its own."""

    def __init__(self, app: FastAPI, url: str) -> None:
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url=url)

    def send(self, request: Request) -> Response:
        call = self._client.request(
            request.method, request.path, headers=dict(request.headers), content=_content(request)
        )
        told = self._runner.run(call)
        return Response(told.status_code, dict(told.headers), told.content)

    def stream(self, request: Request) -> Stream:
        told = self.send(request)
        return _Told(told.status, told.headers, told.body)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


def _content(request: Request) -> bytes | None:
    return request.body or (None if request.source is None else request.source.read_bytes())


class _Told:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    def lines(self) -> Iterator[str]:
        yield from self._body.decode().split("\n")

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
