"""One step of every deployment. Pure: the world and what Serve shows go in, acts come out; the service carries them out.

The order of a deployment is kept here: grant, lend, PUT, verify, smoke request, weights. Nothing of Serve is believed but its own
answer: a version is checked when its application runs, ready when a request through the gateway was answered, and only then
has it traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heliostat_serving.spec import gateway_app, version_app

from heliostat.endpoints import patience
from heliostat.endpoints.names import version_label
from heliostat.endpoints.serve_rest import FAILED, RUNNING, Application, ServeState
from heliostat.endpoints.states import DeploymentState
from heliostat.endpoints.world import Grant, World
from heliostat.store.endpoint_tables import Deployment, Endpoint

S = DeploymentState
SMOKE_TRIES = 3
FORGOTTEN_MS = 3_000
"""After this every replica of a gateway has forgotten a version that was taken out of its configuration."""
HEARD_MS = 5_000
"""After this the control loop has heard that a job is broken, and ended it."""
UNHEARD_MS = 60_000
SILENT = "None of its replicas answers; Serve starts them anew"
STARTED, RESIZED, RELEASED, BROKEN = "started", "resized", "released", "broken"


@dataclass(frozen=True, slots=True)
class Move:
    """A deployment changes its state."""

    row: Deployment
    to: DeploymentState
    reason: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What is happening with it, without a change of state."""

    row: Deployment
    reason: str


@dataclass(frozen=True, slots=True)
class Say:
    """A word to the control loop about the attempt of a serving job: started, resized, released, broken (with why)."""

    job: str
    attempt: int
    what: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The serving job is not needed any more."""

    job: str


@dataclass(frozen=True, slots=True)
class TrySmoke:
    """Send a smoke request."""

    row: Deployment


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of a removed endpoint is left."""

    endpoint: Endpoint


Act = Move | Note | Say | Cancel | TrySmoke | Forget


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """ok, or what came instead. tries: how often it was tried."""

    ok: bool
    text: str = ""
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """What the service knows beside the world. smokes: by (endpoint, number, attempt). in_sync: Serve has the last document.

    faults: deployment id -> why it cannot stand in a document. silent_ms: by application that has failed, how long nobody answers.
    """

    smokes: Mapping[tuple[str, int, int], SmokeResult] = field(default_factory=dict)
    in_sync: bool = False
    faults: Mapping[int, str] = field(default_factory=dict)
    silent_ms: Mapping[str, int] = field(default_factory=dict)


def step(world: World, serve: ServeState, memory: Memory) -> list[Act]:
    acts: list[Act] = []
    for row in world.all_deployments():
        acts += _deployment(world, row, serve, memory)
    for endpoint in world.endpoints.values():
        empty = endpoint.removing_ms is not None and not world.deployments.get(endpoint.name)
        if empty and gateway_app(endpoint.name) not in serve.applications:
            acts.append(Forget(endpoint))
    return acts


def without_serve(world: World) -> list[Act]:
    """What can be said while Serve does not answer: whoever has no grant waits for one."""
    acts: list[Act] = []
    for row in world.all_deployments():
        grant, state = world.grant(row), S(row.state)
        if state in (S.WAITING, S.STARTING, S.CHECKING, S.READY) and not grant.ended and not grant.holds:
            acts += _waiting(row, state, grant)
    return acts


def _deployment(world: World, row: Deployment, serve: ServeState, memory: Memory) -> list[Act]:
    grant = world.grant(row)
    app = serve.applications.get(version_app(row.endpoint, row.number))
    acts: list[Act] = []
    if grant.asked_back and app is None:
        acts.append(Say(row.job, grant.attempt, RELEASED))
    if grant.state == "resizing" and app is not None and sum(app.replicas.values()) <= grant.tasks:
        acts.append(Say(row.job, grant.attempt, RESIZED))
    state = S(row.state)
    match state:
        case S.RETIRING:
            return acts + _retiring(world.now_ms, row, grant, app, serve, memory)
        case S.FAILED:
            return acts + _failed(world.now_ms, row, grant)
        case S.GONE:
            return acts
        case _:
            pass
    if grant.ended:
        reason, trace = _ended(grant)
        return [*acts, Move(row, S.FAILED, reason, trace)]
    if not grant.holds:
        return acts + _waiting(row, state, grant)
    if row.id in memory.faults:
        text = f"It cannot be served: {memory.faults[row.id]}"
        return [*acts, Say(row.job, grant.attempt, BROKEN, text), Move(row, S.FAILED, text, text)]
    match state:
        case S.WAITING:
            return [*acts, Move(row, S.STARTING, "Serve starts its replicas.")]
        case S.STARTING:
            return acts + _starting(row, grant, app)
        case S.CHECKING:
            return acts + _checking(world, row, grant, app, serve, memory)
        case _:
            return acts + _ready(row, grant, app, memory)


def _waiting(row: Deployment, state: DeploymentState, grant: Grant) -> list[Act]:
    """It has no grant now: the queue says why."""
    why = grant.message or f"Its serving job is {grant.state}."
    if state is not S.WAITING:
        return [Move(row, S.WAITING, why)]
    return [Note(row, why)] if row.reason != why else []


