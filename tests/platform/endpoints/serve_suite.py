"""What every `ServeRest` does: the fake of the unit tests and the real dashboard pass the same suite, so the fake cannot lie.

A subclass gives `rest`, `pause` (let time pass) and `application(name)`, an entry whose application really starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from heliostat.endpoints.serve_rest import ServeRefused, ServeRest
from heliostat.endpoints.writer import contains

Entry = Callable[[str], dict[str, Any]]
HTTP = {"host": "127.0.0.1"}


class ServeSuite:
    """Tests run in this order on one Serve."""

    http: ClassVar[Mapping[str, Any]] = {"host": "127.0.0.1", "port": 8000}

    def until(self, rest: ServeRest, pause: Callable[[], None], reached: Callable[[], bool], what: str) -> None:
        for _ in range(300):
            if reached():
                return
            pause()
        raise AssertionError(f"waited for {what}; there is {rest.state()}")

    def put(self, rest: ServeRest, *applications: dict[str, Any]) -> None:
        rest.put({"proxy_location": "EveryNode", "http_options": dict(self.http), "applications": list(applications)})

    def test_serve_life(self, rest: ServeRest, pause: Callable[[], None], application: Entry) -> None:
        assert not rest.state().running and not rest.state().applications

        first, second = application("gw-a"), application("gw-b")
        self.put(rest, first, second)
        state = rest.state()
        assert state.running, "a PUT starts Serve"
        assert state.http["host"] == self.http["host"] and state.http["port"] == self.http["port"]
        assert set(state.applications) == {"gw-a", "gw-b"}, "they are shown at once, before they run"
        self.until(rest, pause, lambda: rest.state().applications["gw-a"].status == "RUNNING", "gw-a to run")
        shown = rest.state().applications["gw-a"]
        assert shown.declarative and contains(shown.config, first), "what was put is shown"
        assert sum(shown.replicas.values()) == 1

        changed = application("gw-a")
        changed["deployments"][0]["user_config"]["sticky"] = "key"
        self.put(rest, changed, second)
        shown = rest.state().applications["gw-a"]
        assert contains(shown.config, changed) and not contains(shown.config, first)
        self.until(rest, pause, lambda: rest.state().applications["gw-a"].status == "RUNNING", "gw-a to run again")

        self.put(rest, changed)
        self.until(rest, pause, lambda: "gw-b" not in rest.state().applications, "gw-b, not named, to be deleted")
        assert rest.state().applications["gw-a"].status == "RUNNING"

        twice = {**second, "route_prefix": first["route_prefix"]}
        with pytest.raises(ServeRefused):
            self.put(rest, first, twice)
        assert set(rest.state().applications) == {"gw-a"}, "a refused document changes nothing"
