"""A recorded simulation comes to the same bytes in another process with another hash seed; a changed record is located."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from heliostat_scheduler.simulator.replaying import execute, record, replay


def test_another_process_and_hash_seed_come_to_the_same_bytes() -> None:
    told = replay(Namespace(file=None, cycles=600, seed=5))
    assert told["failed"] == 0 and told["differs"] is None
    assert told["cycles"] == told["recorded"] >= 600  # type: ignore[operator]


def test_a_changed_record_is_located(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    record(path, 200, 3)
    lines = path.read_text().splitlines()
    row = json.loads(lines[100])
    row["digest"] = "0" * 64
    lines[100] = json.dumps(row)
    assert execute(iter(lines)) == (99, 101)
