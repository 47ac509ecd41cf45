"""Endpoints: deploy, look, call, split traffic, go back, remove. A handle of an endpoint asks anew where it says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

from heliostat.client.asking import memory_bytes, seconds
from heliostat.client.listing import EndpointExplanation, Listing
from heliostat.client.prediction import Predictor, named
from heliostat.render.endpoints import endpoint_card, endpoint_table, key_table
from heliostat.wire.call import PATIENT, Caller, Retry, segment
from heliostat.wire.errors import BadRequest, ServiceError, WaitTimeout
from heliostat.wire.shapes import AccessJson, DeploymentJson, EndpointExplanationJson, EndpointJson, KeyJson, UsageJson

Replicas = int | str | tuple[int, int] | range
POLL_S = 0.5


def replica_range(replicas: Replicas) -> tuple[int, int]:
    """(least, most) of `2`, `"1..3"`, `(1, 3)` or `range(1, 4)`."""
    if isinstance(replicas, int):
        return replicas, replicas
    if isinstance(replicas, range):
        if replicas.step == 1 and len(replicas):
            return replicas.start, replicas.stop - 1
    elif isinstance(replicas, tuple):
        return replicas
    else:
        match = re.fullmatch(r"\s*(\d+)\s*(?:\.\.\s*(\d+)\s*)?", replicas)
        if match is not None:
            return int(match[1]), int(match[2] or match[1])
    raise BadRequest(f"replicas: {replicas!r} is no number of replicas.", remedy="Write 2, or a range such as 1..3.")


class Endpoint:
    """One endpoint, as of the last answer. `key` is what calls are made with."""

    def __init__(self, endpoints: Endpoints, data: EndpointJson, key: str = "") -> None:
        self._endpoints = endpoints
        self._data = data
        self._key = key
        self._predictor: Predictor | None = None
        self.deployed = ""
        """The version that `deploy` made and `wait_ready` waits for; "" for an endpoint that was only read."""

    @property
    def name(self) -> str:
        return self._data["name"]

    @property
    def url(self) -> str:
        return self._data["url"]

    @property
    def state(self) -> str:
        """`ready` when somebody answers; else what its newest version does."""
        return self._data["state"]

    @property
    def deployments(self) -> list[DeploymentJson]:
        return self._data["deployments"]

    @property
    def weights(self) -> dict[str, int]:
        return self._data["weights"]

    @property
    def data(self) -> EndpointJson:
        """The API's document."""
        return self._data

    def predict(
        self, inputs: Any, *, version: str = "", fresh_key: bool = False
    ) -> dict[str, Any]:  # Any: arrays, nested lists; JSON
        """Outputs by name. inputs: by name, or the array itself for a model with one input.

        fresh_key: the key was made a moment ago; its gateway may not know it for a second.
        The call is repeated where a gateway died or asks for patience: a prediction changes nothing.
        """
        given = inputs if isinstance(inputs, Mapping) else named(inputs, self._signature())
        answer = self._calls().predict(given, version=version, fresh_key=fresh_key)
        return cast("dict[str, Any]", answer["outputs"])  # Any: JSON

    def wait_ready(
        self,
        timeout: float | str | timedelta | None = None,
        *,
        version: str = "",
        told: Callable[[str], None] | None = None,
    ) -> Self:
        """Until this version is ready: the one that was deployed, or the newest. Raises ServiceError with the reason when it failed."""
        version = version or self.deployed
        patience_s, caller = seconds(timeout, "timeout"), self._endpoints.caller
        until = None if patience_s is None else caller.now() + patience_s
        last = ""
        while True:
            self.refresh(PATIENT)
            found = [d for d in self.deployments if d["version"] == version] if version else self.deployments[-1:]
            if found and found[0]["state"] == "ready":
                return self
            if not found or found[0]["state"] in ("failed", "retiring"):
                raise _not_served(self.name, found[0] if found else None)
            line = ": ".join(filter(None, (f"{found[0]['version']} {found[0]['state']}", found[0]["reason"])))
            if told is not None and line != last:
                told(line)
            last = line
            if until is not None and caller.now() > until:
                raise WaitTimeout(f"{self.name} is not ready yet: {line}", remedy=f"helio endpoint show {self.name}")
            caller.pause(POLL_S)

    def traffic(self, weights: Mapping[str, int]) -> Self:
        """Split between versions that are ready: `{"v1": 90, "v2": 10}`."""
        self._data = self._endpoints.traffic(self.name, weights)
        return self

    def scale(self, replicas: Replicas, version: str = "") -> Self:
        """Another number of replicas of a version (default: the newest that lives): `3`, or a range for its load to choose from, `"1..3"`."""
        living = [row for row in self.deployments if row["state"] not in ("failed", "retiring")] or self.deployments
        label = version or (living[-1]["version"] if living else "v1")
        self._data = self._endpoints.scale(self.name, label, replicas)
        return self

    def rollback(self) -> Self:
        """Back to the split before the last change."""
        self._data = self._endpoints.rollback(self.name)
        return self

    def explain(self) -> EndpointExplanation:
        """Why its versions have the replicas that they have, who holds what is missing, and what would help."""
        return EndpointExplanation(self._endpoints.explain(self.name))

    def create_key(self, name: str = "", **limits: Any) -> KeyJson:  # Any: as Endpoints.create_key
        """A key of this endpoint; the handle uses it from now on when it had none."""
        made = self._endpoints.create_key(self.name, name, **limits)
        if not self._key:
            self._key = made["key"]
        return made

    def logs(self, limit: int = 100) -> list[AccessJson]:
        return self._endpoints.logs(self.name, limit)

    def usage(self, hours: int = 24) -> list[UsageJson]:
        return self._endpoints.usage(self.name, hours)

    def remove(self, version: str = "") -> None:
        """Remove the endpoint, or one of its versions that has no traffic."""
        self._endpoints.remove(self.name, version)

    def refresh(self, retry: Retry = Retry()) -> Self:  # noqa: B008 - frozen
        self._data = self._endpoints.read(self.name, retry)
        return self

    def __repr__(self) -> str:
        return f"<Endpoint {self.name} {self.state} {self.url}>"

    def __str__(self) -> str:
        return endpoint_card(self._data, datetime.now(UTC))

    def _calls(self) -> Predictor:
        if not self._key:
            remedy = f"heliostat.endpoint('{self.name}', key='hk_...'), or make one: endpoint.create_key()"
            raise BadRequest(f"No key of endpoint {self.name} was given.", code="key_missing", remedy=remedy)
        if self._predictor is None:
            self._predictor = Predictor(self.url, self._key)
        return self._predictor

    def _signature(self) -> dict[str, Any]:  # Any: JSON
        """Of a version that has traffic."""
        ready = [d for d in self.deployments if d["state"] == "ready"]
        if not ready:
            self.refresh()
            ready = [d for d in self.deployments if d["state"] == "ready"]
        return max(ready, key=lambda d: d["share"])["signature"] if ready else {}


