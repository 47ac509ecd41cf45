"""A fake server, a client of it, and `helio` against it, with a clock that only moves when somebody sleeps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from heliostat.cli.app import App
from heliostat.cli.main import run
from heliostat.client import default
from heliostat.client.client import Client
from heliostat.settings import Settings, load
from heliostat.wire.call import Caller

from tests.platform.client.fake_server import TOKEN, FakeServer


class Clock:
    """Monotonic seconds that pass only in `sleep`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HELIOSTAT_HOME": str(tmp_path / "home"), "HELIOSTAT_TOKEN": TOKEN}


@pytest.fixture
def make_caller(server: FakeServer, clock: Clock) -> Callable[[Settings], Caller]:
    def make(settings: Settings) -> Caller:
        return Caller(server, token=settings.token, url=settings.url, user_agent="test", sleep=clock.sleep, clock=clock)

    return make


@pytest.fixture
def client(make_caller: Callable[[Settings], Caller], environ: dict[str, str]) -> Iterator[Client]:
    settings = load(environ=environ)
    made = Client(settings, caller=make_caller(settings))
    default.use(made)
    yield made
    default.use(None)


@dataclass(frozen=True)
class Outcome:
    """What one command line left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def helio(
    server: FakeServer,
    environ: dict[str, str],
    make_caller: Callable[[Settings], Caller],
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Outcome]:
    """`helio("ps", "--json")` against the fake server."""
    app = App(environ=environ, now=lambda: server.now, caller=make_caller)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(arguments, dataclasses.replace(app))
        told = capsys.readouterr()
        return Outcome(code, told.out, told.err)

    return call
