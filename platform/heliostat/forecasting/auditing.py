"""Whether the records are whole: the audit log, the decision log, and the heads that were exported earlier.

Each row's hash covers the row and the hash before it, so the first row that was changed, taken out or put in shows. What a chain cannot
show is that its end was cut off, or that all of it was written anew: for that its head is exported on a schedule to where the writer of
the database does not reach, and a head that is not in the chain any more is told, too.
Rows are read as bytes: a value that is no text any more is a broken row, not an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from heliostat.store.chain import GENESIS, link
from heliostat.store.tables import Audit, DecisionLog

LOG_COLUMNS = ("cycle", "at_ms", "events", "decisions", "policy_digest", "state_digest", "previous", "hash")
AUDIT_COLUMNS = ("seq", "at_ms", "actor", "project", "action", "object", "request_id", "data", "previous", "hash")
Json = dict[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class Chain:
    """rows: how many follow from those before them. broken: the number of the first that does not; why: what is wrong with it."""

    name: str
    rows: int
    head: str
    broken: int | None = None
    why: str = ""


def verify_decisions(session: Session) -> Chain:
    """The decision log, cycle by cycle."""
    return _walk("decision_log", session, "cycle", LOG_COLUMNS, _decision)


def verify_audit(session: Session) -> Chain:
    """The audit log, row by row."""
    return _walk("audit", session, "seq", AUDIT_COLUMNS, _audit)


def _walk(
    name: str, session: Session, key: str, columns: tuple[str, ...], record: Any
) -> Chain:  # Any: a function of a row
    previous, count = GENESIS, 0
    for number, row in _rows(session, name, key, columns):
        why = _wrong(row, previous, record)
        if why:
            return Chain(name, count, previous, number, why)
        previous, count = _text(row["hash"]), count + 1
    return Chain(name, count, previous)


def _wrong(row: Json, previous: str, record: Any) -> str:  # Any: a function of a row
    try:
        if _text(row["previous"]) != previous:
            return "it does not follow from the row before it"
        if _text(row["hash"]) != link(previous, record(row)):
            return "its content does not have its hash"
    except (UnicodeDecodeError, ValueError, TypeError) as error:
        return f"it cannot be read: {error}"
    return ""


def _decision(row: Json) -> Json:
    return {
        "cycle": _number(row["cycle"]),
        "at_ms": _number(row["at_ms"]),
        **{name: _text(row[name]) for name in ("events", "decisions", "policy_digest", "state_digest")},
    }


def _audit(row: Json) -> Json:
    words = {name: _text(row[name]) for name in ("actor", "project", "action", "object", "request_id")}
    return {"at_ms": _number(row["at_ms"]), **words, "data": json.loads(_text(row["data"]))}


def _rows(session: Session, table: str, key: str, columns: tuple[str, ...]) -> Iterator[tuple[int, Json]]:
    """Every row in order, text columns as bytes where the database is SQLite (which stores whatever was put there)."""
    sqlite = session.get_bind().dialect.name == "sqlite"
    plain = {"cycle", "seq", "at_ms"}
    names = ", ".join(
        f'CAST("{name}" AS BLOB) AS "{name}"' if sqlite and name not in plain else f'"{name}"' for name in columns
    )
    for row in session.execute(text(f'SELECT {names} FROM {table} ORDER BY "{key}"')).mappings():
        yield int(row[key]), dict(row)


def _text(value: Any) -> str:  # Any: what a database driver returns
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode()
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _number(value: Any) -> int:  # Any: what a database driver returns
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is no number")
    return value


def heads(session: Session, now_ms: int) -> Json:
    """Where both chains end now: what is exported."""
    audit = session.execute(select(Audit.seq, Audit.hash).order_by(Audit.seq.desc()).limit(1)).one_or_none()
    cycle = session.execute(
        select(DecisionLog.cycle, DecisionLog.hash).order_by(DecisionLog.cycle.desc()).limit(1)
    ).one_or_none()
    return {
        "at_ms": now_ms,
        "audit": None if audit is None else [audit.seq, audit.hash],
        "decision_log": None if cycle is None else [cycle.cycle, cycle.hash],
    }


def contradicted(session: Session, exported: list[Json]) -> Json | None:
    """The first exported head that is not in its chain any more."""
    for head in exported:
        for name, model, key in (("audit", Audit, Audit.seq), ("decision_log", DecisionLog, DecisionLog.cycle)):
            told = head.get(name)
            if told is None:
                continue
            found = session.execute(select(model.hash).where(key == told[0])).scalar()
            if found != told[1]:
                return {"chain": name, "number": told[0], "exported_at_ms": head.get("at_ms"), "missing": found is None}
    return None
