"""A control plane with endpoints, without Ray, sockets or real time: the plant of the control tests, a fake Serve, the service."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heliostat.access import Principal, Role
from heliostat.artifacts import ArtifactFolders
from heliostat.control.endpoint_link import LoopLink
from heliostat.endpoints import Actor, DeployRequest, KeyRequest, deploying, keys, removing, rows, scaling, traffic
from heliostat.endpoints.keys import OwnKeys
from heliostat.endpoints.render import Folders
from heliostat.endpoints.serve_rest import ServeUnreachable
from heliostat.endpoints.service import EndpointService, Parts
from heliostat.endpoints.smoke import SmokeDesk, SmokeRequest
from heliostat.endpoints.writer import HttpOptions
from heliostat.queuefile import parse
from heliostat.store.endpoint_tables import Deployment, Endpoint, EndpointKey
from heliostat.store.inserting import insert_row
from heliostat.store.model_tables import Model, ModelVersion
from heliostat.submission import Capacity
from heliostat_serving.spec import version_label

from tests.platform.control.plant import Plant
from tests.platform.endpoints.fake_serve import FakeServe

SIGNATURE = {
    "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1, 2]}],
    "allow_nan": False,
}
TICK_MS = 300
ACTOR = Actor("ann")
ADMIN = Principal("tok-1", "ann", "*", Role.ADMIN)


class FixedHttp:
    def choose(self) -> HttpOptions:
        return HttpOptions()

    def last(self) -> HttpOptions:
        return HttpOptions()


class Link:
    """Posts into the plant's inbox of the moment."""

    def __init__(self, plant: ServingPlant) -> None:
        self._plant = plant

    def said(self, job: str, attempt: int, what: str, text: str) -> None:
        LoopLink(self._plant.inbox).said(job, attempt, what, text)

    def cancel(self, job: str) -> None:
        LoopLink(self._plant.inbox).cancel(job)

    def changed(self, job: str) -> None:
        LoopLink(self._plant.inbox).changed(job)


