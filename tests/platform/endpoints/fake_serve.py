"""Ray Serve's REST without Ray: applications start, fail, drain and vanish on a virtual clock. Passes `serve_suite`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliostat.endpoints.serve_rest import Application, ServeRefused, ServeState, ServeUnreachable

START_MS, DRAIN_MS, RECONFIGURE_MS = 1_000, 500, 300


@dataclass
class FakeApp:
    config: dict[str, Any]  # Any: JSON
    since_ms: int
    declarative: bool = True
    deleting_ms: int | None = None
    started: bool = False
    broken: str = ""
    silent: bool = False
    loaded: dict[str, Any] = field(default_factory=dict)  # what its replicas have now


class FakeServe:
    """broken: application name -> traceback of a replica that cannot start."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self.running = False
        self.down = False
        self.apps: dict[str, FakeApp] = {}
        self.http: dict[str, Any] = {}
        self.broken: dict[str, str] = {}
        self.puts: list[dict[str, Any]] = []

    # ---- ServeRest -----------------------------------------------------------------------------------------------------

    def state(self) -> ServeState:
        if self.down:
            raise ServeUnreachable("Ray's dashboard does not answer.")
        self._pass_time()
        shown = {name: self._shown(name, app) for name, app in self.apps.items()}
        return ServeState(self.running, shown, dict(self.http), {"proxy_location": "EveryNode"} if self.running else {})

    def put(self, document: Mapping[str, Any]) -> None:
        if self.down:
            raise ServeUnreachable("Ray's dashboard does not answer.")
        self._pass_time()
        self._check(document)
        if not self.running:
            self.running, self.http = True, dict(document.get("http_options", {}))
        self.puts.append(copy.deepcopy(dict(document)))
        wanted = {app["name"]: dict(app) for app in document["applications"]}
        now = self._clock_ms()
        for name, config in wanted.items():
            self._apply(name, config, now)
        for name, app in self.apps.items():
            if name not in wanted and app.declarative and app.deleting_ms is None:
                app.deleting_ms = now

    # ---- faults and looking ----------------------------------------------------------------------------------------------

    def lose_everything(self) -> None:
        """The Ray head died: Serve and all of its applications are gone."""
        self.running, self.apps, self.http = False, {}, {}

    def stumble(self, name: str, text: str, *, silent: bool) -> None:
        """An application that runs fails, as when a health check fails while it is updated. silent: no replica answers now."""
        self.apps[name].broken, self.apps[name].silent = text, silent

    def recover(self, name: str) -> None:
        self.apps[name].broken, self.apps[name].silent = "", False

    def foreign(self, name: str, *, declarative: bool = True) -> None:
        config = {"name": name, "route_prefix": f"/{name}", "import_path": "other:app"}
        self.running, self.http = True, self.http or {"host": "127.0.0.1", "port": 8000}
        self.apps[name] = FakeApp(config, self._clock_ms() - START_MS, declarative, started=True, loaded=config)

    def user_config(self, app: str, deployment: str = "Gateway") -> dict[str, Any]:
        """What the replicas of a running application were told last."""
        self._pass_time()
        found = next(d for d in self.apps[app].loaded["deployments"] if d["name"] == deployment)
        return dict(found["user_config"])

    # ---- inside ----------------------------------------------------------------------------------------------------------

    def _check(self, document: Mapping[str, Any]) -> None:
        names = [app["name"] for app in document["applications"]]
        routes = [app["route_prefix"] for app in document["applications"] if app.get("route_prefix")]
        for what, values in (("names", names), ("route prefixes", routes)):
            if len(set(values)) != len(values):
                raise ServeRefused(f"Found duplicate application {what}.")

    def _apply(self, name: str, config: dict[str, Any], now: int) -> None:
        app = self.apps.get(name)
        same_code = app is not None and all(app.config.get(k) == config.get(k) for k in ("import_path", "args"))
        if app is None or app.deleting_ms is not None or not same_code:
            self.apps[name] = FakeApp(config, now, broken=self.broken.get(name, ""))
        else:
            app.config, app.since_ms = config, now if app.config != config else app.since_ms

    def _pass_time(self) -> None:
        now = self._clock_ms()
        for name, app in list(self.apps.items()):
            if app.deleting_ms is not None:
                if now - app.deleting_ms >= DRAIN_MS:
                    del self.apps[name]
            elif not app.broken and now - app.since_ms >= (RECONFIGURE_MS if app.started else START_MS):
                app.started, app.loaded = True, app.config

    def _shown(self, name: str, app: FakeApp) -> Application:
        late = self._clock_ms() - app.since_ms >= START_MS
        settled = app.loaded == app.config and app.started
        status = "DEPLOYING"
        if app.deleting_ms is not None:
            status = "DELETING"
        elif app.broken and late:
            status = "DEPLOY_FAILED"
        elif settled:
            status = "RUNNING"
        answers = app.started and not app.silent
        counts = {d["name"]: _replicas(d) if answers else 0 for d in app.config.get("deployments", [])}
        return Application(
            name=name,
            status=status,
            message=app.broken if status == "DEPLOY_FAILED" else "",
            declarative=app.declarative,
            config=copy.deepcopy(app.config) if app.declarative else {},
            replicas=counts,
            targets=dict(counts),
        )


def _replicas(deployment: Mapping[str, Any]) -> int:
    scaling = deployment.get("autoscaling_config")
    return int(scaling["min_replicas"] if scaling else deployment.get("num_replicas", 1))
