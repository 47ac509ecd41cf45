"""A migrated database to be copied: migrating takes longer than most tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def migrated_store(tmp_path: Path, migrated: Path) -> Path:
    shutil.copy(migrated, tmp_path / "heliostat.db")
    return tmp_path / "heliostat.db"
