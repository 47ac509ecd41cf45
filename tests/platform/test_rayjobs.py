"""Ray's Jobs REST API as Ray 2.60's client uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from heliostat.access import Role
from heliostat.store import jobs
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.reasons import Reason, ReasonCode

from tests.platform.conftest import House
from tests.platform.sockets import Closed, Refused, Socket
from tests.platform.test_packages import zipped

PACKAGE = "/api/packages/gcs/_ray_pkg_0123456789abcdef.zip"


async def submit(client: httpx.AsyncClient, metadata: dict[str, Any] | None = None, **given: Any) -> httpx.Response:
    return await client.post("/api/jobs/", json={"entrypoint": "python train.py", "metadata": metadata or {}, **given})


async def test_the_version_is_one_that_rays_client_speaks_with(client: httpx.AsyncClient) -> None:
    told = (await client.get("/api/version")).json()
    assert told["version"] == "4"
    assert told["ray_version"].startswith("2.")


async def test_a_working_directory_goes_up_once_and_belongs_to_its_project(
    house: House, client: httpx.AsyncClient
) -> None:
    assert (await client.get(PACKAGE)).status_code == 404
    assert (await client.put(PACKAGE, content=zipped("train.py"))).status_code == 200
    assert (await client.get(PACKAGE)).status_code == 200
    uri = "gcs://" + PACKAGE.rsplit("/", 1)[1]
    accepted = await submit(client, runtime_env={"working_dir": uri, "_ray_commit": "x"})
    assert accepted.status_code == 200, accepted.text
    with house.store.read() as session:
        assert jobs.get(session, accepted.json()["submission_id"]).package_uri == uri
    async with house.client("ocr/member") as other:
        assert (await other.get(PACKAGE)).status_code == 404
        assert "no package" in (await submit(other, runtime_env={"working_dir": uri})).text


async def test_an_administrators_upload_comes_along_to_the_jobs_project(house: House) -> None:
    async with house.client("*/admin") as root:
        await root.put(PACKAGE, content=zipped("train.py"))
        uri = "gcs://" + PACKAGE.rsplit("/", 1)[1]
        answer = await submit(root, {"project": "ocr"}, runtime_env={"working_dir": uri})
        assert answer.status_code == 200, answer.text
    async with house.client("ocr/member") as member:
        assert (await member.get(PACKAGE)).status_code == 200


UPLOADS = [
    ("platform/__init__.py", zipped("platform/__init__.py"), 400, "platform/__init__.py"),
    ("a path that leaves", zipped("../x"), 400, "leaves its folder"),
    ("no zip", b"x", 400, "no readable zip"),
    ("too large", b"x" * 200_001, 413, "larger"),
]


@pytest.mark.parametrize(("data", "status", "words"), [case[1:] for case in UPLOADS], ids=[case[0] for case in UPLOADS])
async def test_a_bad_package_is_refused_in_words_and_not_kept(
    client: httpx.AsyncClient, data: bytes, status: int, words: str
) -> None:
    answer = await client.put(PACKAGE, content=data)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert words in answer.text
    assert "What to do:" in answer.text
    assert (await client.get(PACKAGE)).status_code == 404


async def test_metadata_carries_what_ray_has_no_field_for(house: House, client: httpx.AsyncClient) -> None:
    metadata = {
        "queue": "production",
        "priority": "high",
        "min_gpus": "1",
        "max_gpus": "2",
        "flavor": "gpu",
        "project": "vision",
        "preemptibility": "semi-preemptible",
        "max_runtime_s": "3600",
        "owner": "me",
    }
    answer = await submit(client, metadata, submission_id="raysubmit_1")
    assert answer.json() == {"job_id": "raysubmit_1", "submission_id": "raysubmit_1"}
    with house.store.read() as session:
        row = jobs.get(session, "raysubmit_1")
    assert (row.queue, row.priority, row.min_tasks, row.max_tasks, row.gpu_milli) == ("production", 150, 1, 2, 1000)
    assert (row.flavor, row.preemptibility, row.max_runtime_ms, row.kind) == (
        "gpu",
        "semi-preemptible",
        3_600_000,
        "ray",
    )
    assert row.job_metadata["owner"] == "me"
    assert house.control.calls == [("submitted", "raysubmit_1")]


async def test_entrypoint_resources_are_the_request(house: House, client: httpx.AsyncClient) -> None:
    answer = await submit(
        client, entrypoint_num_gpus=2.0, entrypoint_num_cpus=1, entrypoint_label_selector={"heliostat/flavor": "gpu"}
    )
    assert answer.status_code == 200, answer.text
    with house.store.read() as session:
        row = jobs.get(session, answer.json()["job_id"])
    assert (row.min_tasks, row.max_tasks, row.gpu_milli, row.cpu_milli, row.flavor) == (2, 2, 1000, 1000, "gpu")


async def test_both_ways_may_agree(client: httpx.AsyncClient) -> None:
    assert (await submit(client, {"min_gpus": "1", "max_gpus": "4"}, entrypoint_num_gpus=2)).status_code == 200


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("a number that is none", {"metadata": {"min_gpus": "two"}}, '{"min_gpus": "2"}'),
    ("metadata that is no string", {"metadata": {"min_gpus": 2}}, "Quote it"),
    ("an unknown queue", {"metadata": {"queue": "nope"}}, "research, production"),
    ("a queue that is closed", {"metadata": {"queue": "production", "priority": "critical"}}, "line 9"),
    ("an unknown priority", {"metadata": {"priority": "asap"}}, "normal (100)"),
    ("an unknown kind", {"metadata": {"kind": "x"}}, "ray, command"),
    ("a bad preemptibility", {"metadata": {"preemptibility": "x"}}, "non-preemptible"),
    ("a bad time limit", {"metadata": {"max_runtime_s": "soon"}}, "max_runtime_s"),
    ("a foreign project", {"metadata": {"project": "ocr"}}, "project"),
    ("GPUs that disagree", {"metadata": {"min_gpus": "3"}, "entrypoint_num_gpus": 2}, "both"),
    ("more than fits", {"entrypoint_num_gpus": 9}, "NeverFits"),
    ("a group's resource", {"entrypoint_resources": {"GPU_group_0_abc": 1}}, "past its lease"),
    ("another resource", {"entrypoint_resources": {"tpu": 1}}, "--entrypoint-num-gpus"),
    ("a selector of a node", {"entrypoint_label_selector": {"ray.io/node-id": "x"}}, "flavor"),
    ("no entrypoint", {"entrypoint": None}, "no entrypoint"),
    ("an unknown field", {"entrypoint_disk": 1}, "entrypoint_disk"),
    ("a reserved variable", {"runtime_env": {"env_vars": {"RAY_X": "1"}}}, "RAY_X"),
    ("a wrong type", {"entrypoint_num_gpus": "2"}, "wrong type"),
]


@pytest.mark.parametrize(("given", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_refused_in_words_for_a_terminal(
    house: House, client: httpx.AsyncClient, given: dict[str, Any], words: str
) -> None:
    answer = await client.post("/api/jobs/", json={"entrypoint": "python x.py", **given})
    assert 400 <= answer.status_code < 500
    assert answer.status_code not in (401, 403), "Ray's client takes these for a bad token"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert words in answer.text
    assert "What to do:" in answer.text
    assert house.control.calls == []


async def test_no_json_is_refused_in_words(client: httpx.AsyncClient) -> None:
    assert "no JSON" in (await client.post("/api/jobs/", content=b"{")).text


async def test_a_job_looks_as_rays_client_expects_it_through_its_life(house: House, client: httpx.AsyncClient) -> None:
    job = (await submit(client, {"min_gpus": "1"}, submission_id="a")).json()["submission_id"]
    told = (await client.get("/api/jobs/a")).json()
    keys = "type submission_id job_id status message entrypoint metadata runtime_env start_time end_time driver_info error_type"
    assert set(keys.split()) <= set(told)
    assert (told["status"], told["type"]) == ("PENDING", "SUBMISSION")
    assert told["message"].startswith("queued in queue research, position 1: ")
    house.control.run(job)
    assert (await client.get("/api/jobs/a")).json()["status"] == "RUNNING"
    house.control.move(job, JobState.PREEMPTING, reason=Reason(ReasonCode.PREEMPTED_FOR, (("job", "b"),)))
    house.control.move(job, JobState.QUEUED, attempts=1)
    assert (await client.get("/api/jobs/a")).json()["status"] == "RUNNING"
    assert (await client.post("/api/jobs/a/stop")).json() == {"stopped": True}
    assert (await client.post("/api/jobs/a/stop")).json() == {"stopped": False}
    over = (await client.get("/api/jobs/a")).json()
    assert (over["status"], over["message"]) == ("STOPPED", "The job was cancelled.")
    assert [entry["submission_id"] for entry in (await client.get("/api/jobs/")).json()] == ["a"]
    assert (await client.delete("/api/jobs/a")).json() == {"deleted": True}
    assert (await client.get("/api/jobs/a")).status_code == 404


async def test_the_whole_log(house: House, client: httpx.AsyncClient) -> None:
    await submit(client, submission_id="a")
    house.control.logs_of["a"] = "one\ntwo\n"
    assert (await client.get("/api/jobs/a/logs")).json() == {"logs": "one\ntwo\n"}


async def test_rays_own_words_for_a_missing_token_get_a_body_to_show(house: House) -> None:
    async with house.client("") as nobody:
        answer = await nobody.get("/api/version")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")
    assert "token is needed" in answer.text


class TestTail:
    @pytest.fixture
    def tailing(self, house: House) -> Callable[..., Socket]:
        def connect(job: str, who: str = "vision/member", **headers: str) -> Socket:
            given = {"Authorization": f"Bearer {house.tokens[who]}"} if who else {}
            return Socket(house.app, f"/api/jobs/{job}/logs/tail", {**given, "Host": "127.0.0.1:8700", **headers})

        return connect

    @pytest.fixture
    async def job(self, client: httpx.AsyncClient) -> str:
        return str((await submit(client, submission_id="a")).json()["submission_id"])

    async def test_waiting_is_shown_then_the_log_then_it_closes_with_1000(
        self, house: House, tailing: Callable[..., Socket], job: str
    ) -> None:
        async with tailing(job) as socket:
            assert (await socket.text()).startswith("[heliostat] queued in queue research, position 1: ")
            house.control.run(job)
            house.control.logs_of[job] = "hello\n"
            assert await until(socket, "hello\n")
            house.control.logs_of[job] += "bye\n"
            assert await socket.text() == "bye\n"
            house.control.move(job, JobState.SUCCEEDED)
            with pytest.raises(Closed) as closed:
                await socket.text()
        assert closed.value.code == 1000

    @pytest.mark.parametrize(
        ("who", "headers", "status"),
        [("", {}, 401), ("", {"Authorization": "Bearer hs_wrong"}, 401), ("ocr/member", {}, 404)],
        ids=["no token", "a wrong token", "another project"],
    )
    async def test_refused_before_the_upgrade(
        self, tailing: Callable[..., Socket], job: str, who: str, headers: dict[str, str], status: int
    ) -> None:
        with pytest.raises(Refused) as refused:
            await tailing(job, who, **headers).__aenter__()
        assert refused.value.status == status
        assert "What to do:" in refused.value.text

    async def test_a_revoked_and_an_expired_token_are_refused(
        self, house: House, tailing: Callable[..., Socket], job: str
    ) -> None:
        tokens = house.app.state.doors.tokens
        short, _ = tokens.create(role=Role.MEMBER, project="vision", user="u", expires_ms=house.clock.ms + 1, by="test")
        house.clock.ms += 1
        for token in tokens.listed(("vision",)):
            if token.user == "u-vision/member":
                tokens.revoke(token.id, by="test")
        for socket in (tailing(job), tailing(job, "", Authorization=f"Bearer {short}")):
            with pytest.raises(Refused) as refused:
                await socket.__aenter__()
            assert refused.value.status == 401

    async def test_a_token_that_is_revoked_meanwhile_ends_the_socket(
        self, house: House, tailing: Callable[..., Socket], job: str
    ) -> None:
        async with tailing(job) as socket:
            await socket.text()
            for token in house.app.state.doors.tokens.listed(("vision",)):
                house.app.state.doors.tokens.revoke(token.id, by="test")
            with pytest.raises(Closed) as closed:
                await socket.text()
        assert closed.value.code == 1008

    async def test_pages_of_other_sites_open_no_socket(self, tailing: Callable[..., Socket], job: str) -> None:
        with pytest.raises(Closed) as refused:
            await tailing(job, Origin="https://evil.example").__aenter__()
        assert refused.value.code == 1008

    async def test_it_ends_when_the_server_ends(self, house: House, tailing: Callable[..., Socket], job: str) -> None:
        async with tailing(job) as socket:
            await socket.text()
            house.app.state.closing.close()
            with pytest.raises(Closed) as closed:
                await socket.text()
        assert closed.value.code == 1012

    async def test_a_finished_job_gives_its_log_and_closes(
        self, house: House, tailing: Callable[..., Socket], job: str
    ) -> None:
        house.control.logs_of[job] = "all of it\n"
        house.control.move(job, JobState.CANCELLED)
        async with tailing(job) as socket:
            assert await socket.text() == "all of it\n"
            with pytest.raises(Closed):
                await socket.text()

    async def test_a_reader_that_goes_away_ends_the_handler(self, tailing: Callable[..., Socket], job: str) -> None:
        async with tailing(job) as socket:
            await socket.text()


async def until(socket: Socket, text: str) -> bool:
    """Read on, past lines about waiting, until `text` comes."""
    while (got := await socket.text()) != text:
        assert got.startswith("[heliostat]"), got
    return True
