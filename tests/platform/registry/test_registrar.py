"""The model of a finished job: registered once, refused with an event, and the job has succeeded all the same."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heliostat.artifacts import ArtifactFolders, scan
from heliostat.registry import ModelLimits, ModelVersion, Registry, resolve
from heliostat.registry.registrar import Registrar
from heliostat.store import events
from heliostat.store.model_tables import ModelRegistration
from sqlalchemy import select

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant
from tests.platform.registry import artifact

JOB = "r1"
RESULT: dict[str, Any] = {
    "metrics": {"accuracy": 0.97},
    "model": {"path": "model", "name": "digits"},
    "params": {"seed": 7},
}


def registry_of(plant: Plant) -> Registry:
    return Registry(plant.store, ArtifactFolders(str(plant.folder / "artifacts")), ModelLimits(unpacked_bytes=100_000))


def registrar_of(plant: Plant, registry: Registry | None = None) -> Registrar:
    runs = plant.folder / "runs"
    return Registrar(
        registry or registry_of(plant), lambda job: runs / job, lambda: 1_800_000_900_000, lambda *_told: None
    )


def finish(plant: Plant, result: Any, prepare: Callable[[Path], None] | None = None, **submission: Any) -> Path:
    """Let a job run, leave this in its run folder, and succeed."""
    plant.submit(JOB, work=Script(runs_ms=700), **submission)
    plant.until(lambda: plant.state(JOB) == "running", "the job to run")
    run = plant.folder / "runs" / JOB
    artifact.write(run / "model")
    if prepare is not None:
        prepare(run)
    (run / "result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    plant.until(lambda: plant.state(JOB) == "succeeded", "the job to succeed")
    return run


def story(plant: Plant, *kinds: str) -> list[dict[str, Any]]:
    with plant.store.read() as session:
        return [event.data for event in events.after(session, 0, job=JOB) if event.kind in kinds]


def versions(plant: Plant) -> list[ModelVersion]:
    with plant.store.read() as session:
        return list(session.execute(select(ModelVersion)).scalars())


def test_the_model_of_a_job_is_registered_once(plant: Plant) -> None:
    finish(plant, {**RESULT, "model": {**RESULT["model"], "aliases": ["champion"], "tags": {"team": "a"}}})
    assert versions(plant) == []
    registrar = registrar_of(plant)
    assert registrar.work_off() == 0 and registrar.work_off() == 0
    assert registrar_of(plant).work_off() == 0  # a control plane that was started again
    (row,) = versions(plant)
    assert (row.model, row.version, row.job, row.attempt, row.tags) == ("digits", 1, JOB, 1, {"team": "a"})
    assert row.metrics == {"accuracy": 0.97} and row.lineage["params"] == {"seed": 7}
    (told,) = story(plant, "model_registered")
    assert (told["model"], told["version"], told["sha256"]) == ("digits", 1, row.sha256)
    with plant.store.read() as session:
        assert resolve(session, row.project, "digits@champion").version == 1
    assert registry_of(plant).folders.verify(row.sha256).size == row.size_bytes


def test_a_finish_that_is_told_again_asks_once(plant: Plant) -> None:
    from heliostat.control import results

    finish(plant, RESULT)
    told = plant.job(JOB).result
    plant.store.write(lambda session: results.finished(session, JOB, 1, told, 5))
    registrar_of(plant).work_off()
    plant.store.write(lambda session: results.finished(session, JOB, 1, told, 6))
    registrar_of(plant).work_off()
    assert [row.version for row in versions(plant)] == [1]


def test_the_name_of_the_submission_wins(plant: Plant) -> None:
    finish(plant, RESULT, job_metadata={"register": "mine", "register_alias": "fresh"})
    registrar_of(plant).work_off()
    assert [row.model for row in versions(plant)] == ["mine"]
    with plant.store.read() as session:
        assert resolve(session, versions(plant)[0].project, "mine@fresh").version == 1


def test_a_model_without_a_name_stays_in_its_run_folder(plant: Plant) -> None:
    finish(plant, {**RESULT, "model": {"path": "model"}})
    assert registrar_of(plant).work_off() == 0 and versions(plant) == []
    assert story(plant, "model_refused", "result_refused") == []


def link_model(run: Path) -> None:
    artifact.write(run.parent / "elsewhere")
    (run / "linked").symlink_to(run.parent / "elsewhere")


def link_weights(run: Path) -> None:
    (run / "model" / "model.safetensors").unlink()
    (run / "model" / "model.safetensors").symlink_to("/etc/passwd")


def pickle_it(run: Path) -> None:
    for path in sorted((run / "model").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    artifact.write(run / "model", artifact.files(kind="pickle"))


def model(**changed: Any) -> dict[str, Any]:
    return {**RESULT, "model": {**RESULT["model"], **changed}}


BAD = [
    pytest.param("{", None, "result_refused", "bad_result", id="half a result"),
    pytest.param({**RESULT, "metrics": {"loss": float("nan")}}, None, "result_refused", "bad_result", id="a metric that is NaN"),
    pytest.param(model(path="../r0/model"), None, "result_refused", "bad_result", id="a path with dots"),
    pytest.param(model(path="/etc"), None, "result_refused", "bad_result", id="an absolute path"),
    pytest.param(model(path="gone"), None, "model_refused", "model_missing", id="a folder that is not there"),
    pytest.param(model(path="result.json"), None, "model_refused", "bad_model", id="a file instead of a folder"),
    pytest.param(model(path="linked"), link_model, "model_refused", "model_escapes", id="a link out of the run folder"),
    pytest.param(RESULT, link_weights, "model_refused", "artifact_link", id="weights that are a link"),
    pytest.param(
        RESULT, lambda run: os.mkfifo(run / "model" / "pipe"), "model_refused", "artifact_link", id="a pipe among the files"
    ),
    pytest.param(RESULT, pickle_it, "model_refused", "pickle_refused", id="a pickle"),
    pytest.param(model(sha256="0" * 64), None, "model_refused", "digest_mismatch", id="another digest"),
    pytest.param(
        RESULT,
        lambda run: (run / "model" / "model.safetensors").write_bytes(artifact.safetensors()[:-1]),
        "model_refused",
        "bad_weights",
        id="weights that are cut off",
    ),
    pytest.param(
        RESULT, lambda run: (run / "model" / "model.json").write_text("[]"), "model_refused", "bad_model", id="a bad card"
    ),
    pytest.param(
        RESULT,
        lambda run: (run / "model" / "big").write_bytes(b"0" * 200_000),
        "model_refused",
        "artifact_too_large",
        id="too much",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("result", "prepare", "kind", "code"), BAD)
def test_what_cannot_be_registered_is_an_event_of_a_job_that_succeeded(
    plant: Plant, result: Any, prepare: Callable[[Path], None] | None, kind: str, code: str
) -> None:
    finish(plant, result, prepare)
    assert registrar_of(plant).work_off() == 0 and registrar_of(plant).work_off() == 0
    (told,) = story(plant, "model_refused", "result_refused")
    assert told["code"] == code and told["text"]
    assert story(plant, kind) == [told]
    assert plant.state(JOB) == "succeeded" and versions(plant) == []
    assert list((plant.folder / "artifacts").rglob("*.safetensors")) == []


def test_a_job_that_was_to_register_and_wrote_no_model_says_so(plant: Plant) -> None:
    finish(plant, {"metrics": {}}, job_metadata={"register": "digits"})
    (told,) = story(plant, "model_refused")
    assert told["code"] == "no_model" and registrar_of(plant).work_off() == 0


def test_a_full_disk_delays_and_the_model_comes_when_there_is_room(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(plant, RESULT)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    registrar = registrar_of(plant)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        assert [registrar.work_off(), registrar.work_off()] == [1, 1]
    (told,) = story(plant, "model_delayed")
    assert "No space left" in told["text"] and "Free space" in told["remedy"]
    assert registrar.work_off() == 0 and [row.version for row in versions(plant)] == [1]


@pytest.mark.parametrize("where", ["rename", "write_bytes"])
def test_a_crash_in_the_middle_leaves_an_entry_that_the_next_start_finishes(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_given: Any, **_more: Any) -> Any:
        raise Killed

    run = finish(plant, RESULT)
    with monkeypatch.context() as patched:
        patched.setattr(Path, where, killed)
        with pytest.raises(Killed):
            registrar_of(plant).work_off()
    registry = registry_of(plant)
    assert not registry.folders.has(scan(run / "model").digest) and versions(plant) == []
    registry.folders.sweep()
    assert registrar_of(plant, registry).work_off() == 0
    assert [row.version for row in versions(plant)] == [1]


def test_a_crash_between_artifact_and_row_makes_one_version(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_given: Any, **_more: Any) -> Any:
        raise Killed

    finish(plant, RESULT)
    registry = registry_of(plant)
    with monkeypatch.context() as patched:
        patched.setattr(Registry, "_enter", killed)
        with pytest.raises(Killed):
            registrar_of(plant, registry).work_off()
    assert registrar_of(plant).work_off() == 0
    assert [row.version for row in versions(plant)] == [1]
    with plant.store.read() as session:
        (entry,) = session.execute(select(ModelRegistration)).scalars()
    assert (entry.state, entry.version) == ("done", 1)
