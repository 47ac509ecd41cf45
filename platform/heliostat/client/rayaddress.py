"""`ray job submit --address heliostat://PROFILE`: Ray imports the module named by the scheme and asks it where to go.

`heliostat://default` is the profile in use or the control plane on this machine (Ray does not take a module address without a
name). Ray reads four attributes of the answer, so no class of Ray's is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heliostat.settings import load

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """What Ray's JobSubmissionClient needs to know (the same attributes as Ray's own `ClusterInfo`)."""

    address: str
    cookies: dict[str, Any] | None = None  # Any: passed through
    metadata: dict[str, Any] | None = None  # Any: passed through
    headers: dict[str, Any] | None = None  # Any: passed through


def cluster_info(address: str, **kwargs: object) -> ClusterInfo:
    name = address.strip("/")
    settings = load() if name in ("", DEFAULT) else load(profile=name)
    headers = _mapping(kwargs.get("headers"))
    if settings.token and "authorization" not in {name.lower() for name in headers}:
        headers["Authorization"] = f"Bearer {settings.token}"
    metadata = _mapping(kwargs.get("metadata"))
    if settings.project:
        metadata.setdefault("project", settings.project)
    return ClusterInfo(settings.url, _mapping(kwargs.get("cookies")) or None, metadata or None, headers or None)


def _mapping(value: object) -> dict[str, Any]:  # Any: passed through
    return dict(value) if isinstance(value, Mapping) else {}
