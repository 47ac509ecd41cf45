"""Recorded cycles again: from a snapshot, through the events of each cycle, to the same bytes.

`python -m heliostat.forecasting.replaying DATABASE_URL --from CYCLE --to CYCLE` prints one JSON object on its last line. The control
plane runs it as a process of its own with another hash seed, so what is compared owes nothing to the process that decided.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from heliostat_scheduler.core import Engine
from sqlalchemy import select
from sqlalchemy.orm import Session

from heliostat.forecasting.mirror import Diverged, again
from heliostat.settings import environment
from heliostat.store import database
from heliostat.store.tables import DecisionLog, Snapshot

PAGE = 500
Json = dict[str, Any]  # Any: JSON


def replay(session: Session, first: int | None = None, last: int | None = None) -> Json:
    """Every recorded cycle between `first` and `last`. A control plane that started in between wrote a snapshot: it begins there again.

    cycles: how many were compared; differs: the first that came out otherwise, or None.
    """
    began = time.monotonic()
    lowest = session.execute(select(DecisionLog.cycle).order_by(DecisionLog.cycle).limit(1)).scalar()
    first = max(first or 0, lowest or 0)
    base = session.execute(
        select(Snapshot).where(Snapshot.cycle < max(first, 1)).order_by(Snapshot.cycle.desc()).limit(1)
    ).scalar_one_or_none()
    told: Json = {"from": first, "to": None, "cycles": 0, "skipped": 0, "differs": None, "why": ""}
    if base is None:
        return {**told, "why": "there is no snapshot from before the first cycle"}
    engine, cycle = Engine.restore(base.body), base.cycle
    anew = _starts(session)
    while rows := _page(session, cycle, last):
        for row in rows:
            if row.cycle - 1 in anew and anew[row.cycle - 1] != base.at_ms:
                engine = Engine.restore(_body(session, row.cycle - 1))
            cycle = row.cycle
            try:
                again(engine, row)
            except Diverged as error:
                return {**told, "to": cycle, "differs": cycle, "why": error.what, "took_s": _since(began)}
            told["cycles" if cycle >= first else "skipped"] += 1
            told["to"] = cycle
        session.expunge_all()
    if not told["cycles"]:
        newest = session.execute(select(DecisionLog.cycle).order_by(DecisionLog.cycle.desc()).limit(1)).scalar()
        known = "no cycle is recorded yet" if newest is None else f"cycles {lowest} to {newest} are recorded"
        told["why"] = f"{known}, none from {first} to {'the newest' if last is None else last}"
    return {**told, "took_s": _since(began)}


def _starts(session: Session) -> dict[int, int]:
    """Cycle -> time of each snapshot."""
    return {row.cycle: row.at_ms for row in session.execute(select(Snapshot.cycle, Snapshot.at_ms))}


def _body(session: Session, cycle: int) -> bytes:
    return session.execute(select(Snapshot.body).where(Snapshot.cycle == cycle)).scalar_one()


def _page(session: Session, after: int, last: int | None) -> list[DecisionLog]:
    query = select(DecisionLog).where(DecisionLog.cycle > after).order_by(DecisionLog.cycle).limit(PAGE)
    if last is not None:
        query = query.where(DecisionLog.cycle <= last)
    return list(session.execute(query).scalars())


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


def in_another_process(url: str, first: int | None, last: int | None, hash_seed: int, patience_s: float) -> Json:
    """`replay` in a fresh interpreter with this hash seed. Raises RuntimeError when it does not come to an answer."""
    argv = [sys.executable, "-m", "heliostat.forecasting.replaying", url]
    argv += [] if first is None else ["--from", str(first)]
    argv += [] if last is None else ["--to", str(last)]
    env = {**environment(), "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=patience_s, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        )
    answer: Json = json.loads(done.stdout.strip().splitlines()[-1])
    return {**answer, "hash_seed": hash_seed}


def main() -> int:
    """0: the same bytes; 1: a cycle differs."""
    parser = argparse.ArgumentParser(prog="python -m heliostat.forecasting.replaying", description=__doc__)
    parser.add_argument("database")
    parser.add_argument("--from", dest="first", type=int)
    parser.add_argument("--to", dest="last", type=int)
    given = parser.parse_args()
    engine = database.reader_engine(given.database, 1)
    with Session(bind=engine, expire_on_commit=False, autoflush=False) as session:
        told = replay(session, given.first, given.last)
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if told["differs"] is not None else 0


if __name__ == "__main__":
    sys.exit(main())
