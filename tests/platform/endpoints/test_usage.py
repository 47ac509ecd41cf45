"""Metering and the access log: what gateways leave in their spool folders counts once, for whoever owns the endpoint."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heliostat.endpoints import access_log, rows
from heliostat.endpoints.render import Folders
from heliostat.endpoints.usage import Collector, add_up
from heliostat.store import Store, schema
from heliostat.store.endpoint_tables import Endpoint, EndpointUsage
from sqlalchemy import select

from tests.platform.endpoints.serving_plant import ServingPlant

HOUR = 3_600_000
NOW = 500_000 * HOUR + 1_000
LOGGED: list[tuple[Any, ...]] = []


def line(**more: Any) -> dict[str, Any]:
    return {
        "at_ms": NOW,
        "key": "key-1",
        "v": "v2",
        "status": 200,
        "ms": 1.5,
        "bytes_in": 10,
        "bytes_out": 20,
        "rows": 3,
        **more,
    }


def test_lines_add_up_by_hour_version_key_and_status() -> None:
    batch = add_up("f", [line(), line(), line(status=429), line(key="", v="", status=401), line(smoke=True)])
    assert {place: total.requests for place, total in batch.sums.items()} == {
        (500_000 * HOUR, 2, "key-1", 2): 2,
        (500_000 * HOUR, 2, "key-1", 4): 1,
        (500_000 * HOUR, 0, "", 4): 1,
    }
    assert batch.sums[500_000 * HOUR, 2, "key-1", 2].busy_us == 3_000
    assert batch.used == {"key-1": NOW}


@pytest.fixture
def collector(tmp_path: Path, migrated_store: Path) -> Iterator[tuple[Collector, Store, Folders]]:
    store = Store(f"sqlite:///{migrated_store}")
    make(store, "p")
    folders = Folders(tmp_path / "serving")
    folders.spool("e").mkdir(parents=True)
    yield Collector(store, folders, lambda: NOW, lambda *told: LOGGED.append(told)), store, folders
    store.close()


def make(store: Store, project: str) -> None:
    row = Endpoint(name="e", project=project, mode="gateway", weights={}, weights_before={}, settings={}, created_ms=1)
    store.write(lambda session: session.add(row))


def spool(folder: Path, name: str, lines: list[dict[str, Any]], cut: str = "") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + cut)
    return path


def requests(store: Store) -> int:
    with store.read() as session:
        return sum(row.requests for row in session.execute(select(EndpointUsage)).scalars())


def test_a_spool_file_counts_once(collector: tuple[Collector, Store, Folders]) -> None:
    collect, store, folders = collector
    path = spool(folders.spool("e"), "a-1.jsonl", [line(), line()], cut='{"at_ms": 1')
    assert collect.collect(["e"]) == 2 and not path.exists()
    spool(folders.spool("e"), "a-1.jsonl", [line(), line()])  # we died between the commit and the deletion
    collect.collect(["e"])
    assert requests(store) == 2
    spool(folders.spool("e"), "a-2.jsonl", [line()])
    collect.collect(["e"])
    assert requests(store) == 3
    assert len(access_log.tail(folders.log("e"), 10)) == 3


def test_a_file_that_is_still_written_is_left_alone(collector: tuple[Collector, Store, Folders]) -> None:
    import os

    collect, store, folders = collector
    path = spool(folders.spool("e"), "a-1.open", [line()])
    os.utime(path, (NOW / 1000 - 1, NOW / 1000 - 1))
    assert collect.collect(["e"]) == 0
    os.utime(path, (NOW / 1000 - 60, NOW / 1000 - 60))  # its gateway has died
    assert collect.collect(["e"]) == 1 and requests(store) == 1


def test_the_access_log_is_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "MAX_BYTES", 500)
    path = tmp_path / "e.jsonl"
    for number in range(40):
        access_log.append(path, [line(request_id=str(number))])
    assert [entry["request_id"] for entry in access_log.tail(path, 1)] == ["39"]
    assert len(list(tmp_path.iterdir())) <= access_log.KEPT + 1
    access_log.remove(path)
    assert list(tmp_path.iterdir()) == []


ODD: list[Any] = [
    pytest.param('{"at_ms":1,"status":200,"rows":null}', id="nothing where a number belongs"),
    pytest.param('{"at_ms":1,"status":200,"rows":1e400}', id="no number of rows"),
    pytest.param('{"at_ms":1,"status":200,"bytes_in":18446744073709551616}', id="more than a database keeps"),
    pytest.param('{"at_ms":-1,"status":200}', id="before all times"),
    pytest.param('{"at_ms":1,"status":200,"ms":NaN}', id="no duration"),
    pytest.param("[1]", id="no object"),
    pytest.param("[" * 100_000, id="nested beyond reading"),
    pytest.param('{"at_ms":1', id="cut"),
]


@pytest.mark.parametrize("odd", ODD)
def test_a_line_that_is_none_is_passed_over_and_told(collector: tuple[Collector, Store, Folders], odd: str) -> None:
    collect, store, folders = collector
    LOGGED.clear()
    (folders.spool("e") / "a-1.jsonl").write_text(f"{json.dumps(line())}\n{odd}\n{json.dumps(line())}\n")
    assert collect.collect(["e"]) == 2 and requests(store) == 2
    ((_, event, facts),) = LOGGED
    assert event == "usage_lines_skipped" and facts["lines"] == 1 and odd.startswith(facts["first"])


def test_a_collector_that_breaks_does_not_end_the_service(
    tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = ServingPlant(tmp_path)
    stop = threading.Event()

    def broken(names: list[str]) -> int:
        stop.set()
        raise TypeError("a bug")

    monkeypatch.setattr("heliostat.endpoints.service.COLLECT_S", 0.0)
    monkeypatch.setattr(plant.service.collector, "collect", broken)
    plant.service.tick()
    plant.service._rest(60.0, stop)
    assert "a bug" in plant.service.trouble
    plant.store.close()


def test_what_a_removed_endpoint_answered_stays_counted(collector: tuple[Collector, Store, Folders]) -> None:
    collect, store, folders = collector
    spool(folders.spool("e"), "a-1.jsonl", [line()] * 2)
    spool(folders.spool("e"), "a-2.open", [line()] * 3, cut='{"at')
    collect.finish("e")
    assert requests(store) == 5 and not folders.spool("e").exists()
    assert not folders.log("e").exists()


def test_usage_is_not_shown_to_whoever_takes_the_name_later(collector: tuple[Collector, Store, Folders]) -> None:
    collect, store, folders = collector
    spool(folders.spool("e"), "a-1.jsonl", [line(), line(key="")])
    collect.collect(["e"])
    collect.finish("e")
    store.write(lambda session: rows.forget(session, session.get_one(Endpoint, "e"), NOW))
    make(store, "others")
    folders.spool("e").mkdir(parents=True)
    spool(folders.spool("e"), "b-1.jsonl", [line(key="")])
    collect.collect(["e"])
    with store.read() as session:
        shown = rows.usage(session, session.get_one(Endpoint, "e"), 0)
        assert [(row.project, row.key, row.requests) for row in shown] == [("others", "", 1)]
    assert requests(store) == 3


def test_usage_that_was_counted_before_keeps_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migration 0006."""
    path = tmp_path / "old.db"
    with monkeypatch.context() as then:
        then.setattr(schema, "HEAD", "0005")
        Store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as old:
        columns = "endpoint, hour_ms, number, key, status, project, requests, rows, bytes_in, bytes_out, busy_us"
        old.execute(f"INSERT INTO endpoint_usage ({columns}) VALUES ('e', 5, 1, 'k', 2, 'p', 7, 8, 9, 10, 11)")
    old.close()
    store = Store(f"sqlite:///{path}")
    with store.read() as session:
        (row,) = session.execute(select(EndpointUsage)).scalars()
        assert (row.endpoint, row.project, row.number, row.key, row.requests) == ("e", "p", 1, "k", 7)
        assert (row.rows, row.bytes_in, row.bytes_out, row.busy_us) == (8, 9, 10, 11)
    store.close()


def test_whoever_reads_on_gets_every_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gateways hand their lines in out of order, many in one millisecond, and the file is turned over."""
    monkeypatch.setattr(access_log, "MAX_BYTES", 500)
    path = tmp_path / "e.jsonl"
    assert access_log.newest(path, 5) == ([], access_log.NOWHERE)
    access_log.append(path, [line(request_id="0"), line(request_id="1")])
    shown, place = access_log.newest(path, 1)
    assert [entry["request_id"] for entry in shown] == ["1"]
    got: list[str] = []
    for number in range(2, 20, 2):
        access_log.append(path, [line(request_id=str(number)), line(request_id=str(number + 1), at_ms=NOW - number)])
        more, place = access_log.read_on(path, place, 3)
        got += [entry["request_id"] for entry in more]
    assert got == [str(number) for number in range(2, 20)]
    assert access_log.read_on(path, place, 3) == ([], place)
    with path.open("a") as half:
        half.write('{"at_ms": 1')
    assert access_log.read_on(path, place, 3) == ([], place) and access_log.newest(path, 3)[1] == place
    rest, _ = access_log.read_on(path, "4711-9", 1000)
    assert rest[-1]["request_id"] == "19", "a place that is not there any more: what there is"
