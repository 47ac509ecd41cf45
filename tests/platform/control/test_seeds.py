"""Seeds of the control plane's fuzz that failed once. `python -m tests.platform.control.fuzz --seeds N` finds new ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.platform.control.fuzz import Fuzz

SEEDS = [
    pytest.param(3, id="a driver parked by one control plane and admitted by the next was no lease of the engine's"),
    pytest.param(102, id="a driver that waited was faster than the reply to its grant"),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_it_ends_well(seed: int, tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "heliostat.db").write_bytes(empty_database.read_bytes())
    fuzz = Fuzz(seed, tmp_path)
    try:
        fuzz.run()
    finally:
        fuzz.plant.store.close()