def _failed(now_ms: int, row: Deployment, grant: Grant) -> list[Act]:
    """It holds nothing. That its job is broken was said with the move; such a word may be lost with the process, or come too early."""
    age_ms = now_ms - row.state_since_ms
    if grant.ended or grant.state == "cancelling" or age_ms < HEARD_MS:
        return []
    if grant.holds and age_ms < UNHEARD_MS:
        return [Say(row.job, grant.attempt, BROKEN, row.reason)]
    return [Cancel(row.job)]


def _starting(row: Deployment, grant: Grant, app: Application | None) -> list[Act]:
    if app is None:
        return []
    if app.status == FAILED and not app.answers:
        return _broken(row, grant, app)
    if app.status == RUNNING:
        return [
            Say(row.job, grant.attempt, STARTED),
            Move(row, S.CHECKING, "Its replicas run; a smoke request is on its way."),
        ]
    told = _first_line(_trouble(app))
    return [Note(row, told)] if told and told != row.reason else []


def _checking(
    world: World, row: Deployment, grant: Grant, app: Application | None, serve: ServeState, memory: Memory
) -> list[Act]:
    if app is None or app.status != RUNNING:
        return [Move(row, S.STARTING, "Serve starts its replicas again.")]
    endpoint = world.endpoints[row.endpoint]
    gateway = serve.applications.get(gateway_app(row.endpoint))
    if endpoint.mode == "gateway":
        if gateway is not None and gateway.status == FAILED:
            return _gateway_failed(row, grant, gateway, memory)
        if gateway is None or gateway.status != RUNNING:
            return []
    if not memory.in_sync:
        return []  # the gateway does not know it yet
    result = memory.smokes.get((row.endpoint, row.number, grant.attempt))
    if result is None:
        return [TrySmoke(row)]
    if result.ok:
        return [Move(row, S.READY, f"{version_label(row.number)} answers.")]
    if result.tries < SMOKE_TRIES:
        return [TrySmoke(row)]
    text = f"Its smoke request failed {result.tries} times: {_first_line(result.text)}"
    return [Say(row.job, grant.attempt, BROKEN, text), Move(row, S.FAILED, text, result.text)]


def _gateway_failed(row: Deployment, grant: Grant, gateway: Application, memory: Memory) -> list[Act]:
    """Serve may yet bring it back; a version that waits for it says so, and gives up with it."""
    text = f"The endpoint's gateway does not start: {_last_line(_trouble(gateway))}"
    if memory.silent_ms.get(gateway.name, 0) < patience.GATEWAY_MS:
        return [Note(row, text)] if row.reason != text else []
    return [Say(row.job, grant.attempt, BROKEN, text), Move(row, S.FAILED, text, _trouble(gateway))]


def _ready(row: Deployment, grant: Grant, app: Application | None, memory: Memory) -> list[Act]:
    """Nothing to do while Serve has it. One that has vanished is put again; one that failed and stays silent has failed here too."""
    if app is None:
        return [Move(row, S.STARTING, "Serve has lost it; it is put again.")]
    silent_ms = memory.silent_ms.get(app.name)
    if silent_ms is not None and silent_ms >= patience.VERSION_MS:
        return _broken(row, grant, app)
    acts: list[Act] = [Say(row.job, grant.attempt, STARTED)] if grant.state == "starting" else []
    if silent_ms is not None and not row.reason.startswith(SILENT):
        acts.append(Note(row, f"{SILENT}: {_last_line(_trouble(app))}"))
    if app.answers and row.reason.startswith(SILENT):
        acts.append(Note(row, f"{version_label(row.number)} answers again."))
    return acts


def _retiring(
    now_ms: int, row: Deployment, grant: Grant, app: Application | None, serve: ServeState, memory: Memory
) -> list[Act]:
    """First the gateway forgets it, then its job ends, then Serve lets its replicas go, then it is gone."""
    if grant.ended:
        return [Move(row, S.GONE, "Nothing of it is left.")] if app is None else []
    gateway = serve.applications.get(gateway_app(row.endpoint))
    settled = gateway is None or (gateway.status != "DEPLOYING" and now_ms - row.state_since_ms >= FORGOTTEN_MS)
    return [Cancel(row.job)] if memory.in_sync and settled and grant.state != "cancelling" else []


def _broken(row: Deployment, grant: Grant, app: Application) -> list[Act]:
    trace = _trouble(app)
    reason = f"Its replica cannot start: {_last_line(trace)}"
    return [Say(row.job, grant.attempt, BROKEN, reason), Move(row, S.FAILED, reason, trace)]


def _ended(grant: Grant) -> tuple[str, str]:
    if grant.state == "cancelled":
        return "Its serving job was cancelled.", grant.error
    return f"Its serving job ended ({grant.state}): {_first_line(grant.error)}", grant.error


def _trouble(app: Application) -> str:
    """Everything that Serve tells about it."""
    parts = [app.message, *(text for text in app.messages.values() if text and text not in app.message)]
    return "\n".join(part for part in parts if part).strip()


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]


def _last_line(text: str) -> str:
    """The sentence of a traceback is its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "Serve does not say why."
