"""What all routes share: store, control plane, tokens, packages, the queue file in force, and the caller of each request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from heliostat.access import Action, Principal, Tokens, Unauthenticated
from heliostat.api.options import DoorOptions
from heliostat.api.problems import Problem, not_found
from heliostat.artifacts import ArtifactFolders, Artifacts
from heliostat.control.port import ControlPort
from heliostat.endpoints import uses
from heliostat.endpoints.port import Endpoints, Unattended
from heliostat.packages import Packages
from heliostat.queuefile import QueueFile, parse
from heliostat.registry import Registry
from heliostat.settings import Settings
from heliostat.store import Store, jobs, queuefiles
from heliostat.store.tables import Job
from heliostat.submission import Capacity, capacity_of

CAPACITY_S = 1.0


class Doors:
    def __init__(
        self,
        store: Store,
        control: ControlPort,
        settings: Settings,
        options: DoorOptions,
        clock_ms: Callable[[], int],
        endpoints: Endpoints | None = None,
    ) -> None:
        self.store = store
        self.control = control
        self.endpoints: Endpoints = endpoints or Unattended(settings.home / "serving" / "access")
        self.settings = settings
        self.options = options
        self.clock_ms = clock_ms
        self.tokens = Tokens(store, clock_ms)
        place = options.artifacts or str(settings.artifacts_dir)
        self.artifacts = Artifacts(place)
        self.registry = Registry(store, ArtifactFolders(place), options.models, uses=(uses,))
        self.packages = Packages(store, self.artifacts, options.packages, clock_ms)
        self._file: QueueFile | None = None
        self._capacity = (-CAPACITY_S, Capacity())

    def queue_file(self) -> QueueFile:
        """The queue file in force."""
        file = self._file
        if file is None:
            with self.store.read() as session:
                file = parse(queuefiles.current_text(session))
            self._file = file
        return file

    def queue_file_changed(self, file: QueueFile) -> None:
        self._file = file
        self._capacity = (-CAPACITY_S, Capacity())
        self.control.queues_changed()

    def capacity(self) -> Capacity:
        """What the cluster could give, at most a second old."""
        at, capacity = self._capacity
        if time.monotonic() - at > CAPACITY_S:
            capacity = capacity_of(self.control.cluster(), self.queue_file().pools)
            self._capacity = (time.monotonic(), capacity)
        return capacity

    async def capacity_now(self) -> Capacity:
        """As `capacity`; asks the control plane off the event loop."""
        at, capacity = self._capacity
        return await run_in_threadpool(self.capacity) if time.monotonic() - at > CAPACITY_S else capacity

    def job(self, job_id: str, principal: Principal) -> Job:
        """A job that the caller may see; everything else does not exist."""
        with self.store.read() as session:
            row = jobs.find(session, job_id)
        if row is None or not principal.sees(row.project):
            raise not_found(f"job {job_id}", "helio ps shows the jobs of your project.", "unknown_job")
        return row

    def authenticate(self, connection: HTTPConnection) -> Principal:
        """The caller of a request or WebSocket."""
        principal = self.tokens.authenticate(bearer(connection))
        if self.tokens.touch(principal):
            self.store.submit(lambda session: self.tokens.used(session, principal.token_id))
        return principal

    def still(self, connection: HTTPConnection) -> bool:
        """Whether the token of an open stream is still good: a revoked one ends it."""
        try:
            self.tokens.authenticate(bearer(connection))
        except Unauthenticated:
            return False
        return True


def bearer(connection: HTTPConnection) -> str:
    """The token of a request. Ray's clients behind proxies may use X-Ray-Authorization."""
    given = connection.headers.get("authorization") or connection.headers.get("x-ray-authorization") or ""
    scheme, _, token = given.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def doors_of(connection: HTTPConnection) -> Doors:
    return cast("Doors", connection.app.state.doors)


async def the_doors(request: Request) -> Doors:
    return doors_of(request)


async def the_caller(request: Request) -> Principal:
    return doors_of(request).authenticate(request)


TheDoors = Annotated[Doors, Depends(the_doors)]
Caller = Annotated[Principal, Depends(the_caller)]


def need(principal: Principal, action: Action) -> None:
    """Refuse a caller whose role may not do this."""
    if principal.may(action):
        return
    who = "an administrator of the platform" if action is Action.PLATFORM else f"a role that may {action}"
    raise Problem(
        403, "forbidden", f"A {principal.role} of project {principal.project} may not {action}.", f"Ask {who}."
    )


def request_id(request: Request) -> str:
    return str(request.state.request_id)