class ServingPlant(Plant):
    """smoke: what a smoke request is answered ("" is good)."""

    def __init__(self, folder: Path, *, gpus: int = 2, cpu_milli: int = 4_000) -> None:
        self.smoke: Callable[[SmokeRequest], str] = lambda request: ""
        self.smoked: list[tuple[str, int]] = []
        self.serve = FakeServe(lambda: self.cluster.now_ms)
        self._next_tick_ms = 0
        super().__init__(folder, gpus=gpus, cpu_milli=cpu_milli)
        self.settle()

    def restart_control(self) -> None:
        self._calls: list[Callable[[], None]] = []
        parts = Parts(
            store=self.store,
            rest=self.serve,
            control=Link(self),
            clock_ms=lambda: self.cluster.now_ms,
            http=FixedHttp(),
            own_keys=OwnKeys(self.folder / "own_key"),
            folders=Folders(self.folder / "serving"),
            log=lambda level, event, fields: self.logged.append((level, event, fields)),
        )
        self.service = EndpointService(parts, SmokeDesk(self._send, self._calls.append))
        self.serving = self.service
        super().restart_control()

    def _send(self, request: SmokeRequest) -> str:
        self.smoked.append((request.endpoint, request.number))
        return self.smoke(request)

    def settle(self) -> None:
        super().settle()
        for _ in range(10):
            calls, self._calls[:] = list(self._calls), []
            for call in calls:
                call()
            if not self.service.woken and self.cluster.now_ms < self._next_tick_ms:
                break
            self._next_tick_ms = self.cluster.now_ms + TICK_MS
            try:
                self.service.tick()
            except ServeUnreachable:
                break
            super().settle()
            if not self._calls and not self.service.woken:
                break

    # ---- doors ---------------------------------------------------------------------------------------------------------

    def register(self, model: str = "digits", version: int = 1, project: str = "default") -> None:
        def work(session: Any) -> None:
            if session.get(Model, (project, model)) is None:
                insert_row(session, Model, {"project": project, "name": model, "created_ms": 1, "created_by": "ann"})
            values = {
                "project": project, "model": model, "version": version, "sha256": f"{version:064x}", "format": "skops",
                "signature": SIGNATURE, "size_bytes": 1, "files": 1, "created_ms": 1,
            }  # fmt: skip
            insert_row(session, ModelVersion, values)

        self.store.write(work)

    def deploy(
        self, model: str = "digits:1", endpoint: str = "digits", who: Principal = ADMIN, **more: Any
    ) -> Deployment:
        around = self._around(who)
        ready = deploying.prepare(DeployRequest(endpoint=endpoint, model=model, **more), around)
        row = self.store.write(lambda session: deploying.store(session, ready))
        self.told(row.job)
        return row

    def _around(self, who: Principal = ADMIN) -> deploying.Surroundings:
        return deploying.Surroundings(
            principal=who,
            file=parse("queues: {default: {quota: unlimited}}"),
            capacity=Capacity(),
            folders=ArtifactFolders(str(self.folder / "artifacts")),
            now_ms=self.cluster.now_ms,
        )

    def scale(self, least: int, most: int, number: int = 1, endpoint: str = "digits") -> None:
        row = self.deployment(number, endpoint)

        def work(session: Any, found: Endpoint) -> None:
            scaling.scale(session, found, session.get_one(Deployment, row.id), least, most, self._around())

        self.change(work, endpoint)
        LoopLink(self.inbox).changed(row.job)

    def told(self, job: str) -> None:
        from heliostat.control.messages import JobTold

        self.inbox.post(JobTold(job, new=True))
        self.service.look()

    def change(self, work: Callable[[Any, Endpoint], Any], endpoint: str = "digits") -> Any:
        """A door's write about an endpoint."""
        done = self.store.write(lambda session: work(session, session.get_one(Endpoint, endpoint)))
        self.service.look()
        return done

    def weights(self, endpoint: str = "digits", **shares: int) -> None:
        parsed = traffic.parse(shares)
        self.change(lambda s, row: traffic.change(s, row, parsed, ACTOR, self.cluster.now_ms), endpoint)

    def rollback(self) -> None:
        self.change(lambda s, row: traffic.rollback(s, row, ACTOR, self.cluster.now_ms))

    def remove(self) -> None:
        self.change(lambda s, row: removing.remove_endpoint(s, row, ACTOR, self.cluster.now_ms))

    def key(self, name: str = "", **limits: Any) -> str:
        """The id of a new key."""
        request = KeyRequest(name, **limits)
        _, made = self.change(lambda s, row: keys.create(s, row, request, ACTOR, self.cluster.now_ms))
        return str(made.id)

    def revoke(self, key_id: str) -> None:
        def work(session: Any, row: Endpoint) -> None:
            keys.revoke(session, session.get_one(EndpointKey, key_id), row, ACTOR, self.cluster.now_ms)

        self.change(work)

    def wish(self, app: str, replicas: int) -> None:
        """What the version's policy leaves for us."""
        folder = self.folder / "serving" / "wishes"
        folder.mkdir(parents=True, exist_ok=True)
        body = {"app": app, "wish": replicas, "running": 1, "queued": 0, "at_ms": self.cluster.now_ms}
        (folder / f"{app}.json").write_text(json.dumps(body))

    def grant(self, app: str) -> int:
        """What the policy of an application was told last."""
        scaling = self.serve.apps[app].config["deployments"][0]["autoscaling_config"]
        return int(scaling["max_replicas"])

    # ---- looking -------------------------------------------------------------------------------------------------------

    def deployment(self, number: int = 1, endpoint: str = "digits") -> Deployment:
        with self.store.read() as session:
            return next(row for row in rows.deployments(session, endpoint, gone=True) if row.number == number)

    def endpoint(self, name: str = "digits") -> Endpoint | None:
        with self.store.read() as session:
            return rows.find(session, name)

    def reach(self, state: str, number: int = 1, endpoint: str = "digits") -> None:
        self.until(lambda: self.deployment(number, endpoint).state == state, f"v{number} to be {state}")

    def shares(self, endpoint: str = "digits") -> dict[str, int]:
        """What the gateway was told last, by version; only what has traffic."""
        targets = self.serve.user_config(f"gw-{endpoint}")["targets"]
        return {version_label(target["n"]): target["weight"] for target in targets if target["weight"]}

    def gateway_keys(self, endpoint: str = "digits") -> set[str]:
        return {key["id"] for key in self.serve.user_config(f"gw-{endpoint}")["keys"]}
