"""From the world to the applications of Serve's document. Pure, and the same world always gives the same document.

A row that the data plane's specification refuses is left out and named, so that it fails alone: one document serves everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliostat_serving.spec import (
    Batching,
    DirectConfig,
    GatewayConfig,
    GatewaySpec,
    Key,
    Scale,
    Signature,
    SpecError,
    Target,
    VersionSpec,
    direct_application,
    gateway_application,
    version_app,
    version_application,
)

from heliostat.endpoints import traffic
from heliostat.endpoints.keys import OWN_KEY
from heliostat.endpoints.states import ROUTED, SERVED, DeploymentState
from heliostat.endpoints.world import World
from heliostat.store.endpoint_tables import Deployment, Endpoint, EndpointKey

GATEWAY_CPUS = 0.1


@dataclass(frozen=True, slots=True)
class Folders:
    """Where gateways leave what they count, and policies what they wish: below one folder of this installation."""

    root: Path

    def spool(self, endpoint: str) -> Path:
        return self.root / "spool" / endpoint

    def log(self, endpoint: str) -> Path:
        """The access log."""
        return self.root / "access" / f"{endpoint}.jsonl"

    @property
    def wishes(self) -> Path:
        return self.root / "wishes"


@dataclass(frozen=True, slots=True)
class Rendered:
    """applications: ours, by name. faults: deployment id -> why it cannot be served."""

    applications: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON
    faults: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Renderer:
    """own_key_sha256: endpoint -> hash of the platform's own key."""

    folders: Folders
    own_key_sha256: Mapping[str, str]

    def render(self, world: World) -> Rendered:
        done = Rendered()
        for name, endpoint in sorted(world.endpoints.items()):
            served = [row for row in world.deployments[name] if self._is_served(world, row)]
            for row in served:
                try:
                    done.applications.append(self._version(world, endpoint, row))
                except SpecError as error:
                    done.faults[row.id] = str(error)
            if endpoint.mode != "direct" and self._has_gateway(world, endpoint, served):
                done.applications.append(self._gateway(world, endpoint, done.faults))
        return done

    def _version(self, world: World, endpoint: Endpoint, row: Deployment) -> dict[str, Any]:  # Any: JSON
        spec, scale = _spec(row), self._scale(world, row)
        target = _target(world, row, 100)
        if endpoint.mode != "direct":
            return version_application(spec, scale)
        return direct_application(spec, scale, DirectConfig(**self._door(world, endpoint), targets=(target,)))

    def _is_served(self, world: World, row: Deployment) -> bool:
        state = DeploymentState(row.state)
        return (state in SERVED or state is DeploymentState.RETIRING) and world.grant(row).holds

    def _has_gateway(self, world: World, endpoint: Endpoint, served: Sequence[Deployment]) -> bool:
        """From the first version on; also while its versions wait for a grant again, so that callers are told so."""
        if endpoint.removing_ms is not None:
            return False
        once_ready = any(str(row.number) in endpoint.weights for row in world.deployments[endpoint.name])
        return once_ready or any(row.state in SERVED for row in served)

    def _gateway(self, world: World, endpoint: Endpoint, faults: Mapping[int, str]) -> dict[str, Any]:  # Any: JSON
        rows = world.deployments[endpoint.name]
        shares = traffic.effective(endpoint, rows)
        targets = tuple(
            _target(world, row, shares.get(row.number, 0))
            for row in rows
            if row.state in ROUTED and world.grant(row).holds and row.id not in faults
        )
        config = GatewayConfig(**self._door(world, endpoint), targets=targets)
        return gateway_application(GatewaySpec(endpoint.name, replicas=config.replicas, num_cpus=GATEWAY_CPUS), config)

    def _door(self, world: World, endpoint: Endpoint) -> dict[str, Any]:  # Any: fields of GatewayConfig
        own = Key(OWN_KEY, self.own_key_sha256[endpoint.name], pin=True, metered=False)
        return {
            "endpoint": endpoint.name,
            "keys": (own, *(_key(key) for key in world.keys.get(endpoint.name, ()))),
            "sticky": "key" if endpoint.settings.get("sticky") else "",
            "replicas": int(endpoint.settings.get("gateways", 1)),
            "spool_dir": str(self.folders.spool(endpoint.name)),
        }

    def _scale(self, world: World, row: Deployment) -> Scale:
        grant = world.grant(row).tasks
        if row.replicas_min == row.replicas_max:
            return Scale(floor=min(row.replicas_min, grant))
        return Scale(floor=row.replicas_min, ceiling=row.replicas_max, grant=grant, wish_dir=str(self.folders.wishes))


def _spec(row: Deployment) -> VersionSpec:
    rows, wait_ms = int(row.options.get("max_batch", 0)), float(row.options.get("batch_wait_ms", 0.0))
    batching = Batching(max_rows=rows or Batching().max_rows, wait_ms=wait_ms)
    return VersionSpec(
        endpoint=row.endpoint,
        n=row.number,
        model=row.model,
        model_version=row.model_version,
        artifact_uri=row.artifact_uri,
        sha256=row.sha256,
        signature=Signature.from_json(row.signature),
        batching=batching,
        num_cpus=row.cpu_milli / 1000,
        num_gpus=row.gpu_milli / 1000,
        memory_bytes=int(row.options.get("memory_bytes", 0)),
        allow_pickle=bool(row.options.get("allow_pickle", False)),
        direct=bool(row.options.get("direct", False)),
    )


def _target(world: World, row: Deployment, weight: int) -> Target:
    return Target(
        app=version_app(row.endpoint, row.number),
        n=row.number,
        model=row.model,
        model_version=row.model_version,
        signature=Signature.from_json(row.signature),
        weight=weight,
        aliases=world.aliases.get((row.project, row.model, row.model_version), ()),
    )


def _key(key: EndpointKey) -> Key:
    return Key(key.id, key.sha256, rate_per_s=key.rate_per_s, burst=key.burst, expires_ms=key.expires_ms, pin=key.pin)
