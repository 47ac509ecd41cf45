"""The front doors as one FastAPI application: /api/v1, Ray's Jobs API, health checks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from fastapi import FastAPI

from heliostat.api import (
    cluster_routes,
    endpoints_routes,
    events_routes,
    forecast_routes,
    jobs_routes,
    metrics_routes,
    model_uploads,
    models_routes,
    nodes_routes,
    packages_routes,
    problems,
    queues_routes,
    schema,
    tokens_routes,
)
from heliostat.api.counting import COUNTERS
from heliostat.api.doors import Doors
from heliostat.api.guard import Guard, GuardRules
from heliostat.api.idempotency import InFlight
from heliostat.api.options import DoorOptions
from heliostat.api.streams import Closing
from heliostat.control.port import ControlPort
from heliostat.endpoints.port import Endpoints
from heliostat.rayjobs import routes as ray_routes
from heliostat.settings import Settings
from heliostat.store import Store

DESCRIPTION = """Queues, jobs and GPUs of a Heliostat installation.

Errors are problem documents (RFC 9457) with a stable `code` and a `remedy`. `POST /api/v1/jobs` takes an `Idempotency-Key`."""


def create_app(
    store: Store,
    control: ControlPort,
    settings: Settings,
    *,
    options: DoorOptions | None = None,
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    endpoints: Endpoints | None = None,
) -> FastAPI:
    """The application. `app.state.closing.close()` ends its open streams (call it when the server is asked to stop)."""
    chosen = options or DoorOptions()
    closing = Closing()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        closing.close()

    app = FastAPI(
        title="Heliostat",
        version=cluster_routes.SERVER_VERSION,
        description=DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asked on each request, 10 % of a submission
    )
    app.state.doors = Doors(store, control, settings, chosen, clock_ms, endpoints)
    app.state.in_flight = InFlight()
    app.state.closing = closing
    problems.install(app)
    for router in (
        jobs_routes.router,
        queues_routes.router,
        tokens_routes.router,
        packages_routes.router,
        models_routes.router,
        model_uploads.router,
        endpoints_routes.router,
        events_routes.router,
        forecast_routes.router,
        cluster_routes.router,
        metrics_routes.router,
        nodes_routes.router,
        cluster_routes.health,
        ray_routes.router,
    ):
        app.include_router(router)
    schema.describe(app)
    app.add_middleware(Guard, rules=_rules(settings, chosen), observe=COUNTERS.observe)
    return app


def _rules(settings: Settings, options: DoorOptions) -> GuardRules:
    named = urlsplit(settings.url).hostname or ""
    hosts = {settings.host, named, *options.hosts} - {"", "0.0.0.0", "::"}
    bracketed = {f"[{host}]" if ":" in host else host.lower() for host in hosts}
    return GuardRules(
        hosts=GuardRules().hosts | bracketed, origins=frozenset(options.origins), body_bytes=options.body_bytes
    )