class Endpoints:
    """The calls under /endpoints and /keys. project "": the token's own."""

    def __init__(self, caller: Caller, project: str = "") -> None:
        self.caller = caller
        self._project = project

    def deploy(
        self,
        model: str,
        endpoint: str,
        *,
        replicas: Replicas = 1,
        gpus: float = 0,
        cpus: float | None = None,
        memory: int | str | None = None,
        weight: int | None = None,
        direct: bool = False,
        sticky: bool | None = None,
        gateways: int | None = None,
        queue: str | None = None,
        priority: str | int | None = None,
        preemptibility: str | None = None,
        flavor: str | None = None,
        max_batch: int | None = None,
        batch_wait_ms: float | None = None,
        key: str = "",
    ) -> Endpoint:
        """Serve a registered version. Returns at once; `wait_ready` waits."""
        least, most = replica_range(replicas)
        asked: dict[str, object] = {
            "model": model,
            "project": self._project,
            "replicas_min": least,
            "replicas_max": most,
            "gpus": gpus,
            "cpus": cpus,
            "memory_bytes": memory_bytes(memory),
            "weight": weight,
            "direct": direct,
            "sticky": sticky,
            "gateways": gateways,
            "queue": queue,
            "priority": priority,
            "preemptibility": preemptibility,
            "flavor": flavor,
            "max_batch": max_batch,
            "batch_wait_ms": batch_wait_ms,
        }
        body = {name: value for name, value in asked.items() if value is not None}
        if "/" in endpoint:  # no path can carry it
            raise BadRequest(
                f"{endpoint!r} is no name of an endpoint.", remedy="Lower-case letters, digits and hyphens, up to 40."
            )
        made = self.caller.json("POST", f"/endpoints/{segment(endpoint)}/deployments", body)
        found = self.get(endpoint, key)
        found.deployed = made["version"]  # somebody else may have deployed meanwhile
        return found

    def ls(self) -> Listing[EndpointJson]:
        items = self.caller.json("GET", "/endpoints")["items"]
        empty = "No endpoints. Make one with: heliostat.deploy('digits@latest', 'digits')"
        return Listing(items, lambda rows: endpoint_table(rows, datetime.now(UTC)), empty)

    def get(self, name: str, key: str = "") -> Endpoint:
        return Endpoint(self, self.read(name), key)

    def read(self, name: str, retry: Retry = Retry()) -> EndpointJson:  # noqa: B008 - frozen
        return cast("EndpointJson", self.caller.json("GET", f"/endpoints/{segment(name)}", retry=retry))

    def traffic(self, name: str, weights: Mapping[str, int]) -> EndpointJson:
        body = {"weights": dict(weights)}
        return cast("EndpointJson", self.caller.json("PUT", f"/endpoints/{segment(name)}/traffic", body))

    def scale(self, name: str, version: str, replicas: Replicas) -> EndpointJson:
        least, most = replica_range(replicas)
        path = f"/endpoints/{segment(name)}/deployments/{segment(version)}"
        body = {"replicas_min": least, "replicas_max": most}
        return cast("EndpointJson", self.caller.json("PATCH", path, body))

    def rollback(self, name: str) -> EndpointJson:
        return cast("EndpointJson", self.caller.json("POST", f"/endpoints/{segment(name)}/rollback"))

    def explain(self, name: str, wait: float = 10.0) -> EndpointExplanationJson:
        path = f"/endpoints/{segment(name)}/explanation"
        return cast("EndpointExplanationJson", self.caller.json("GET", path, query={"wait_s": wait}))

    def remove(self, name: str, version: str = "") -> EndpointJson:
        path = f"/endpoints/{segment(name)}" + (f"/deployments/{segment(version)}" if version else "")
        return cast("EndpointJson", self.caller.json("DELETE", path))

    def logs(self, name: str, limit: int = 100) -> list[AccessJson]:
        return self.read_log(name, limit)[0]

    def read_log(self, name: str, limit: int = 100, after: str = "") -> tuple[list[AccessJson], str]:
        """Lines of the access log and the place behind them; with `after` that place, the lines since then, each once."""
        query = {"limit": limit, "after": after or None}
        found = self.caller.json("GET", f"/endpoints/{segment(name)}/logs", query=query)
        return cast("list[AccessJson]", found["items"]), str(found["next"])

    def usage(self, name: str, hours: int = 24) -> list[UsageJson]:
        found = self.caller.json("GET", f"/endpoints/{segment(name)}/usage", query={"hours": hours})
        return cast("list[UsageJson]", found["items"])

    def create_key(
        self,
        endpoint: str,
        name: str = "",
        *,
        rate: float | None = None,
        burst: int | None = None,
        expires: float | str | timedelta | None = None,
        pin: bool = False,
    ) -> KeyJson:
        """A key; its text is in `["key"]` and can never be read again. rate: calls per second. expires: from now.

        pin: may name a version that has no traffic, to try it (`predict(..., version="v2")`).
        """
        asked = {
            "name": name, "rate_per_s": rate, "burst": burst, "expires_s": seconds(expires, "expires"), "pin": pin or None,
        }  # fmt: skip
        body = {field: value for field, value in asked.items() if value is not None}
        return cast("KeyJson", self.caller.json("POST", f"/endpoints/{segment(endpoint)}/keys", body))

    def keys(self, endpoint: str = "") -> Listing[KeyJson]:
        path = f"/endpoints/{segment(endpoint)}/keys" if endpoint else "/keys"
        return Listing(
            self.caller.json("GET", path)["items"], lambda rows: key_table(rows, datetime.now(UTC)), "no keys"
        )

    def revoke_key(self, key_id: str) -> None:
        """Its endpoint refuses it within 5 seconds."""
        self.caller.json("DELETE", f"/keys/{segment(key_id)}")


def _not_served(name: str, row: DeploymentJson | None) -> ServiceError:
    if row is None:
        return ServiceError(f"Endpoint {name} has no such version.", code="unknown_deployment")
    text = f"{row['version']} of endpoint {name} is {row['state']}: {row['reason']}"
    return ServiceError(text, code=f"deployment_{row['state']}", remedy=f"The whole story: helio endpoint show {name}")
