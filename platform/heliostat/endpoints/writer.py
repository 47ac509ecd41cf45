"""The single writer of Serve's document: compare what is with what the store says, and put the whole when they differ.

A PUT deletes every declared application that it does not name. So the document is always rendered whole: ours (`ep-*`, `gw-*`)
from the store, everybody else's as Serve shows it. Serve fills in defaults and forgets nothing that was put, so "the same"
means: every value that we would put stands in what it shows. What was put is remembered by a digest too, so that a document
that Serve reshapes is not put again and again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliostat.endpoints.serve_rest import Application, ServeRest, ServeState

OURS = ("ep-", "gw-")
Json = Mapping[str, Any]  # Any: JSON
PUT_AGAIN_MS = 30_000
"""How long Serve may go on showing something else than what was put before it is put again."""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where Serve listens, when it is we who start it."""

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def url(self) -> str:
        """Without a trailing slash; a server on all interfaces is called on this machine's own."""
        return f"http://{'127.0.0.1' if self.host in ('0.0.0.0', '::') else self.host}:{self.port}"


def is_ours(name: str) -> bool:
    return name.startswith(OURS)


def foreign(state: ServeState) -> list[Application]:
    """Declared applications of others: they stay in the document as they are."""
    return [app for name, app in sorted(state.applications.items()) if app.declarative and not is_ours(name)]


def document(applications: Sequence[Json], state: ServeState, http: HttpOptions | None) -> dict[str, Any]:  # Any: JSON
    """The whole of what is put. Where Serve runs already its own options are kept: they cannot change while it runs."""
    options: dict[str, Any] = {"proxy_location": "EveryNode"}  # Any: JSON
    if http is not None:
        options["http_options"] = {"host": http.host, "port": http.port}
    else:
        options |= {**state.options, "http_options": dict(state.http)}
    theirs = [dict(app.config) for app in foreign(state) if app.config]
    return {**options, "applications": [*theirs, *(dict(app) for app in applications)]}


def differs(applications: Sequence[Json], state: ServeState) -> bool:
    """Whether Serve has something else than these applications of ours."""
    wanted = {str(app["name"]): app for app in applications}
    shown = {name: app for name, app in state.applications.items() if is_ours(name) and app.status != "DELETING"}
    if set(wanted) - set(state.applications) or set(shown) - set(wanted):
        return True
    return any(not contains(state.applications[name].config, app) for name, app in wanted.items())


def contains(shown: Any, wanted: Any) -> bool:  # Any: JSON
    """Whether everything that was wanted stands in what is shown. Lists are compared whole."""
    if isinstance(wanted, Mapping) and isinstance(shown, Mapping):
        return all(key in shown and contains(shown[key], value) for key, value in wanted.items())
    if isinstance(wanted, list | tuple) and isinstance(shown, list | tuple):
        return len(wanted) == len(shown) and all(contains(s, w) for s, w in zip(shown, wanted, strict=True))
    return bool(shown == wanted)


class Writer:
    """Puts documents. Not thread-safe: one service owns it."""

    def __init__(self, rest: ServeRest, http: Callable[[], HttpOptions]) -> None:
        """http: asked when Serve does not run yet."""
        self._rest = rest
        self._http = http
        self._put_digest = ""
        self._put_at_ms = 0
        self.puts = 0

    def bring(self, applications: Sequence[Json], state: ServeState, now_ms: int) -> bool:
        """Make Serve have these applications of ours. True when it shows them already. Raises ServeUnreachable, ServeRefused.

        An instance that does not run is left alone while there is nothing to serve.
        """
        if not applications and not any(is_ours(name) for name in state.applications):
            return True
        if not differs(applications, state):
            self._put_digest = ""
            return True
        whole = document(applications, state, None if state.running else self._http())
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        fresh = now_ms - self._put_at_ms < PUT_AGAIN_MS
        if state.running and digest == self._put_digest and fresh:
            return False
        self._rest.put(whole)
        self.puts += 1
        self._put_digest, self._put_at_ms = digest, now_ms
        return False
