"""The service with everything that it needs in a real installation."""

from __future__ import annotations

from collections.abc import Callable

from heliostat.endpoints.keys import OwnKeys
from heliostat.endpoints.render import Folders
from heliostat.endpoints.serve_rest import DashboardServe
from heliostat.endpoints.service import ControlLoop, EndpointService, Log, Parts
from heliostat.endpoints.smoke import SmokeDesk, send
from heliostat.endpoints.writer import HttpOptions
from heliostat.local.records import RayRecord
from heliostat.settings import Settings
from heliostat.store import Store

SERVE_PORT = 8000


def assemble(
    settings: Settings,
    store: Store,
    cluster: Callable[[], RayRecord | None],
    control: ControlLoop,
    clock_ms: Callable[[], int],
    log: Log,
) -> EndpointService:
    """cluster: the Ray cluster in use, or None."""

    def http() -> HttpOptions:
        record = cluster()
        return HttpOptions(port=record.ports.get("serve_http", SERVE_PORT) if record is not None else SERVE_PORT)

    folder = settings.home / "serving"
    parts = Parts(
        store=store,
        rest=DashboardServe(cluster),
        control=control,
        clock_ms=clock_ms,
        http=http,
        own_keys=OwnKeys(folder / "own_key"),
        folders=Folders(folder),
        log=log,
    )
    return EndpointService(parts, SmokeDesk(send))
