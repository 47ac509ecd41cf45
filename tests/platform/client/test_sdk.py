"""Handles: what they ask, what they remember, how waiting ends."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable

import heliostat
import pytest
from heliostat.client import default
from heliostat.client.client import Client
from heliostat.client.job import Job
from heliostat.settings import Settings
from heliostat.wire.call import Caller
from heliostat.wire.errors import Conflict, ConnectionFailed, JobFailed, NeverFits, NotFound, WaitTimeout

from tests.platform.client.conftest import Clock
from tests.platform.client.fake_server import FakeServer

RUNNING = {"state": "running", "attempts": 1, "reason": None}
DONE = {"state": "succeeded", "exit_code": 0, "result": {"metrics": {"accuracy": 0.97}}, "metrics": {"accuracy": 0.97}}


def test_the_packages_functions_use_the_default_client(client: Client, server: FakeServer) -> None:
    job = heliostat.submit(["echo", "hi"], name="hello", gpus="1..2", priority="high", max_runtime="2h", hold=True)
    assert heliostat.job(job.id) == job
    assert heliostat.jobs(state="held") == [job]
    assert server.jobs[job.id]["gpus"] == {"min": 1, "max": 2, "held": 0}
    assert [queue["name"] for queue in heliostat.queues()] == ["root", "research"]
    assert heliostat.nodes()[0]["flavor"] == "a100"
    assert heliostat.tokens.ls() == []
    assert heliostat.whoami()["user"] == "ada"
    assert "Queue a job" in heliostat.submit.__doc__


def test_every_promised_name_is_there_and_no_other() -> None:
    for name in heliostat.__all__:
        if name not in ("tokens",):  # needs a control plane
            assert getattr(heliostat, name) is not None
    assert set(heliostat.__all__) <= set(dir(heliostat))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        heliostat.nonsense  # noqa: B018


def test_connect_makes_the_client_that_functions_use(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    client = heliostat.connect("http://127.0.0.1:1")
    assert default.current() is client and client.url == "http://127.0.0.1:1"
    other = heliostat.connect("http://127.0.0.1:2", make_default=False)
    assert default.current() is client and other is not client
    default.use(None)


def test_what_a_submission_sends(client: Client, server: FakeServer) -> None:
    first = client.submit("echo a | wc", kind="ray")
    client.submit(
        ["x"],
        after=[first, "job-99"],
        memory="1GiB",
        env={"A": "1"},
        metadata={"m": "2"},
        cpus=2,
        preemptibility="preemptible",
    )
    assert server.requests[0].body == b'{"kind":"ray","entrypoint":"echo a | wc"}'
    assert server.requests[1].body == (
        b'{"kind":"command","command":["x"],"cpus":2,"preemptibility":"preemptible","env":{"A":"1"},"metadata":{"m":"2"},'
        b'"memory_bytes":1073741824,"after":["job-01","job-99"]}'
    )


def test_waiting_ends_with_the_job(client: Client, server: FakeServer, clock: Clock) -> None:
    job = client.submit(["x"])
    server.script(job.id, {}, RUNNING, {}, DONE)
    assert job.wait() is job
    assert (job.state, job.exit_code, job.attempts) == ("succeeded", 0, 1)
    assert clock.slept == sorted(clock.slept) and len(clock.slept) == 3
    assert job.result() == {"metrics": {"accuracy": 0.97}}


def test_waiting_for_a_state(client: Client, server: FakeServer) -> None:
    job = client.submit(["x"])
    server.script(job.id, {}, RUNNING, DONE)
    assert job.wait(until="running").data["state"] == "running"
    server.script(job.id, DONE)
    assert job.wait(until="held").data["state"] == "succeeded", "a job that is over ends every wait"


def test_waiting_has_an_end_and_says_why_the_job_is_not_there(client: Client, clock: Clock) -> None:
    job = client.submit(["x"])
    with pytest.raises(WaitTimeout, match="After 5 s: job-01 queued: not looked at yet; position 1") as caught:
        job.wait(timeout=5)
    assert clock.now - 1000 == pytest.approx(5)
    assert caught.value.remedy == "It goes on. Ask why with: helio explain job-01"


def test_waiting_survives_a_restart_of_the_control_plane(client: Client, server: FakeServer, clock: Clock) -> None:
    job = client.submit(["x"])
    server.script(job.id, DONE)
    server.refuse(20)
    assert job.wait().state == "succeeded"
    server.refuse(500)
    with pytest.raises(ConnectionFailed):
        client.job(job.id)


def test_a_result_that_is_none(client: Client, server: FakeServer) -> None:
    job = client.submit(["x"])
    server.script(job.id, {"state": "failed", "exit_code": 3, "ran_s": 2})
    with pytest.raises(JobFailed, match=r"job-01 failed: exit code 3, ran 2s\. Read its log: helio logs job-01"):
        job.result()


async def test_a_job_can_be_awaited(
    client: Client, server: FakeServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_sleep(seconds: float) -> None:
        clock.sleep(seconds)

    job = client.submit(["x"])
    server.script(job.id, {}, RUNNING, DONE)
    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    assert (await job).state == "succeeded"


def test_state_is_current_and_does_not_hammer(client: Client, server: FakeServer, clock: Clock) -> None:
    job = client.submit(["x"])
    server.move(job.id, "running")
    assert job.state == "queued"
    clock.sleep(1)
    assert job.state == "running"
    asked = len(server.requests)
    assert [job.state for _ in range(100)] == ["running"] * 100
    assert len(server.requests) == asked


def test_doing_things_to_a_job(client: Client, server: FakeServer) -> None:
    job = client.submit(["x"], gpus=2)
    assert job.hold().data["state"] == "held"
    assert job.release().data["state"] == "queued"
    assert job.edit(gpus=1, priority="low").data["gpus"] == {"min": 1, "max": 1, "held": 0}
    assert job.cancel().data["state"] == "cancelled"
    with pytest.raises(Conflict):
        job.hold()
    job.delete()
    with pytest.raises(NotFound):
        job.refresh()


def test_never_fits_is_its_own_exception(client: Client) -> None:
    with pytest.raises(NeverFits) as caught:
        client.submit(["x"], gpus=9)
    assert caught.value.remedy == "Ask for at most 8: --gpus 8"


def test_a_pickle_carries_no_token(client: Client, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    job = client.submit(["x"])
    frozen = pickle.dumps(job)
    assert b"hs_test" not in frozen
    thawed = pickle.loads(frozen)
    assert thawed == job and isinstance(thawed, Job) and thawed.data == job.data
    assert hash(thawed) == hash(job)


def test_logs(client: Client, server: FakeServer) -> None:
    job = client.submit(["x"])
    server.logs[job.id] = "one\ntwo\nthrée"
    assert list(job.logs()) == ["one", "two", "thrée"]
    assert str(job.logs(offset=4)) == "two\nthrée"


def test_a_followed_log_neither_loses_nor_repeats_a_line(client: Client, server: FakeServer) -> None:
    job = client.submit(["x"])
    server.logs[job.id] = "".join(f"line {number} é\n" for number in range(20))
    server.cut_log_after = 60
    assert list(job.logs(follow=True)) == [f"line {number} é" for number in range(20)]


def test_following_a_log_gives_up_in_the_end(client: Client, server: FakeServer, clock: Clock) -> None:
    job = client.submit(["x"])
    server.refuse(1000)
    with pytest.raises(ConnectionFailed):
        list(job.logs(follow=True))
    assert 90 <= clock.now - 1000 <= 200


def test_events_of_a_job_and_of_everything(client: Client, server: FakeServer) -> None:
    job, other = client.submit(["x"]), client.submit(["y"])
    server.move(job.id, "running")
    assert [event["to"] for event in client.events(job)] == ["queued", "running"]
    assert [event["job"] for event in client.events()] == [job.id, other.id, job.id]
    assert [event["seq"] for event in client.events(follow=True, after=1)] == [2, 3]


def test_metrics(client: Client) -> None:
    metrics = client.submit(["x"]).metrics()
    assert metrics.latest() == {"loss": 0.2}
    assert metrics.series("loss") == [(0, 0.9), (1, 0.4), (2, 0.2)]
    assert "loss  0.2  █▃▁" in metrics.text()


def test_an_explanation(client: Client, server: FakeServer) -> None:
    job = client.submit(["x"])
    server.explanations[job.id] = {
        "code": "Held",
        "sentence": "somebody holds it",
        "remedies": [],
        "estimated_start": None,
    }
    told = job.explain()
    assert (told.code, told.sentence, told.remedies, told.estimated_start) == ("Held", "somebody holds it", [], None)


def test_all_pages_are_read(client: Client) -> None:
    for number in range(450):
        client.submit(["x"], name=str(number))
    assert len(client.jobs(limit=1000)) == 450
    assert [job.name for job in client.jobs(limit=3)] == ["449", "448", "447"]


def test_rays_module_address(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, make_caller: Callable[[Settings], Caller]
) -> None:
    for key, value in {**environ, "HELIOSTAT_PROJECT": "vision"}.items():
        monkeypatch.setenv(key, value)
    info = heliostat.get_job_submission_client_cluster_info(
        "", create_cluster_if_needed=False, cookies=None, headers=None
    )
    assert info.address == "http://127.0.0.1:8700"
    assert info.headers == {"Authorization": "Bearer hs_test"}
    assert info.metadata == {"project": "vision"}
    own = heliostat.get_job_submission_client_cluster_info("", headers={"authorization": "Bearer mine"})
    assert own.headers == {"authorization": "Bearer mine"}
