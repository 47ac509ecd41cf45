"""A migrated database to be copied (migrating takes longer than most tests), and a control plane with three versions of a model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platform.endpoints.serving_plant import ServingPlant


@pytest.fixture
def migrated_store(tmp_path: Path, migrated: Path) -> Path:
    shutil.copy(migrated, tmp_path / "heliostat.db")
    return tmp_path / "heliostat.db"


@pytest.fixture
def plant(tmp_path: Path, migrated_store: Path) -> Iterator[ServingPlant]:
    plant = ServingPlant(tmp_path)
    for version in (1, 2, 3):
        plant.register("digits", version)
    yield plant
    plant.store.close()
