"""The fake Serve passes the suite that the real one passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from heliostat_serving.spec import GatewayConfig, GatewaySpec, gateway_application

from tests.platform.endpoints.fake_serve import FakeServe
from tests.platform.endpoints.serve_suite import Entry, ServeSuite


class Time:
    ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.ms

    def pause(self) -> None:
        self.ms += 100


class TestFakeServe(ServeSuite):
    @pytest.fixture
    def time(self) -> Time:
        return Time()

    @pytest.fixture
    def rest(self, time: Time) -> FakeServe:
        return FakeServe(time)

    @pytest.fixture
    def pause(self, time: Time) -> Callable[[], None]:
        return time.pause

    @pytest.fixture
    def application(self) -> Entry:
        return gateway_entry


def gateway_entry(name: str) -> dict[str, Any]:
    endpoint = name.removeprefix("gw-")
    return gateway_application(GatewaySpec(endpoint), GatewayConfig(endpoint, keys=(), targets=()))
