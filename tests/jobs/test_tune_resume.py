"""When the next attempt goes on with a search, and when it begins a new one."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.tune import inject
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


@pytest.fixture
def tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`ray.tune.tune` with a `run` that says what it was given; each call of `attempt` is a new process of the job."""
    given: list[dict[str, Any]] = []
    module = ModuleType("ray.tune.tune")
    module.run = lambda *args, **kwargs: given.append(kwargs)  # type: ignore[attr-defined]
    inject.patch_tune_run(module)

    def attempt(number: int) -> None:
        for name, value in (
            ("JOB", "job-1"), ("ATTEMPT", str(number)), ("LEASE_SECRET", "s"), ("RUN_DIR", str(tmp_path)),
        ):  # fmt: skip
            monkeypatch.setenv(f"HELIOSTAT_{name}", value)
        monkeypatch.setattr(inject, "_searches", itertools.count(1))

    attempt(1)
    return SimpleNamespace(run=module.run, given=given, attempt=attempt)


def trial(config: dict[str, Any]) -> None: ...


def test_a_search_by_run_alone_is_resumed_by_the_next_attempt(tune: Any, tmp_path: Path) -> None:
    tune.run(trial, num_samples=2)
    with_state(tmp_path / "tune", "job-1-tune-1")
    tune.run(trial)
    tune.attempt(2)
    tune.run(trial, num_samples=2)
    place = {"name": "job-1-tune-1", "storage_path": str(tmp_path / "tune")}
    assert tune.given[0] == {"num_samples": 2, **place}
    assert tune.given[1] == {**place, "name": "job-1-tune-2"}
    assert tune.given[2] == {"num_samples": 2, **place, "resume": inject.RESUME}


def test_what_the_script_says_about_resumption_stands(tune: Any, tmp_path: Path) -> None:
    tune.run(trial, name="mine", storage_path=str(tmp_path / "s"))
    with_state(tmp_path / "s")
    tune.attempt(2)
    tune.run(trial, name="mine", storage_path=str(tmp_path / "s"), resume=False)
    assert tune.given[1] == {"name": "mine", "storage_path": str(tmp_path / "s"), "resume": False}


def test_what_a_tuner_calls_and_experiments_stay_as_they_are(tune: Any, tmp_path: Path) -> None:
    from heliostat_jobs.tune.tune_private import AirEntrypoint, Experiment

    tune.run(run_or_experiment=trial, name="a", _entrypoint=AirEntrypoint.TUNER)
    experiment = Experiment("b", trial, storage_path=str(tmp_path / "own"))
    tune.run([experiment])
    tune.run(experiment, _entrypoint=AirEntrypoint.TUNE_RUN_EXPERIMENTS)
    assert [sorted(kwargs) for kwargs in tune.given] == [
        ["_entrypoint", "name", "run_or_experiment"],
        [],
        ["_entrypoint"],
    ]
