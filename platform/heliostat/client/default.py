"""The functions of the package: `heliostat.submit(...)` is `connect().submit(...)` on one client, made on first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from heliostat.client.client import Client
from heliostat.settings import load

FORWARDED = frozenset(
    {
        "submit",
        "plan",
        "job",
        "jobs",
        "model",
        "models",
        "push",
        "train",
        "whatif",
        "eta_report",
        "explain_queue",
        "timeline",
        "recipes",
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
    }
)
_lock = threading.Lock()
_current: Client | None = None


def connect(
    url: str | None = None, *, token: str | None = None, profile: str | None = None, make_default: bool = True
) -> Client:
    """A client for a control plane, and the one that the package's functions use from now on.

    Without arguments: the environment, the profile in config.toml, or the control plane that `helio up` started here.
    """
    client = Client(load(url=url, token=token, profile=profile))
    if make_default:
        use(client)
    return client


def use(client: Client | None) -> None:
    """Let the package's functions use this client (None: make one from the settings on next use)."""
    global _current
    with _lock:
        _current = client


def current() -> Client:
    """The client that the package's functions use."""
    global _current
    with _lock:
        if _current is None:
            _current = Client(load())
        return _current


def forwarded(name: str) -> Callable[..., Any] | Any:  # Any: whatever the client's attribute is
    """The module-level form of a client's method: looks the client up at each call, so that `connect` takes effect."""
    if name == "tokens":
        return current().tokens
    method = getattr(Client, name)

    def call(*args: Any, **kwargs: Any) -> Any:  # Any: the method's own signature, kept by `__wrapped__`
        return getattr(current(), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = method.__doc__
    call.__wrapped__ = method  # type: ignore[attr-defined]
    return call
