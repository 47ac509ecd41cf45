"""`helio model`, `helio train` and the SDK, against the application itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import heliostat
import pytest
from heliostat.cli.app import App
from heliostat.cli.main import run
from heliostat.client import default
from heliostat.client.client import Client
from heliostat.client.models import ModelVersion
from heliostat.registry import About, Actor
from heliostat.settings import Settings
from heliostat.store import jobs
from heliostat.wire.call import Caller
from heliostat.wire.errors import BadRequest, Conflict, HeliostatError, JobFailed, NotFound, ServiceError
from heliostat_jobs.spec import RECIPES
from heliostat_scheduler.core.lifecycle import JobState

from tests.platform.client.conftest import Clock, Outcome
from tests.platform.client.in_process import NOW_MS, InProcess, RowsOnly
from tests.platform.client.test_against_server import client as admin
from tests.platform.client.test_against_server import connect as connect
from tests.platform.client.test_against_server import control as control
from tests.platform.client.test_against_server import settings as settings
from tests.platform.client.test_against_server import transport as transport
from tests.platform.registry import artifact

__all__ = ["admin", "connect", "control", "settings", "transport"]
Helio = Callable[..., Outcome]


@pytest.fixture
def helio(transport: InProcess, settings: Settings, capsys: pytest.CaptureFixture[str]) -> Helio:
    """A command line against the application."""
    token = settings.admin_token_path.read_text().strip()

    def caller(given: Settings) -> Caller:
        clock = Clock()
        return Caller(transport, token=token, url=given.url, user_agent="test", sleep=clock.sleep, clock=clock)

    def call(*words: str) -> Outcome:
        capsys.readouterr()
        code = run(words, App(environ={"HELIOSTAT_HOME": str(settings.home)}, caller=caller))
        told = capsys.readouterr()
        return Outcome(code, told.out, told.err)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return artifact.write(tmp_path / "made")


def test_a_model_goes_in_and_comes_out(admin: Client, folder: Path, tmp_path: Path) -> None:
    made = admin.push("digits", folder, aliases=["champion"], tags={"team": "a"}, metrics={"accuracy": 0.97})
    assert (made.name, made.version, made.aliases, made.metrics) == ("digits", 1, ["champion"], {"accuracy": 0.97})
    found = admin.model("digits@champion")
    assert found.sha256 == made.sha256 and repr(found) == f"<ModelVersion digits:1 {made.sha256[:12]}>"
    out = found.download(tmp_path / "out")
    content = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert content.pop("manifest.json") and content == artifact.files()
    again = admin.push("digits", out)
    assert (again.version, again.sha256) == (2, made.sha256), "what was pulled is what was pushed"
    assert again.set_alias("champion").aliases == ["champion"]
    assert "champion" in str(admin.models()) and admin.model("digits:1").aliases == []
    assert found.lineage()["pushed_by"]
    admin.model("digits:1").delete()
    with pytest.raises(NotFound, match="no version 1"):
        admin.model("digits:1")
    with pytest.raises(Conflict, match="@champion"):
        admin.model("digits").delete()


def test_a_stale_guarded_move_is_a_conflict(admin: Client, folder: Path) -> None:
    for _ in range(3):
        admin.push("digits", folder)
    calls = admin.model_calls
    calls.set_alias("digits", "champion", 1)
    calls.set_alias("digits", "champion", 2, only_if=1)
    with pytest.raises(Conflict, match="moved"):
        calls.set_alias("digits", "champion", 3, only_if=1)
    assert admin.model("digits@champion").version == 2


def test_a_damaged_download_leaves_nothing(
    admin: Client, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = admin.push("digits", folder)
    bad = ModelVersion(admin.model_calls, {**made.data, "sha256": "0" * 64})
    with pytest.raises(ServiceError, match="another digest"):
        bad.download(tmp_path / "out")
    assert not (tmp_path / "out").exists() and not [p for p in tmp_path.iterdir() if p.name.startswith("tmp")]


def test_what_is_no_model_folder_is_refused_before_anything_is_sent(admin: Client, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"model\.json"):
        admin.push("digits", tmp_path)
    (artifact.write(tmp_path / "m") / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadRequest, match="link"):
        admin.push("digits", tmp_path / "m")
    with pytest.raises(BadRequest, match="empty folder"):
        admin.push("digits", artifact.write(tmp_path / "good")).download(tmp_path / "good")


def test_the_command_line(helio: Helio, folder: Path, tmp_path: Path) -> None:
    assert helio("model", "ls").out == "no models\n"
    pushed = helio("model", "push", "digits", str(folder), "--alias", "champion", "--tag", "a=b", "--metric", "acc=0.9")
    assert (pushed.code, pushed.out) == (0, "digits:1\n")
    assert "@champion 1" in helio("model", "ls").out
    shown = helio("model", "show", "digits").out
    assert "x FP32[*, 4]" in shown and "a=b" in shown and "VERSION" in shown
    assert helio("model", "show", "digits@champion", "--json").json["version"] == 1
    assert helio("model", "pull", "digits:1", str(tmp_path / "out")).out == f"{tmp_path / 'out'}\n"
    (tmp_path / "file").touch()
    below = helio("model", "pull", "digits:1", str(tmp_path / "file" / "out"))
    assert below.code == 2 and "cannot be written" in below.err
    assert helio("model", "push", "digits", str(tmp_path / "out"), "--variant-of", "1").out == "digits:2\n"
    assert helio("model", "alias", "digits", "@champion", "2", "--if", "1").out == "digits@champion -> digits:2\n"
    assert helio("model", "alias", "digits", "champion", "1", "--if", "1").code == 5
    assert "variant of  1" in helio("model", "lineage", "digits").out
    refused = helio("model", "rm", "digits:2")
    assert refused.code == 5 and "@champion" in refused.err
    assert helio("model", "rm", "digits").code == 2
    assert helio("model", "alias", "digits", "champion", "--rm").code == 0
    assert helio("model", "rm", "digits:2").out == "digits:2 deleted\n"
    assert helio("model", "rm", "digits", "--all").code == 0
    assert helio("model", "show", "digits").code == 3
    for words in (("show", "a:b"), ("push", "a/b", str(folder)), ("alias", "digits", "latest", "1")):
        told = helio("model", *words, "--json")
        assert told.code in (2, 3) and json.loads(told.err)["remedy"], words


def test_recipes_are_listed(helio: Helio) -> None:
    assert all(name in helio("train").out for name in RECIPES)
    assert [item["name"] for item in helio("train", "--json").json["items"]] == list(RECIPES)


def test_train_queues_the_recipe(helio: Helio) -> None:
    line = (
        "train",
        "digits-cnn",
        "--epochs",
        "5",
        "--workers",
        "1..2",
        "--register",
        "digits",
        "--alias",
        "fresh",
        "--seed=3",
    )
    job = helio(*line, "--json").json
    assert job["entrypoint"] == (
        "python -m heliostat_jobs.recipes.digits_cnn --epochs 5 --seed 3 --workers 1-2 --device auto"
    )
    assert (job["kind"], job["name"], job["gpus"]["min"], job["gpus"]["max"]) == ("ray", "digits-cnn", 1, 2)
    assert job["metadata"] == {"register": "digits", "register_alias": "fresh"}
    forest = helio("train", "wine-forest", "--trees", "10", "--register", "wine", "--json").json
    assert (forest["kind"], forest["gpus"]["max"]) == ("command", 0)
    cpu = helio("train", "digits-cnn", "--device", "cpu", "--json").json
    assert (cpu["gpus"]["max"], cpu["entrypoint"].split()[-2:]) == (0, ["--device", "cpu"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("digits-cnn", "--ephocs", "5"), "no option 'ephocs'"),
        (("digits-cnn", "--epochs", "many"), "not a whole number"),
        (("digits-cnn", "--epochs"), "needs a value"),
        (("digits-cnn", "--workers", "0"), "no number of workers"),
        (("digits-cnn", "--workers", "4..1"), "no number"),
        (("digits-cnn", "--register", "a/b"), "no name of a model"),
        (("digits-cnn", "--register", "a", "--alias", "latest"), "alias"),
        (("digits-cnn", "--alias", "a"), "without a model"),
        (("wine-forest", "--workers", "2"), "one process"),
        (("digits-cnm",), "neither a recipe nor a Python script"),
        (("gone.py",), "no script"),
        (("digits-cnn", "--workers", "7"), "device cpu"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_waits(helio: Helio, words: tuple[str, ...], says: str) -> None:
    told = helio("train", *words)
    assert told.code in (2, 7) and says in told.err, told.err
    assert "no jobs" in helio("ps", "-a").out.lower() or helio("ps", "-a", "--json").json == {"items": []}


def test_a_script_brings_its_folder_and_its_arguments(admin: Client, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "fit.py").write_text("print(1)")
    job = admin.train(tmp_path / "code" / "fit.py", workers=2, register="mine", args=["--lr", "0.1"])
    assert job.data["entrypoint"] == "python fit.py --lr 0.1" and job.data["gpus"]["max"] == 2
    with pytest.raises(BadRequest, match="no option of train"):
        admin.train(tmp_path / "code" / "fit.py", epochs=5)


def test_a_function_travels_with_its_module(admin: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: dict[str, Any] = {}

    def keep(self: Client, source: Path, project: str = "") -> str:
        sent.update({path.name: path.read_bytes() for path in source.iterdir()})
        return ""

    monkeypatch.setattr(Client, "upload", keep)
    job = admin.train(a_loop, workers=2, config={"lr": 0.1}, register="mine")
    assert job.data["entrypoint"].startswith("python -m heliostat_jobs.recipes.function --workers 2")
    about = json.loads(sent["function.json"])
    assert about["name"] == "a_loop" and about["config"] == {"lr": 0.1}
    import pickle

    assert pickle.loads(sent["function.pkl"])({"lr": 0.1}) == 0.2
    with pytest.raises(BadRequest, match="cannot be sent"):
        admin.train(holds_a_lock())
    with pytest.raises(BadRequest, match="no plain JSON"):
        admin.train(a_loop, config={"x": object()})


def a_loop(config: dict[str, float]) -> float:
    return config["lr"] * FACTOR


FACTOR = 2


def holds_a_lock() -> Callable[[], None]:
    import threading

    lock = threading.Lock()

    def loop() -> None:
        with lock:
            pass

    return loop


def test_a_job_knows_its_model(
    admin: Client, control: RowsOnly, transport: InProcess, settings: Settings, folder: Path
) -> None:
    job = admin.submit(["true"], gpus=1)
    for state in (JobState.ADMITTED, JobState.STARTING, JobState.RUNNING, JobState.SUCCEEDED):
        control.move(job.id, state)
    with pytest.raises(HeliostatError, match="no model yet"):
        job.model(timeout=0.5)
    app = transport._client._transport.app  # type: ignore[attr-defined]
    registry = app.state.doors.registry
    with registry.folders.staging() as staged:
        artifact.write(staged)
        registry.push(job.data["project"], "digits", staged, About(job=job.id, attempt=1), Actor("ann", NOW_MS))
    assert job.model().version == 1
    lineage = job.model().lineage()
    assert lineage["job"] is not None and lineage["job"]["id"] == job.id


def test_a_job_whose_model_was_refused_says_why(admin: Client, control: RowsOnly) -> None:
    from heliostat.registry import asking

    job = admin.submit(["true"], gpus=1, metadata={"register": "digits"})
    for state in (JobState.ADMITTED, JobState.STARTING, JobState.RUNNING, JobState.SUCCEEDED):
        control.move(job.id, state)
    control.store.write(lambda session: asking.ask(session, jobs.get(session, job.id), 1, None, NOW_MS))
    with pytest.raises(JobFailed, match=r"no result\.json"):
        job.model()


def test_the_packages_functions(admin: Client, folder: Path) -> None:
    default.use(admin)
    try:
        assert heliostat.push("digits", folder).version == 1
        assert heliostat.model("digits").version == 1 and len(heliostat.models()) == 1
        assert [recipe.name for recipe in heliostat.recipes()] == list(RECIPES)
        assert heliostat.train("wine-forest", trees=5).data["kind"] == "command"
    finally:
        default.use(None)
