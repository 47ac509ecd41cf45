"""The chains of the records: one flipped byte anywhere is found and located; a cut end shows against an exported head."""

from __future__ import annotations

import random
import sqlite3
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from heliostat.forecasting import auditing, exporting
from heliostat.forecasting.exporting import BadWebhook, Exporter, check_webhook
from heliostat.store import Store, audit, database
from sqlalchemy.orm import Session

from tests.platform.control.plant import Plant
from tests.platform.forecasting.worlds import live

FLIPS = 1_000
KEYS = {"decision_log": "cycle", "audit": "seq"}
NUMBERS = {"cycle", "seq", "at_ms"}


def flips(path: Path, table: str, count: int, seed: int) -> Iterator[tuple[int, sqlite3.Connection]]:
    """One byte of one value after another is changed and put back; yields the key of the row that is broken meanwhile."""
    rng, key = random.Random(seed), KEYS[table]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    columns = [name for name in (row[1] for row in connection.execute(f"PRAGMA table_info({table})")) if name != key]
    casts = ", ".join(name if name in NUMBERS else f'CAST("{name}" AS BLOB)' for name in columns)
    rows = connection.execute(f"SELECT {key}, {casts} FROM {table} ORDER BY {key}").fetchall()
    cells = [
        (row[0], name, value)
        for row in rows
        for name, value in zip(columns, row[1:], strict=True)
        if value not in (None, b"")
    ]
    weights = [8 if isinstance(value, int) else len(value) for _, _, value in cells]
    for number, name, value in rng.choices(cells, weights, k=count):
        if isinstance(value, int):
            changed: Any = value ^ (1 << rng.randrange(40))
        else:
            data = bytearray(value)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            changed = bytes(data) if name in ("events", "decisions") else data.decode("latin-1").encode("latin-1")
        put = f'UPDATE {table} SET "{name}" = ' + (
            "?" if isinstance(value, int) or name in ("events", "decisions") else "CAST(? AS TEXT)"
        )
        connection.execute(f"{put} WHERE {key} = ?", (changed, number))
        yield number, connection
        connection.execute(f"{put} WHERE {key} = ?", (value, number))
    connection.close()


def test_one_flipped_byte_at_each_of_a_thousand_positions_of_the_log_is_found_and_located(plant: Plant) -> None:
    live(plant)
    engine = database.reader_engine(plant.store.url, 1)
    missed = []
    for number, _ in flips(database.sqlite_path(plant.store.url), "decision_log", FLIPS, seed=1):
        with Session(bind=engine) as session:
            found = auditing.verify_decisions(session)
        if found.broken != number:
            missed.append((number, found))
    assert missed == []
    with Session(bind=engine) as session:
        whole = auditing.verify_decisions(session)
    assert (whole.broken, whole.rows) == (None, plant.loop.cycles)


def test_a_flipped_byte_of_the_audit_log_is_found_and_located(sqlite_store: Store) -> None:
    for index in range(30):
        sqlite_store.write(
            lambda session, index=index: audit.append(  # type: ignore[misc]
                session,
                at_ms=index,
                actor="ann",
                action="queue_changed",
                object=f"q{index}",
                data={"quota": index, "é": [1, None]},
            )
        )
    engine = database.reader_engine(sqlite_store.url, 1)
    for number, _ in flips(database.sqlite_path(sqlite_store.url), "audit", 200, seed=2):
        with Session(bind=engine) as session:
            assert auditing.verify_audit(session).broken == number
    with Session(bind=engine) as session:
        assert auditing.verify_audit(session).broken is None


@pytest.mark.parametrize("which", ["middle", "first"])
def test_a_missing_row_shows_at_the_one_behind_it(plant: Plant, which: str) -> None:
    live(plant)
    gone = plant.loop.cycles // 2 if which == "middle" else 1
    connection = sqlite3.connect(database.sqlite_path(plant.store.url), isolation_level=None)
    connection.execute("DELETE FROM decision_log WHERE cycle = ?", (gone,))
    connection.close()
    with plant.store.read() as session:
        assert auditing.verify_decisions(session).broken == gone + 1


def exporter(
    plant: Plant, tmp_path: Path, webhook: str = "", post: Any = None
) -> tuple[Exporter, list[tuple[str, str]]]:
    said: list[tuple[str, str]] = []
    made = Exporter(
        plant.store,
        tmp_path / "state" / "heads.jsonl",
        webhook,
        lambda: 5,
        lambda level, event, _f: said.append((level, event)),
        post,
    )
    return made, said


def test_a_cut_end_shows_against_an_exported_head(plant: Plant, tmp_path: Path) -> None:
    live(plant)
    made, _ = exporter(plant, tmp_path)
    made.export()
    told = exporting.exported(tmp_path / "state" / "heads.jsonl")
    with plant.store.read() as session:
        assert auditing.contradicted(session, told) is None
    connection = sqlite3.connect(database.sqlite_path(plant.store.url), isolation_level=None)
    connection.execute("DELETE FROM decision_log WHERE cycle >= ?", (plant.loop.cycles - 2,))
    connection.close()
    with plant.store.read() as session:
        assert auditing.verify_decisions(session).broken is None
        lost = auditing.contradicted(session, told)
    assert lost == {"chain": "decision_log", "number": plant.loop.cycles, "exported_at_ms": 5, "missing": True}


def test_the_head_goes_to_the_webhook_and_a_failure_is_told(plant: Plant, tmp_path: Path) -> None:
    live(plant)
    sent: list[tuple[str, bytes]] = []
    made, said = exporter(plant, tmp_path, "https://example.org/heads", lambda url, body: sent.append((url, body)))
    told = made.export()
    assert sent[0][0] == "https://example.org/heads" and str(told["decision_log"][1]).encode() in sent[0][1]

    def refuse(_url: str, _body: bytes) -> None:
        raise urllib.error.URLError("no route")

    made, said = exporter(plant, tmp_path, "https://example.org/heads", refuse)
    made.export()
    assert said == [("error", "head_not_exported")]


def test_it_is_exported_until_it_is_told_to_stop(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "FIRST_S", 0.0)
    stop = threading.Event()
    made, _ = exporter(plant, tmp_path)
    monkeypatch.setattr(made, "export", stop.set)
    made.run(stop)
    assert stop.is_set()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://example.org/x", id="plain http to elsewhere"),
        pytest.param("https://me:pw@example.org/x", id="credentials in the address"),
        pytest.param("file:///etc/passwd", id="another scheme"),
        pytest.param("https:///x", id="no host"),
    ],
)
def test_a_webhook_that_may_not_be_used(url: str) -> None:
    with pytest.raises(BadWebhook):
        check_webhook(url)
    assert check_webhook("http://127.0.0.1:9/x") and check_webhook("https://example.org/x")
