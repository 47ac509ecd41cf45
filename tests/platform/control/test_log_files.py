"""The attempts' logs as one, by byte offsets that stay valid while it grows."""

from __future__ import annotations

from pathlib import Path

from heliostat.control import log_files
from heliostat.store.tables import Attempt

MARKER = "[heliostat] attempt 2 of j started 2027-01-15T08:00:00Z\n"


def attempts(folder: Path, *texts: str) -> list[Attempt]:
    made = []
    for n, text in enumerate(texts, 1):
        path = folder / f"attempt-{n}.log"
        path.write_text(text)
        made.append(Attempt(job="j", n=n, epoch=n, started_ms=1_800_000_000_000, log_path=str(path)))
    return made


def test_attempts_are_joined_with_a_marker(tmp_path: Path) -> None:
    text, offset = log_files.page(attempts(tmp_path, "one\n", "two\n"), 0)
    assert text == f"one\n{MARKER}two\n"
    assert offset == len(text)


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    made = attempts(tmp_path, "one\n", "two\n")
    whole, end = log_files.page(made, 0)
    parts, offset = "", 0
    while offset < end:
        text, offset = log_files.page(made, offset, limit=7)
        parts += text
    assert parts == whole
    assert log_files.page(made, end) == ("", end)


def test_no_character_is_cut_in_two(tmp_path: Path) -> None:
    made = attempts(tmp_path, "aé")
    text, offset = log_files.page(made, 0, limit=2)
    assert (text, offset) == ("a", 1)
    assert log_files.page(made, offset) == ("é", 3)


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    missing = Attempt(job="j", n=1, epoch=1, started_ms=0, log_path=str(tmp_path / "none"))
    assert log_files.page([missing], 0) == ("", 0)
