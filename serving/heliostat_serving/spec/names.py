"""The names in Serve's document. `ep-*` and `gw-*` are reserved for us: everything else in the document is somebody else's."""

from __future__ import annotations

from pathlib import Path

VERSION_PREFIX = "ep-"
GATEWAY_PREFIX = "gw-"


def version_app(endpoint: str, n: int) -> str:
    """Application of deployment number `n` of an endpoint."""
    return f"{VERSION_PREFIX}{endpoint}-v{n}"


def version_label(n: int) -> str:
    """How people and the header `X-Heliostat-Version` name a deployment of an endpoint."""
    return f"v{n}"


def gateway_app(endpoint: str) -> str:
    return f"{GATEWAY_PREFIX}{endpoint}"


def route(endpoint: str) -> str:
    return f"/endpoints/{endpoint}"


def is_ours(app: str) -> bool:
    return app.startswith((VERSION_PREFIX, GATEWAY_PREFIX))


def wish_file(wish_dir: str, app: str) -> Path:
    """Where the autoscaling policy of an application leaves {"app", "wish", "running", "queued", "at_ms"}; replaced atomically."""
    return Path(wish_dir) / f"{app}.json"
