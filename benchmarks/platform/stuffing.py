"""Fills the store of a running installation with finished jobs, as a year of work would."""

from __future__ import annotations

import random
import time

from heliostat.store.jobs import new_id
from heliostat.store.tables import Job
from sqlalchemy import create_engine, insert

from benchmarks.platform.installation import Installation

BATCH = 5_000


def add_finished(running: Installation, number: int, seed: int = 1) -> None:
    """`number` terminal jobs, 98 % succeeded, written past the control plane in batches."""
    chance = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    engine = create_engine(running.settings.database_url, connect_args={"timeout": 30})
    for start in range(0, number, BATCH):
        rows = [_row(chance, now_ms - (number - i) * 60_000) for i in range(start, min(start + BATCH, number))]
        with engine.begin() as connection:
            connection.execute(insert(Job), rows)
    engine.dispose()


def _row(chance: random.Random, at_ms: int) -> dict[str, object]:
    return {
        "id": new_id(at_ms),
        "project": "default",
        "user": f"user{chance.randrange(20)}",
        "name": f"train-{chance.randrange(200)}",
        "kind": "command",
        "queue": "default",
        "state": "failed" if chance.random() < 0.02 else "succeeded",
        "state_since_ms": at_ms,
        "gpu_milli": 1000,
        "argv": ["python", "train.py"],
        "env": {},
        "runtime_env": {},
        "job_metadata": {},
        "dependencies": [],
        "submitted_ms": at_ms,
        "first_started_ms": at_ms,
        "finished_ms": at_ms + 60_000,
        "attempts": 1,
        "exit_code": 0,
    }
