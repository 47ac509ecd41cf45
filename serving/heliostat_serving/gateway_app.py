"""Import path `heliostat_serving.gateway_app:build` of Serve's document: the gateway of one endpoint."""

from __future__ import annotations

from typing import Any  # Any: JSON of Serve's arguments

from ray import serve
from ray.serve import Application

from heliostat_serving.replica import Gateway
from heliostat_serving.spec import GATEWAY_DEPLOYMENT, GatewaySpec


def build(args: dict[str, Any]) -> Application:
    spec = GatewaySpec.from_json(args)
    return serve.deployment(name=GATEWAY_DEPLOYMENT)(Gateway).bind(spec.to_json())
