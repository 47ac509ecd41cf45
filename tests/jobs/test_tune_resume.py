"""When the next attempt goes on with a search, and when it begins a new one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.tune.resume import begun, default_run_config, remember


def attempt(run_dir: Path, number: int) -> Attempt:
    return Attempt("job-1", number, run_dir, run_dir / "checkpoints", "secret")


def config(storage: Path, name: str = "mine") -> Any:
    return SimpleNamespace(name=name, storage_path=str(storage), storage_filesystem=None)


def with_state(storage: Path, name: str = "mine") -> None:
    (storage / name).mkdir(parents=True)
    (storage / name / "experiment_state-2026.json").write_text("{}")


def test_a_search_of_an_earlier_attempt_is_found(tmp_path: Path) -> None:
    remember(config(tmp_path / "s"), attempt(tmp_path, 1))
    with_state(tmp_path / "s")
    assert begun(config(tmp_path / "s"), attempt(tmp_path, 2)) == f"{tmp_path}/s/mine"


@pytest.mark.parametrize(
    ("began", "state", "now"),
    [
        pytest.param(None, True, 2, id="yesterday's search under that name is not ours"),
        pytest.param(1, False, 2, id="one that never saved its state begins anew"),
        pytest.param(1, True, 1, id="a second search of this attempt begins anew"),
    ],
)
def test_otherwise_it_begins_anew(tmp_path: Path, began: int | None, state: bool, now: int) -> None:
    if began is not None:
        remember(config(tmp_path / "s"), attempt(tmp_path, began))
    if state:
        with_state(tmp_path / "s")
    assert begun(config(tmp_path / "s"), attempt(tmp_path, now)) == ""


def test_several_searches_are_remembered(tmp_path: Path) -> None:
    for name in ("a", "b"):
        remember(config(tmp_path / "s", name), attempt(tmp_path, 1))
        with_state(tmp_path / "s", name)
    assert begun(config(tmp_path / "s", "a"), attempt(tmp_path, 3)).endswith("/a")
    assert begun(config(tmp_path / "s", "b"), attempt(tmp_path, 3)).endswith("/b")


def test_a_search_without_a_name_and_place_gets_the_jobs(tmp_path: Path) -> None:
    from ray.tune import RunConfig

    made = default_run_config(None, attempt(tmp_path, 1), 2)
    assert (made.name, made.storage_path) == ("job-1-tune-2", str(tmp_path / "tune"))
    kept = default_run_config(RunConfig(name="mine", storage_path="/elsewhere"), attempt(tmp_path, 1), 1)
    assert (kept.name, kept.storage_path) == ("mine", "/elsewhere")
