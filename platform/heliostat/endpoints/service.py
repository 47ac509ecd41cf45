"""The service: one thread that keeps Serve what the store says, and moves deployments on. Nothing of it is lost with the process.

A tick reads the world and Serve's state, brings Serve's document in line, lets `steps` say what follows, and carries that out. It
ticks at once when it is woken (a door changed something, the control loop granted or asked back, a smoke request came back),
often while something is on its way, and every 10 s otherwise: then it only compares and repairs.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, assert_never

from heliostat_scheduler.core.lifecycle import JobState
from sqlalchemy.orm import Session

from heliostat.endpoints import removing, rows, traffic, world
from heliostat.endpoints.keys import OwnKeys, hash_of
from heliostat.endpoints.patience import Patience
from heliostat.endpoints.render import Folders, Renderer
from heliostat.endpoints.serve_rest import Application, ServeRefused, ServeRest, ServeState, ServeUnreachable
from heliostat.endpoints.smoke import SmokeDesk, SmokeRequest
from heliostat.endpoints.states import DeploymentState, IllegalDeploymentMove
from heliostat.endpoints.steps import Act, Cancel, Forget, Memory, Move, Note, Say, TrySmoke, step, without_serve
from heliostat.endpoints.usage import Collector
from heliostat.endpoints.wishes import Calm, wish_of
from heliostat.endpoints.world import World
from heliostat.endpoints.writer import HttpOptions, Writer
from heliostat.store import Store, StoreUnavailable, moves
from heliostat.store.endpoint_tables import Deployment, Endpoint

BUSY_S = 0.3
COLLECT_S = 2.0
IDLE_S = 10.0
SCALING_S = 2.0
TROUBLED_S = 2.0
Log = Callable[[str, str, dict[str, Any]], None]  # level, event name, fields; Any: JSON
RESTING = frozenset({DeploymentState.READY, DeploymentState.FAILED})


class HttpChoice(Protocol):
    """Where Serve's HTTP is to listen."""

    def choose(self) -> HttpOptions:
        """For a Serve that is about to be started."""
        ...

    def last(self) -> HttpOptions:
        """What was chosen last."""
        ...


class ControlLoop(Protocol):
    """The control loop, as the service speaks to it."""

    def said(self, job: str, attempt: int, what: str, text: str) -> None: ...

    def cancel(self, job: str) -> None:
        """End a serving job; one that has ended already is left alone."""
        ...

    def changed(self, job: str) -> None:
        """What a serving job asks for has changed in the store."""
        ...


@dataclass(slots=True)
class Parts:
    """What a service is made of; tests put fakes here."""

    store: Store
    rest: ServeRest
    control: ControlLoop
    clock_ms: Callable[[], int]
    http: HttpChoice
    own_keys: OwnKeys
    folders: Folders
    log: Log


