"""A store on a temporary file, a fake control plane, and clients that talk to the doors in-process."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from heliostat.access import Role, Tokens
from heliostat.api.app import create_app
from heliostat.api.options import DoorOptions
from heliostat.packages import Limits
from heliostat.settings import Settings
from heliostat.store import Store, queuefiles
from sqlalchemy import create_engine, text

from tests.platform.fake_control import FakeControl, node

URL = "http://127.0.0.1:8700"

POSTGRES = os.environ.get("HELIOSTAT_TEST_POSTGRES", "")
"""postgresql+psycopg://user@host:port of a server on which the store's tests may make and drop `heliostat_test`."""
DATABASES = ["sqlite", *(["postgres"] if POSTGRES else [])]

QUEUES = """\
default: research
queues:
  research:
    quota: {gpu: 4, cpu: 8}
  production:
    quota: {gpu: 2}
    limit: {gpu: 2}
    submit:
      - {project: vision, up_to: high}
"""


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with the present schema: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("store") / "heliostat.db"
    Store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated: Path) -> str:
    shutil.copy(migrated, tmp_path / "heliostat.db")
    return f"sqlite:///{tmp_path / 'heliostat.db'}"


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url if request.param == "sqlite" else fresh_postgres())
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url)
    yield opened
    opened.close()


def fresh_postgres() -> str:
    """An empty database of its own on the server that HELIOSTAT_TEST_POSTGRES names."""
    engine = create_engine(f"{POSTGRES}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS heliostat_test WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE heliostat_test"))
    engine.dispose()
    return f"{POSTGRES}/heliostat_test"


@dataclass
class Clock:
    ms: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@dataclass
class House:
    """Everything a test of the doors needs. tokens: project/role -> token text."""

    app: FastAPI
    store: Store
    control: FakeControl
    clock: Clock
    tokens: dict[str, str]

    def client(self, who: str = "vision/member", **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        given = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return httpx.AsyncClient(transport=transport, base_url=URL, headers={**given, **headers})


PRINCIPALS = {
    "vision/viewer": Role.VIEWER,
    "vision/member": Role.MEMBER,
    "vision/admin": Role.ADMIN,
    "ocr/member": Role.MEMBER,
    "*/admin": Role.ADMIN,
}


@dataclass(frozen=True)
class Furnished:
    """A database with the principals' tokens and the queue file, to be copied."""

    path: Path
    tokens: dict[str, str]


@pytest.fixture(scope="session")
def furnished(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    path = tmp_path_factory.mktemp("furnished") / "heliostat.db"
    shutil.copy(migrated, path)
    store = Store(f"sqlite:///{path}")
    tokens = Tokens(store, Clock())
    made = {
        name: tokens.create(role=role, project=name.split("/")[0], user=f"u-{name}", by="test")[0]
        for name, role in PRINCIPALS.items()
    }
    store.write(lambda session: queuefiles.put(session, QUEUES, actor="test", now_ms=1))
    store.close()
    return Furnished(path, made)


@pytest.fixture
def make_house(tmp_path: Path, furnished: Furnished) -> Iterator[Callable[..., House]]:
    opened: list[Store] = []

    def make(queues: str = QUEUES, options: DoorOptions | None = None) -> House:
        path = tmp_path / "house.db"
        shutil.copy(furnished.path, path)
        store = Store(f"sqlite:///{path}")
        opened.append(store)
        control = FakeControl(store, [node("n1", 2), node("n2", 4)])
        clock = Clock()
        chosen = options or DoorOptions(heartbeat_s=0.05, poll_s=0.01, packages=Limits(upload_bytes=200_000))
        app = create_app(store, control, Settings(home=tmp_path), options=chosen, clock_ms=clock)
        if queues != QUEUES:
            store.write(lambda session: queuefiles.put(session, queues, actor="test", now_ms=1))
        return House(app, store, control, clock, furnished.tokens)

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with house.client() as opened:
        yield opened


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """A submission that is accepted, with what the test is about."""
    return lambda **given: {"command": ["python", "train.py"], "gpus": 1, **given}
