"""Joining a Ray cluster that somebody else started, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from heliostat import local
from heliostat.local import LocalError, UpOptions, ray_head
from heliostat.local.machine import Shape
from heliostat.local.records import RayRecord
from heliostat.settings import load

from tests.e2e.test_control_plane import OPTIONS, House

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayRecord]:
    """A head of somebody else: another home, two logical GPUs."""
    settings = load(home=tmp_path_factory.mktemp("theirs"), environ={})
    for folder in (settings.state_dir, settings.logs_dir):
        folder.mkdir(parents=True)
    record, child = ray_head.start(settings, Shape(2, 8, True, 200_000_000), {})
    try:
        ray_head.wait_ready(record, child, ray_head.log_path(settings))
        yield record
    finally:
        assert ray_head.stop(settings, record) == []


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(load(home=tmp_path / "h", environ={}))
    yield made
    local.down(made.settings)
    assert local.leftovers(made.settings) == []


def test_join_run_and_leave(theirs: RayRecord, house: House) -> None:
    options = UpOptions(address=theirs.gcs_address, ray_token_path=theirs.token_path, port=OPTIONS.port)
    running = local.up(house.settings, options)
    assert (running.connected, running.started) == (True, ("control",))
    job = house.submit(kind="command", command=["echo", "here"], gpus=1)
    assert (house.ended(job)["state"], house.log(job)) == ("succeeded", "here\n")
    local.down(house.settings)
    assert theirs.alive() and ray_head.answers(theirs)
    again = local.up(house.settings, options)  # refused if our slots were left behind as GPUs in use
    assert again.connected


def test_a_wrong_address_is_told(theirs: RayRecord, house: House) -> None:
    with pytest.raises(LocalError) as told:
        local.up(house.settings, UpOptions(address="127.0.0.1:1", ray_token_path=theirs.token_path, port=OPTIONS.port))
    assert told.value.code == "unreachable"


def test_no_token_is_told(theirs: RayRecord, house: House) -> None:
    with pytest.raises(LocalError) as told:
        local.up(house.settings, UpOptions(address=theirs.gcs_address, port=OPTIONS.port))
    assert told.value.code == "no_ray_token"
