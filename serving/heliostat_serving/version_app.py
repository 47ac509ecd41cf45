"""Import path `heliostat_serving.version_app:build` of Serve's document: the application of one version."""

from __future__ import annotations

from typing import Any  # Any: JSON of Serve's arguments

from ray import serve
from ray.serve import Application

from heliostat_serving.replica import Direct, Version
from heliostat_serving.spec import DEPLOYMENT, DIRECT_DEPLOYMENT, VersionSpec


def build(args: dict[str, Any]) -> Application:
    """Only declares: the artifact is fetched and verified where the replica runs."""
    spec = VersionSpec.from_json(args)
    if spec.direct:
        return serve.deployment(name=DIRECT_DEPLOYMENT)(Direct).bind(spec.to_json())
    return serve.deployment(name=DEPLOYMENT)(Version).bind(spec.to_json())
