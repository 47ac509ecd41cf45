"""Recorded stories are told again word by word (`tests/scheduler/telling.py` says how they are made)."""

from __future__ import annotations

import pytest

from tests.scheduler.plots import PLOTS
from tests.scheduler.telling import FOLDER, Plot, Telling


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_story(plot: Plot) -> None:
    recorded = (FOLDER / f"{plot.name}.txt").read_text().splitlines()
    for told, known in zip(Telling(plot).run(), recorded, strict=True):
        assert told == known


def test_every_recorded_story_is_told() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == {plot.name for plot in PLOTS}
