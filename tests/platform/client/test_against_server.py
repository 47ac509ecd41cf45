"""The client and the real front door agree: the same calls as against the fake, through the application itself."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from heliostat.access import Tokens
from heliostat.api.app import create_app
from heliostat.cli.app import App
from heliostat.cli.main import run
from heliostat.client.client import Client
from heliostat.settings import Settings, load
from heliostat.store import Store
from heliostat.wire.call import Caller
from heliostat.wire.errors import BadRequest, Conflict, Forbidden, HeliostatError, NeverFits, NotFound, Unauthenticated
from heliostat_scheduler.core.lifecycle import JobState

from tests.platform.client.conftest import Clock, Outcome
from tests.platform.client.in_process import NOW_MS, InProcess, RowsOnly

QUEUES = "queues:\n  default:\n    quota: unlimited\n  small:\n    limit: {gpu: 1}\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(environ={"HELIOSTAT_HOME": str(tmp_path / "home")})


@pytest.fixture
def control(settings: Settings) -> Iterator[RowsOnly]:
    settings.home.mkdir()
    store = Store(settings.database_url)
    yield RowsOnly(store)
    store.close()


@pytest.fixture
def transport(control: RowsOnly, settings: Settings) -> Iterator[InProcess]:
    Tokens(control.store, lambda: NOW_MS).ensure_admin(settings.admin_token_path)
    made = InProcess(create_app(control.store, control, settings), settings.url)
    yield made
    made.close()


@pytest.fixture
def connect(transport: InProcess, settings: Settings) -> Callable[[str], Client]:
    """A client with this token."""

    def make(token: str) -> Client:
        clock = Clock()
        mine = dataclasses.replace(settings, token=token)
        caller = Caller(transport, token=token, url=settings.url, user_agent="test", sleep=clock.sleep, clock=clock)
        return Client(mine, caller=caller)

    return make


@pytest.fixture
def client(connect: Callable[[str], Client], settings: Settings) -> Client:
    return connect(settings.admin_token_path.read_text().strip())


def test_a_jobs_life(client: Client, control: RowsOnly) -> None:
    job = client.submit(
        ["echo", "hi"],
        name="hello",
        gpus="1..2",
        priority="high",
        env={"A": "1"},
        metadata={"m": "1"},
        max_runtime="2h",
    )
    assert (job.data["state"], job.name, job.data["gpus"]) == ("queued", "hello", {"min": 1, "max": 2, "held": 0})
    assert (
        client.jobs() == [job]
        and client.jobs(state="running") == []
        and client.jobs(queue="default", state=["queued"]) == [job]
    )
    assert job.explain().sentence == "both are taken"
    assert job.hold().data["state"] == "held"
    assert job.release().data["state"] == "queued"
    changed = job.edit(gpus=1, priority="low").data
    assert changed["gpus"]["max"] == 1 and changed["priority_class"] == "low"
    for state in (JobState.ADMITTED, JobState.STARTING, JobState.RUNNING, JobState.SUCCEEDED):
        control.move(job.id, state)
    assert job.wait().state == "succeeded"
    assert str(job.logs()) == control.log and list(job.logs(follow=True)) == control.log.splitlines()
    assert [event["to"] for event in job.events()][-1] == "succeeded"
    assert job.metrics() == []
    with pytest.raises(Conflict):
        job.hold()
    job.delete()
    with pytest.raises(NotFound):
        job.refresh()


def test_pages(client: Client) -> None:
    made = [client.submit(["true"]).id for _ in range(5)]
    pages = client.list_jobs(state=None, queue=None, user=None, limit=1000)
    assert [job["id"] for job in pages] == made[::-1]


def test_a_repeated_submission_is_one_job(
    client: Client, transport: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [
        client.caller.json("POST", "/jobs", {"command": ["x"]}, headers={"Idempotency-Key": "k"})["id"]
        for _ in range(2)
    ]
    assert calls[0] == calls[1] and len(client.jobs()) == 1


def test_a_folder_travels_once(client: Client, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "train.py").write_text("print(1)")
    client.submit(tmp_path / "work" / "train.py")
    uploads = [client.upload(tmp_path / "work") for _ in range(2)]
    assert uploads[0] == uploads[1]
    (tmp_path / "work" / "platform").mkdir()
    (tmp_path / "work" / "platform" / "__init__.py").write_text("")
    with pytest.raises(BadRequest, match="platform") as caught:
        client.submit(["python", "train.py"], working_dir=tmp_path / "work")
    assert caught.value.remedy
    assert len(client.jobs()) == 1, "nothing half-created"


REFUSED = [
    pytest.param({"queue": "nowhere"}, HeliostatError, id="unknown queue"),
    pytest.param({"priority": "urgent"}, BadRequest, id="unknown priority"),
    pytest.param({"gpus": 9}, NeverFits, id="more than the cluster has"),
    pytest.param({"env": {"RAY_X": "1"}}, BadRequest, id="reserved environment name"),
    pytest.param({"project": "nobodys"}, HeliostatError, id="unknown project"),
    pytest.param({"after": ["job-nope"]}, NotFound, id="unknown job to wait for"),
    pytest.param({"flavor": "h100"}, HeliostatError, id="unknown flavor"),
]


@pytest.mark.parametrize(("asked", "kind"), REFUSED)
def test_bad_requests(client: Client, asked: dict[str, object], kind: type[HeliostatError]) -> None:
    with pytest.raises(kind) as caught:
        client.submit(["x"], **asked)  # type: ignore[arg-type]
    assert caught.value.remedy and caught.value.code and caught.value.request_id
    assert client.jobs() == []


def test_tokens(client: Client, connect: Callable[[str], Client]) -> None:
    made = client.tokens.create(role="viewer", project="default", name="bob", expires="1h")
    viewer = connect(made["token"])
    assert viewer.whoami()["role"] == "viewer"
    with pytest.raises(Forbidden):
        viewer.submit(["x"])
    assert [token["name"] for token in client.tokens.ls()].count("bob") == 1
    client.tokens.revoke(made["id"])
    with pytest.raises(Unauthenticated):
        viewer.whoami()
    with pytest.raises(Unauthenticated):
        connect("").queues()


def test_the_rest_answers(client: Client) -> None:
    assert client.version()["api"] == 1
    assert client.queues()[0]["name"] == "default" and "default" in client.queues().text()
    assert client.nodes()[0]["id"] == "n1" and "0/2" in client.nodes().text()
    assert client.plan(["x"], gpus=1)["starts_now"] is True
    assert client.jobs() == []


def test_queue_files(client: Client) -> None:
    assert [change["queue"] for change in client.diff_queues(QUEUES)["changes"]].count("small") >= 1
    client.apply_queues(QUEUES)
    assert client.queue_file().text == QUEUES
    assert client.apply_queues(QUEUES)["changes"] == []
    with pytest.raises(BadRequest, match="line 3"):
        client.diff_queues("queues:\n  default:\n    quotaa: 1\n")
    with pytest.raises(NeverFits):
        client.submit(["x"], gpus=2, queue="small")


@pytest.fixture
def helio(transport: InProcess, settings: Settings, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    clock = Clock()

    def caller(found: Settings) -> Caller:
        return Caller(transport, token=found.token, url=found.url, user_agent="test", sleep=clock.sleep, clock=clock)

    def call(*arguments: str) -> Outcome:
        code = run(arguments, App(environ={"HELIOSTAT_HOME": str(settings.home)}, caller=caller))
        told = capsys.readouterr()
        return Outcome(code, told.out, told.err)

    return call


def test_the_command_line(
    helio: Callable[..., Outcome], control: RowsOnly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = helio("submit", "--gpus", "1", "--name", "hello", "--", "echo", "hi")
    job_id = told.out.strip()
    assert told.code == 0 and f"next: helio logs -f {job_id}" in told.err
    assert job_id in helio("ps").out and helio("ps", "--json").json["items"][0]["id"] == job_id
    assert "hello" in helio("ps", job_id).out
    assert "both are taken" in helio("explain", job_id).out
    assert helio("logs", job_id).out == control.log
    assert helio("priority", job_id, "low").code == 0
    assert f"{job_id} held" in helio("hold", job_id).out
    assert helio("queue", "ls").code == 0 and helio("queue", "show").out.startswith("#")
    (tmp_path / "q.yaml").write_text(QUEUES)
    assert "small" in helio("queue", "apply", str(tmp_path / "q.yaml"), "--diff").out
    assert helio("nodes").code == 0 and "admin" in helio("whoami").out and "server" in helio("version").out
    assert helio("cancel", job_id).code == 0
    lines = helio("events", job_id).out.splitlines()
    assert len(lines) >= 3
    monkeypatch.setattr("sys.stdin", io.StringIO("hs_wrong\n"))
    assert helio("login", "http://127.0.0.1:8700", "--token-stdin").code == 4
    assert helio("ps", "job-none").code == 3
    assert helio("submit", "--gpus", "9", "--", "x").code == 7
    assert helio("hold", job_id).code == 5
    assert json.loads(helio("ps", "job-none", "--json").err)["code"] == "unknown_job"
    assert len(helio("events").out.splitlines()) >= 3
