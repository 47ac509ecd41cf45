"""The service with everything that it needs in a real installation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heliostat.endpoints.keys import OwnKeys
from heliostat.endpoints.render import Folders
from heliostat.endpoints.serve_rest import DashboardServe
from heliostat.endpoints.service import ControlLoop, EndpointService, Log, Parts
from heliostat.endpoints.smoke import SmokeDesk, send
from heliostat.endpoints.writer import HttpOptions
from heliostat.local import ports
from heliostat.local.records import RayRecord
from heliostat.settings import Settings
from heliostat.store import Store

HOST = "127.0.0.1"


class FreePort:
    """127.0.0.1:8000, or another port where that one is taken; the same one again after a restart, if it is free then.

    It is chosen when Serve starts, not before: until then somebody else may take any port.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def choose(self) -> HttpOptions:
        port = self.last().port
        if not ports.is_free(port, HOST):
            port = ports.choose(("serve",), {})["serve"]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.write_text(f"{port}\n", encoding="ascii")
        return HttpOptions(HOST, port)

    def last(self) -> HttpOptions:
        try:
            return HttpOptions(HOST, int(self._path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            return HttpOptions(HOST)


def assemble(
    settings: Settings,
    store: Store,
    cluster: Callable[[], RayRecord | None],
    control: ControlLoop,
    clock_ms: Callable[[], int],
    log: Log,
) -> EndpointService:
    """cluster: the Ray cluster in use, or None."""
    folder = settings.home / "serving"
    parts = Parts(
        store=store,
        rest=DashboardServe(cluster),
        control=control,
        clock_ms=clock_ms,
        http=FreePort(folder / "port"),
        own_keys=OwnKeys(folder / "own_key"),
        folders=Folders(folder),
        log=log,
    )
    return EndpointService(parts, SmokeDesk(send))
