"""Ray's Jobs REST API, as the executor needs it: push packages, submit, look, stop, delete, fetch logs. Blocking, with the token.

`RayJobs` is the port; `DashboardJobs` speaks to a dashboard. All calls may be repeated: a submission id that Ray knows already
counts as submitted, an unknown one cannot be stopped or deleted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from heliostat.control.hands import Submission
from heliostat.control.messages import DriverInfo
from heliostat.local.records import RayRecord

TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 300.0


class RayUnreachable(Exception):
    """No answer, or one that says: later."""


class RayRefused(Exception):
    """Ray will never take this submission."""


class RayJobs(Protocol):
    def submit(self, submission: Submission) -> None:
        """Raises RayUnreachable or RayRefused."""
        ...

    def info(self, submission_id: str) -> DriverInfo | None:
        """None: Ray does not know it."""
        ...

    def stop(self, submission_id: str) -> None: ...

    def delete(self, submission_id: str) -> None: ...

    def logs(self, submission_id: str) -> str:
        """The driver's whole output so far, empty for an unknown one."""
        ...


class DashboardJobs:
    """cluster: the present Ray record, or None; it changes when a new head is started."""

    def __init__(self, cluster: Callable[[], RayRecord | None]) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._key = ("", "")

    def submit(self, submission: Submission) -> None:
        for name, path in submission.packages:
            self._push(name, path)
        body: dict[str, Any] = {  # Any: JSON
            "entrypoint": submission.entrypoint,
            "submission_id": submission.submission_id,
            "runtime_env": submission.runtime_env,
            "metadata": submission.metadata,
        }
        if submission.num_cpus:
            body["entrypoint_num_cpus"] = submission.num_cpus
            body["entrypoint_label_selector"] = submission.label_selector
        reply = self._ask("POST", "/api/jobs/", json=body)
        if not reply.is_success and f"submission_id {submission.submission_id} already exists" in reply.text:
            return
        if reply.status_code == httpx.codes.BAD_REQUEST:
            raise RayRefused(_last_line(reply.text))
        self._require_success(reply)

    def info(self, submission_id: str) -> DriverInfo | None:
        reply = self._ask("GET", f"/api/jobs/{quote(submission_id, safe='')}")
        if reply.status_code == httpx.codes.NOT_FOUND:
            return None
        body = self._require_success(reply).json()
        return DriverInfo(
            status=str(body["status"]),
            message=str(body.get("message") or ""),
            error_type=str(body.get("error_type") or ""),
            exit_code=body.get("driver_exit_code"),
        )

    def stop(self, submission_id: str) -> None:
        reply = self._ask("POST", f"/api/jobs/{quote(submission_id, safe='')}/stop")
        if reply.status_code != httpx.codes.NOT_FOUND:
            self._require_success(reply)

    def delete(self, submission_id: str) -> None:
        reply = self._ask("DELETE", f"/api/jobs/{quote(submission_id, safe='')}")
        if reply.status_code != httpx.codes.NOT_FOUND:
            self._require_success(reply)

    def logs(self, submission_id: str) -> str:
        reply = self._ask("GET", f"/api/jobs/{quote(submission_id, safe='')}/logs")
        if reply.status_code == httpx.codes.NOT_FOUND:
            return ""
        return str(self._require_success(reply).json().get("logs", ""))

    def get_json(self, path: str) -> dict[str, Any]:  # Any: JSON
        """Another page of the dashboard (telemetry)."""
        body: dict[str, Any] = self._require_success(self._ask("GET", path)).json()  # Any: JSON
        return body

    def tail_address(self, submission_id: str) -> tuple[str, dict[str, str]]:
        """URL and headers of the log's WebSocket."""
        record = self._require_cluster()
        base = record.dashboard_url.replace("http", "ws", 1)
        return f"{base}/api/jobs/{quote(submission_id, safe='')}/logs/tail", _headers(record)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _push(self, name: str, path: Path) -> None:
        url = f"/api/packages/gcs/{quote(name, safe='')}"
        if self._ask("GET", url).status_code == httpx.codes.OK:
            return
        self._require_success(self._ask("PUT", url, content=path.read_bytes(), timeout=UPLOAD_TIMEOUT_S))

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:  # Any: httpx's own options
        try:
            return self._connected().request(method, path, **options)
        except httpx.HTTPError as error:
            raise RayUnreachable(f"Ray's dashboard does not answer: {error}") from error

    def _connected(self) -> httpx.Client:
        record = self._require_cluster()
        key = (record.dashboard_url, record.token_path)
        with self._lock:
            if self._client is None or self._key != key:
                if self._client is not None:
                    self._client.close()
                self._client = httpx.Client(
                    base_url=record.dashboard_url, headers=_headers(record), timeout=TIMEOUT_S, trust_env=False
                )
                self._key = key
            return self._client

    def _require_cluster(self) -> RayRecord:
        record = self._cluster()
        if record is None:
            raise RayUnreachable("There is no Ray cluster now.")
        return record

    def _require_success(self, reply: httpx.Response) -> httpx.Response:
        if not reply.is_success:
            raise RayUnreachable(f"Ray answered {reply.status_code}: {_last_line(reply.text)}")
        return reply


def _headers(record: RayRecord) -> dict[str, str]:
    try:
        token = Path(record.token_path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise RayUnreachable(f"Ray's token cannot be read: {error}") from error
    return {"Authorization": f"Bearer {token}"}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:2000] if lines else ""
