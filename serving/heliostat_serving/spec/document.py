"""Entries of Serve's declarative document (PUT /api/serve/applications/), ready to send."""

from __future__ import annotations

from typing import Any  # Any: JSON of Serve's schema

from heliostat_serving.spec.door import DirectConfig, GatewayConfig
from heliostat_serving.spec.names import route
from heliostat_serving.spec.version import GatewaySpec, Scale, VersionSpec

DEPLOYMENT = "Version"
DIRECT_DEPLOYMENT = "Direct"
GATEWAY_DEPLOYMENT = "Gateway"
POLICY = "heliostat_serving.autoscaling:GrantedPolicy"
HEALTH = {"health_check_period_s": 2.0, "health_check_timeout_s": 10.0}
INGRESS_ONGOING = 1000
"""Slow clients sit in Serve's count of ongoing requests, so the ingress keeps its own limit (`Limits.max_in_flight`)."""


def version_application(spec: VersionSpec, scale: Scale) -> dict[str, Any]:
    """The application of one version behind a gateway."""
    deployment = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": spec.max_ongoing_requests,
        "graceful_shutdown_timeout_s": 20.0,
        "ray_actor_options": _actor_options(spec),
        **HEALTH,
        **_replicas(spec.app, scale),
    }
    return _application(spec.app, None, "heliostat_serving.version_app:build", spec.to_json(), deployment)


def direct_application(spec: VersionSpec, scale: Scale, config: DirectConfig) -> dict[str, Any]:
    """The application of an endpoint's only version, with the endpoint's route."""
    deployment = {
        "name": DIRECT_DEPLOYMENT,
        "max_ongoing_requests": INGRESS_ONGOING,
        "graceful_shutdown_timeout_s": 20.0,
        "ray_actor_options": _actor_options(spec),
        "user_config": config.to_json(),
        **HEALTH,
        **_replicas(spec.app, scale),
    }
    return _application(
        spec.app, route(spec.endpoint), "heliostat_serving.version_app:build", spec.to_json(), deployment
    )


def gateway_application(spec: GatewaySpec, config: GatewayConfig) -> dict[str, Any]:
    deployment = {
        "name": GATEWAY_DEPLOYMENT,
        "num_replicas": spec.replicas,
        "max_ongoing_requests": INGRESS_ONGOING,
        "graceful_shutdown_timeout_s": 20.0,
        "ray_actor_options": {"num_cpus": spec.num_cpus},
        "user_config": config.to_json(),
        **HEALTH,
    }
    return _application(
        spec.app, route(spec.endpoint), "heliostat_serving.gateway_app:build", spec.to_json(), deployment
    )


def _application(
    name: str, prefix: str | None, path: str, args: dict[str, Any], deployment: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": prefix,
        "import_path": path,
        "args": args,
        "logging_config": {"enable_access_log": False},  # ours is the usage file
        "deployments": [deployment],
    }


def _actor_options(spec: VersionSpec) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": spec.num_cpus, "num_gpus": spec.num_gpus}
    if spec.memory_bytes:
        options["memory"] = spec.memory_bytes
    return {**options, **spec.actor_options}


def _replicas(app: str, scale: Scale) -> dict[str, Any]:
    if not scale.automatic:
        return {"num_replicas": scale.floor}
    # no initial_replicas: with it every change of the grant would first set the deployment back to that number
    floor = min(scale.floor, scale.grant)
    to_zero_delay_s = scale.to_zero_delay_s if scale.grant else 0.0
    return {
        "autoscaling_config": {
            "min_replicas": floor,
            "max_replicas": max(1, min(scale.grant, scale.ceiling)),  # Serve knows no 0: the gateway pauses then
            "target_ongoing_requests": scale.target_ongoing_requests,
            "upscale_delay_s": scale.upscale_delay_s,
            "downscale_delay_s": scale.downscale_delay_s,
            "downscale_to_zero_delay_s": to_zero_delay_s,
            "look_back_period_s": max(2.0, scale.upscale_delay_s),
            "policy": {
                "policy_function": POLICY,
                "policy_kwargs": {"app": app, "wish_dir": scale.wish_dir},  # any change of these restarts the replicas
            },
        }
    }
