"""What a run tells the board after each report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs
from heliostat_jobs.train.progress import Progress


def test_the_last_words_always_say_when_the_last_checkpoint_was(tmp_path: Path) -> None:
    """The board keeps only the last report, and what an eviction costs counts from the checkpoint."""
    (tmp_path / "state.pt").write_bytes(b"12345")
    checkpoint = SimpleNamespace(path=str(tmp_path), filesystem=pyarrow.fs.LocalFileSystem())
    told: list[dict[str, Any]] = []
    progress = Progress()
    progress.tell = told.append
    for kept in (None, checkpoint, None):
        progress.after_report(SimpleNamespace(metrics={"loss": 0.5}, checkpoint=kept), [{}, {}])
    before, saved, after = told
    assert "checkpoint_at_ms" not in before and saved["checkpoint_bytes"] == 5
    assert after["checkpoint_at_ms"] == saved["checkpoint_at_ms"] and "checkpoint" not in after
    assert after["step"] == 3 and after["world_size"] == 2
