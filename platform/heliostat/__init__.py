"""Heliostat: an elastic compute platform on Ray.

    import heliostat
    job = heliostat.submit("train.py", gpus=2, queue="research")
    print(job.explain())
    await job

Nothing is loaded before it is used: importing this package costs a few milliseconds, and neither ray nor torch is ever
imported by the client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from heliostat.version import VERSION as __version__

if TYPE_CHECKING:
    from heliostat.client.client import Client
    from heliostat.client.default import connect
    from heliostat.client.endpoints import Endpoint
    from heliostat.client.job import Job
    from heliostat.client.models import ModelVersion
    from heliostat.client.rayaddress import ClusterInfo

_HOMES = {
    "Client": "heliostat.client.client",
    "Job": "heliostat.client.job",
    "ModelVersion": "heliostat.client.models",
    "Endpoint": "heliostat.client.endpoints",
    "Explanation": "heliostat.client.listing",
    "connect": "heliostat.client.default",
    **dict.fromkeys(
        (
            "HeliostatError", "RequestError", "ServiceError", "BadRequest", "NotFound", "Unauthenticated", "Forbidden",
            "Conflict", "NeverFits", "WaitTimeout", "JobFailed", "ConnectionFailed", "IncompatibleServer",
        ),
        "heliostat.wire.errors",
    ),
}  # fmt: skip
_FORWARDED = (
    "submit",
    "plan",
    "job",
    "jobs",
    "model",
    "models",
    "push",
    "train",
    "recipes",
    "whatif",
    "eta_report",
    "explain_queue",
    "timeline",
    "deploy",
    "endpoint",
    "endpoints",
    "queue",
    "queues",
    "cluster",
    "nodes",
    "events",
    "tokens",
    "whoami",
)

__all__ = [
    "BadRequest",
    "Client",
    "Conflict",
    "ConnectionFailed",
    "Endpoint",
    "Explanation",
    "Forbidden",
    "HeliostatError",
    "IncompatibleServer",
    "Job",
    "JobFailed",
    "ModelVersion",
    "NeverFits",
    "NotFound",
    "RequestError",
    "ServiceError",
    "Unauthenticated",
    "WaitTimeout",
    "__version__",
    "cluster",
    "connect",
    "deploy",
    "endpoint",
    "endpoints",
    "eta_report",
    "events",
    "explain_queue",
    "get_job_submission_client_cluster_info",
    "job",
    "jobs",
    "model",
    "models",
    "nodes",
    "plan",
    "push",
    "queue",
    "queues",
    "recipes",
    "submit",
    "timeline",
    "tokens",
    "train",
    "whatif",
    "whoami",
]


def __getattr__(name: str) -> Any:  # Any: whatever the name stands for
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _FORWARDED:
        value = import_module("heliostat.client.default").forwarded(name)
        if name == "tokens":
            return value  # belongs to the client of the moment
    else:
        raise AttributeError(f"module 'heliostat' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def get_job_submission_client_cluster_info(address: str, **kwargs: object) -> ClusterInfo:
    """Ray's hook for `--address heliostat://PROFILE`: the address and the headers that belong to a profile."""
    from heliostat.client.rayaddress import cluster_info

    return cluster_info(address, **kwargs)
