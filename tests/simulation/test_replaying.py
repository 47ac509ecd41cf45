"""A recorded simulation comes to the same bytes in another process with another hash seed; a changed record is located."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from heliostat_scheduler.simulator.__main__ import main
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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(None, "not a readable record", id="no such file"),
        pytest.param("a,b\n", "line 1 is neither a snapshot nor a cycle", id="no JSON"),
        pytest.param('{"events": "[]"}\n', "line 1 is neither a snapshot nor a cycle", id="half a cycle"),
    ],
)
def test_a_file_that_is_no_record_is_named(
    text: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.jsonl"
    if text is not None:
        path.write_text(text)
    assert main(["replay", "--file", str(path)]) == 2
    assert says in capsys.readouterr().err