class EndpointService:
    def __init__(self, parts: Parts, smokes: SmokeDesk) -> None:
        self.parts = parts
        self.smokes = smokes
        smokes.done = self.look
        self.trouble = ""
        self.state = ServeState(running=False)
        self.collector = Collector(parts.store, parts.folders, parts.clock_ms, parts.log)
        self._writer = Writer(parts.rest, parts.http.choose)
        self._in_sync = False
        self._calm = Calm()
        self._patience = Patience()
        self._names: list[str] = []
        self._wake = threading.Event()

    def look(self) -> None:
        """Something has changed: tick soon. From any thread."""
        self._wake.set()

    @property
    def woken(self) -> bool:
        return self._wake.is_set()

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                wait_s = self.tick()
            except (ServeUnreachable, StoreUnavailable) as error:
                self._troubled(str(error))
                wait_s = TROUBLED_S
            except ServeRefused as error:
                self._troubled(str(error))
                wait_s = IDLE_S
            except Exception:  # noqa: BLE001  (a bug: told; the next tick reads everything anew)
                self._troubled(traceback.format_exc())
                wait_s = TROUBLED_S
            if wait_s == TROUBLED_S:
                stop.wait(0.2)  # somebody may keep waking us while Ray is away
            self._rest(wait_s, stop)
        self.smokes.close()

    def _rest(self, seconds: float, stop: threading.Event) -> None:
        """Until the next tick is due, or we are woken or stopped; what gateways count is taken in meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._wake.wait(min(left, COLLECT_S)):
            if stop.is_set():
                return
            try:
                self.collector.collect(self._names)
            except (StoreUnavailable, OSError) as error:
                self._troubled(str(error))
            except Exception:  # noqa: BLE001  (a bug: told; endpoints move on without it)
                self._troubled(traceback.format_exc())

    def tick(self) -> float:
        """Seconds until the next one is due by itself."""
        self._wake.clear()
        now_ms = self.parts.clock_ms()
        seen = self._read(now_ms)
        self._names = sorted(seen.endpoints)
        if not seen.endpoints and not self.state.applications:
            return IDLE_S
        try:
            self.state = self.parts.rest.state()
        except ServeUnreachable:
            for act in without_serve(seen):
                self._carry_out(act, seen, now_ms)
            raise
        rendered = self._renderer(seen).render(seen)
        self._in_sync = self._writer.bring(rendered.applications, self.state, now_ms)
        self._follow_wishes(seen, now_ms)
        silent_ms = self._patience.look(self.state, now_ms)
        acts = step(seen, self.state, Memory(dict(self.smokes.results), self._in_sync, rendered.faults, silent_ms))
        self._forget_smokes(seen)
        for act in acts:
            self._carry_out(act, seen, now_ms)
        if self.trouble:
            self.parts.log("info", "endpoints_recovered", {})
        self.trouble = ""
        changed = any(isinstance(act, Move | Forget) for act in acts)
        if changed:
            self.look()
        if changed or self._busy(seen):
            return BUSY_S
        return SCALING_S if any(row.replicas_min != row.replicas_max for row in seen.all_deployments()) else IDLE_S

    def application(self, name: str) -> Application | None:
        """As Serve showed it last."""
        return self.state.applications.get(name)

    def log_path(self, endpoint: str) -> Path:
        return self.parts.folders.log(endpoint)

    def base_url(self) -> str:
        """Where Serve's HTTP answers."""
        shown = self.state.http
        if not shown:
            return self.parts.http.last().url
        return HttpOptions(str(shown["host"]), int(shown["port"])).url

    # ---- inside ----------------------------------------------------------------------------------------------------------

    def _read(self, now_ms: int) -> World:
        with self.parts.store.read() as session:
            return world.read(session, now_ms)

    def _renderer(self, seen: World) -> Renderer:
        own = {name: hash_of(self.parts.own_keys.text(name)) for name in seen.endpoints}
        return Renderer(self.parts.folders, own)

    def _busy(self, seen: World) -> bool:
        """Whether something is on its way that nobody would wake us for."""
        moving = any(
            (row.state not in RESTING or seen.grant(row).state is JobState.RESIZING)
            and seen.grant(row).state not in (JobState.QUEUED, JobState.HELD)
            for row in seen.all_deployments()
        )
        removing_one = any(endpoint.removing_ms is not None for endpoint in seen.endpoints.values())
        asked_back = any(grant.asked_back for grant in seen.grants.values())
        return not self._in_sync or moving or removing_one or asked_back

    def _carry_out(self, act: Act, seen: World, now_ms: int) -> None:
        match act:
            case Move():
                self.parts.store.write(lambda session: self._move(session, act, now_ms))
            case Note():
                self.parts.store.write(lambda session: self._note(session, act))
            case Say():
                self.parts.control.said(act.job, act.attempt, act.what, act.text)
            case Cancel():
                self.parts.control.cancel(act.job)
            case TrySmoke():
                self._smoke(act.row, seen)
            case Forget():
                self.collector.finish(act.endpoint.name)  # before the row goes: whose usage it is stands there
                self.parts.store.write(lambda session: self._forget(session, act.endpoint.name, now_ms))
            case _:
                assert_never(act)

    def _move(self, session: Session, act: Move, now_ms: int) -> None:
        """Guarded by the state it was decided on: somebody else may have been faster."""
        row = session.get(Deployment, act.row.id)
        if row is None or row.state != act.row.state:
            return
        try:
            rows.move(session, row, act.to, now_ms, reason=act.reason, trace=act.trace)
        except IllegalDeploymentMove as error:
            self.parts.log("error", "deployment_move_refused", {"text": str(error)})
            return
        if act.to is DeploymentState.READY:
            self._take_traffic(session, row, now_ms)

    def _follow_wishes(self, seen: World, now_ms: int) -> None:
        """A version that wants another number of replicas asks for it through its serving job."""
        for row in seen.all_deployments():
            if row.state != DeploymentState.READY or not seen.grant(row).holds:
                continue
            wish = wish_of(row, self.parts.folders.wishes, now_ms)
            wish = self._calm.steadied(row.id, row.wish, wish, now_ms)
            if wish != row.wish:
                self.parts.store.write(partial(self._ask_for, deployment=row.id, wish=wish, now_ms=now_ms))
                self.parts.control.changed(row.job)

    def _ask_for(self, session: Session, deployment: int, wish: int, now_ms: int) -> None:
        row = session.get_one(Deployment, deployment)
        data = {"max_tasks": wish, "from": row.wish}
        row.wish = wish
        session.flush()
        moves.change(
            session, row.job, kind="job_changed", actor=rows.SYSTEM.user, now_ms=now_ms, data=data, max_tasks=wish
        )

    def _take_traffic(self, session: Session, row: Deployment, now_ms: int) -> None:
        """What its deployment asked for, once."""
        endpoint = session.get_one(Endpoint, row.endpoint)
        deployments = rows.deployments(session, endpoint.name)
        why = traffic.overtaken(endpoint, row, deployments)
        if why:
            row.plan = {}
            rows.note(session, row, why)
            return
        weights = traffic.plan_for(endpoint, row, deployments)
        if weights is None:
            return
        row.plan = {}
        session.flush()
        rows.set_weights(session, endpoint, weights, rows.SYSTEM, now_ms, action="traffic_changed")
        removing.retire_superseded(session, endpoint, now_ms)

    def _note(self, session: Session, act: Note) -> None:
        row = session.get(Deployment, act.row.id)
        if row is not None and row.state == act.row.state:
            rows.note(session, row, act.reason)

    def _forget(self, session: Session, name: str, now_ms: int) -> None:
        endpoint = session.get(Endpoint, name)
        if endpoint is not None and not rows.deployments(session, name):
            rows.forget(session, endpoint, now_ms)

    def _smoke(self, row: Deployment, seen: World) -> None:
        request = SmokeRequest(
            base_url=self.base_url(),
            endpoint=row.endpoint,
            number=row.number,
            model=row.model,
            signature=row.signature,
            key=self.parts.own_keys.text(row.endpoint),
        )
        self.smokes.ask((row.endpoint, row.number, seen.grant(row).attempt), request)

    def _forget_smokes(self, seen: World) -> None:
        """A result holds for one attempt, and only while the version is being checked."""
        keep = {
            (row.endpoint, row.number, seen.grant(row).attempt)
            for row in seen.all_deployments()
            if row.state == DeploymentState.CHECKING
        }
        self.smokes.forget(keep)

    def _troubled(self, text: str) -> None:
        if text != self.trouble:
            self.parts.log("warning", "endpoints_troubled", {"text": text})
        self.trouble = text
        self._in_sync = False
