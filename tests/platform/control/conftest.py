"""Plants on a memory disk where there is one: the store commits with fsync, and these tests commit a lot."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from heliostat.store import Store

from tests.platform.control.plant import Plant

SHM = Path("/dev/shm")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, to be copied."""
    path = tmp_path_factory.mktemp("template") / "heliostat.db"
    Store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def make_plant(empty_database: Path) -> Iterator[Callable[..., Plant]]:
    folder = Path(tempfile.mkdtemp(prefix="heliostat-", dir=SHM if SHM.is_dir() else None))
    plants: list[Plant] = []

    def make(**options: int) -> Plant:
        home = folder / str(len(plants))
        home.mkdir()
        shutil.copy(empty_database, home / "heliostat.db")
        plants.append(Plant(home, **options))
        return plants[-1]

    yield make
    for plant in plants:
        plant.store.close()
    shutil.rmtree(folder)


@pytest.fixture
def plant(make_plant: Callable[..., Plant]) -> Plant:
    """Two GPUs, the bridge connected."""
    made = make_plant()
    made.advance(1_000)
    return made
