"""Ray Serve's declarative REST, as endpoints need it: read the whole state, put the whole document. With Ray's token.

A PUT starts Serve where it does not run. It answers before anything is rolled out, and it deletes every application that it
does not name, which is why there is exactly one writer (`writer.py`). `ServeRest` is the port; `DashboardServe` speaks to a
dashboard; the tests' fake passes the same conformance suite.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from heliostat.local.records import RayRecord

PATH = "/api/serve/applications/"
TIMEOUT_S = 30.0
RUNNING = "RUNNING"
ANSWERING = frozenset({"RUNNING", "UPDATING"})
"""States of replicas that answer: one that takes a changed configuration in goes on meanwhile."""
FAILED = "DEPLOY_FAILED"


class ServeUnreachable(Exception):
    """No answer, or one that says: later."""


class ServeRefused(Exception):
    """Serve does not take this document; the text says why."""


@dataclass(frozen=True, slots=True)
class Application:
    """One application as Serve shows it. config: what was put for it. replicas: by deployment, those that run.

    status: NOT_STARTED, DEPLOYING, RUNNING, DEPLOY_FAILED, UNHEALTHY, DELETING. targets: replicas that Serve wants.
    """

    name: str
    status: str
    message: str
    declarative: bool
    config: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    replicas: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)
    actors: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether any replica does."""
        return any(self.replicas.values())


@dataclass(frozen=True, slots=True)
class ServeState:
    """running: there is a controller. head: options of the whole instance as they are now."""

    running: bool
    applications: Mapping[str, Application] = field(default_factory=dict)
    http: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON


class ServeRest(Protocol):
    def state(self) -> ServeState:
        """Raises ServeUnreachable."""
        ...

    def put(self, document: Mapping[str, Any]) -> None:  # Any: JSON
        """Make this the whole of what was declared. Raises ServeUnreachable or ServeRefused."""
        ...


class DashboardServe:
    """cluster: the present Ray record, or None; it changes when a new head is started."""

    def __init__(self, cluster: Callable[[], RayRecord | None]) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._key = ("", "")

    def state(self) -> ServeState:
        reply = self._ask("GET")
        if not reply.is_success:
            raise ServeUnreachable(f"Serve's page answered {reply.status_code}: {_last_line(reply.text)}")
        return parse_state(reply.json())

    def put(self, document: Mapping[str, Any]) -> None:  # Any: JSON
        reply = self._ask("PUT", json=document)
        if reply.status_code == httpx.codes.BAD_REQUEST:
            raise ServeRefused(reply.text.strip()[:4000])
        if not reply.is_success:
            raise ServeUnreachable(f"Serve answered {reply.status_code}: {_last_line(reply.text)}")

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _ask(self, method: str, **options: Any) -> httpx.Response:  # Any: httpx's own options
        try:
            return self._connected().request(method, PATH, **options)
        except httpx.HTTPError as error:
            raise ServeUnreachable(f"Ray's dashboard does not answer: {error}") from error

    def _connected(self) -> httpx.Client:
        record = self._cluster()
        if record is None:
            raise ServeUnreachable("There is no Ray cluster now.")
        key = (record.dashboard_url, record.token_path)
        with self._lock:
            if self._client is None or self._key != key:
                if self._client is not None:
                    self._client.close()
                token = _token(record)
                self._client = httpx.Client(
                    base_url=record.dashboard_url,
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=TIMEOUT_S,
                    trust_env=False,
                )
                self._key = key
            return self._client


def parse_state(body: Mapping[str, Any]) -> ServeState:  # Any: JSON
    """The state in the answer of a GET."""
    controller = body.get("controller_info") or {}
    applications = {name: _application(name, shown) for name, shown in (body.get("applications") or {}).items()}
    kept = ("proxy_location", "grpc_options")
    return ServeState(
        running=bool(controller.get("actor_id")),
        applications=applications,
        http=body.get("http_options") or {},
        options={name: body[name] for name in kept if body.get(name) is not None},
    )


def _application(name: str, body: Mapping[str, Any]) -> Application:  # Any: JSON
    replicas, targets, messages, actors = {}, {}, {}, []
    for deployment, shown in (body.get("deployments") or {}).items():
        rows = shown.get("replicas") or []
        replicas[deployment] = sum(1 for replica in rows if replica.get("state") in ANSWERING)
        targets[deployment] = int(shown.get("target_num_replicas") or 0)
        messages[deployment] = str(shown.get("message") or "")
        actors += [str(replica["actor_id"]) for replica in rows if replica.get("actor_id")]
    return Application(
        name=name,
        status=str(body.get("status", "")),
        message=str(body.get("message") or ""),
        declarative=body.get("source", "declarative") == "declarative",
        config=body.get("deployed_app_config") or {},
        replicas=replicas,
        targets=targets,
        messages=messages,
        actors=tuple(sorted(actors)),
    )


def _token(record: RayRecord) -> str:
    try:
        return Path(record.token_path).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ServeUnreachable(f"Ray's token cannot be read: {error}") from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:2000] if lines else ""
