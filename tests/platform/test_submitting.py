"""POST /api/v1/jobs: what is accepted, and that everything else is refused with a remedy before anything is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from heliostat.store import jobs
from heliostat.store.jobs import JobFilter
from heliostat_scheduler.core.lifecycle import JobState

from tests.platform.conftest import House
from tests.platform.fake_control import node

Body = Callable[..., dict[str, Any]]


def stored(house: House) -> int:
    with house.store.read() as session:
        return len(jobs.page(session, JobFilter(), limit=100))


async def test_an_accepted_job_is_stored_and_told_to_the_control_plane(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    answer = await client.post(
        "/api/v1/jobs", json=body(min_gpus=2, gpus=None, max_gpus=4, priority="high", metadata={"a": "b"})
    )
    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["queue"], job["priority"], job["priority_class"], job["state"]) == ("research", 150, "high", "queued")
    assert (job["tasks"], job["gpus"], job["gpus_per_task"]) == (
        {"min": 2, "max": 4, "running": 0},
        {"min": 2, "max": 4, "held": 0},
        1.0,
    )
    assert (job["project"], job["user"], job["entrypoint"], job["name"]) == (
        "vision",
        "u-vision/member",
        "python train.py",
        "train.py",
    )
    assert house.control.calls == [("submitted", job["id"])]
    again = (await client.get(f"/api/v1/jobs/{job['id']}")).json()
    assert again["reason"]["code"] == "InsufficientFree"
    assert again["position"] == 1


SHAPES = [
    ("one GPU", {"gpus": 1}, (1, 1, 1000)),
    ("a range", {"gpus": None, "min_gpus": 1, "max_gpus": 3}, (1, 3, 1000)),
    ("only a minimum", {"gpus": None, "min_gpus": 2}, (2, 2, 1000)),
    ("half a GPU", {"gpus": 0.5}, (1, 1, 500)),
    ("halves", {"gpus": 2, "gpus_per_task": 0.5}, (4, 4, 500)),
    ("no GPU", {"gpus": 0}, (1, 1, 0)),
    ("nothing said", {"gpus": None}, (1, 1, 0)),
]


@pytest.mark.parametrize(("given", "shape"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES])
async def test_gpus_become_tasks(
    house: House, client: httpx.AsyncClient, body: Body, given: dict[str, Any], shape: tuple[int, ...]
) -> None:
    answer = await client.post("/api/v1/jobs", json=body(kind="ray", **given))
    assert answer.status_code == 201, answer.text
    with house.store.read() as session:
        row = jobs.get(session, answer.json()["id"])
    assert (row.min_tasks, row.max_tasks, row.gpu_milli) == shape


BAD: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("an unknown queue", {"queue": "nope"}, 400, "unknown_queue", "research, production"),
    ("an unknown priority", {"priority": "urgent"}, 400, "unknown_priority", "normal (100)"),
    ("a priority out of range", {"priority": 201}, 400, "unknown_priority", "0 to 200"),
    ("an unknown flavor", {"flavor": "tpu"}, 400, "unknown_flavor", "gpu"),
    (
        "a priority above the rule",
        {"queue": "production", "priority": "critical"},
        403,
        "priority_not_allowed",
        "up to high",
    ),
    ("more than the queue's limit", {"queue": "production", "gpus": 3}, 422, "never_fits", "2 GPUs"),
    ("more than the cluster has", {"kind": "ray", "gpus": 7}, 422, "never_fits", "6 GPUs"),
    ("a command wider than any node", {"gpus": 5}, 422, "never_fits", "4 GPUs"),
    ("two GPUs in one task", {"gpus": 2, "gpus_per_task": 2}, 422, "never_fits", "one worker per GPU"),
    (
        "non-preemptible beyond the guarantee",
        {"kind": "ray", "gpus": 5, "preemptibility": "non-preemptible"},
        422,
        "never_fits",
        "4 GPUs",
    ),
    (
        "non-preemptible beyond the guarantee, where it could borrow",
        {"kind": "ray", "gpus": 5, "preemptibility": "non-preemptible"},
        422,
        "never_fits",
        "--preemptibility preemptible",
    ),
    ("more CPUs than a node: the option", {"gpus": 0, "cpus": 5}, 422, "never_fits", "--cpus 4 (cpus=4)"),
    ("more memory than a node: the option", {"gpus": 0, "memory_bytes": 2**40}, 422, "never_fits", "--memory 8GiB"),
    ("more CPUs than a slot", {"cpus": 3}, 422, "never_fits", "cpus=1"),
    ("more CPUs than a node", {"gpus": 0, "cpus": 5}, 422, "never_fits", "4 CPUs"),
    ("more memory than a node", {"gpus": 0, "memory_bytes": 2**40}, 422, "never_fits", "8GiB"),
    ("GPUs that are no multiple", {"gpus": 2.5}, 400, "bad_request", "gpus"),
    ("GPUs twice", {"gpus": 1, "max_gpus": 2}, 400, "bad_request", "min_gpus and max_gpus"),
    ("a range upside down", {"gpus": None, "min_gpus": 3, "max_gpus": 2}, 400, "bad_request", "min_gpus"),
    ("negative GPUs", {"gpus": -1}, 400, "bad_request", "gpus"),
    ("an unknown kind", {"kind": "dance"}, 400, "bad_request", "ray, command"),
    ("a kind of later", {"kind": "tune"}, 400, "not_supported_yet", "ray or command"),
    ("several nodes", {"nodes": 2}, 400, "not_supported_yet", "nodes"),
    ("a command without a program", {"command": ["", "x"]}, 400, "bad_request", "program"),
    ("no command", {"command": None}, 400, "bad_request", "command"),
    ("command and entrypoint", {"entrypoint": "echo"}, 400, "bad_request", "command"),
    ("an unknown field", {"gpu": 1}, 400, "invalid_request", "errors"),
    ("a wrong type", {"gpus": "many"}, 400, "invalid_request", "errors"),
    ("an unknown preemptibility", {"preemptibility": "never"}, 400, "bad_request", "non-preemptible"),
    ("a reserved variable", {"env": {"RAY_ADDRESS": "x"}}, 400, "reserved_env", "RAY_ADDRESS"),
    ("a platform variable", {"env": {"HELIOSTAT_JOB": "x"}}, 400, "reserved_env", "HELIOSTAT_JOB"),
    ("a preloaded library", {"env": {"LD_PRELOAD": "x"}}, 400, "reserved_env", "LD_PRELOAD"),
    (
        "a reserved variable inside runtime_env",
        {"runtime_env": {"env_vars": {"RAY_X": "1"}}},
        400,
        "reserved_env",
        "RAY_X",
    ),
    ("another interpreter", {"runtime_env": {"py_executable": "python -I"}}, 400, "reserved_env", "pip or uv"),
    ("a container for a GPU job", {"runtime_env": {"image_uri": "x"}}, 400, "uncovered_env", "pip or uv"),
    ("conda for a GPU job", {"runtime_env": {"conda": "x"}}, 400, "uncovered_env", "pip or uv"),
    ("an unknown key of runtime_env", {"runtime_env": {"colour": "red"}}, 400, "bad_runtime_env", "working_dir"),
    ("env_vars that are no strings", {"runtime_env": {"env_vars": {"A": 1}}}, 400, "bad_runtime_env", "Quote"),
    ("a local working_dir", {"runtime_env": {"working_dir": "/home/me"}}, 400, "bad_runtime_env", "--working-dir"),
    (
        "a package that was never uploaded",
        {"working_dir_package": "gcs://_ray_pkg_1.zip"},
        400,
        "unknown_package",
        "Upload",
    ),
    ("a package name that is a path", {"working_dir_package": "gcs://../x.zip"}, 400, "package_name", "_ray_pkg_"),
    ("a dependency that does not exist", {"after": ["job-x"]}, 404, "unknown_job", "after"),
    ("another project", {"project": "ocr"}, 404, "unknown_project", "project"),
    ("an id with a slash", {"id": "../x"}, 400, "bad_request", "id"),
    ("a time limit of zero", {"max_runtime_s": 0}, 400, "bad_request", "max_runtime_s"),
    ("too many metadata keys", {"metadata": {str(i): "" for i in range(65)}}, 400, "bad_metadata", "less"),
    ("a warm handover of maybe", {"metadata": {"warm_handover": "maybe"}}, 400, "bad_metadata", "Change warm_handover"),
    ("a NUL in the command", {"command": ["a\0b"]}, 400, "bad_request", "script"),
]


@pytest.mark.parametrize(
    ("given", "status", "code", "remedy"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
async def test_refused(
    house: House, client: httpx.AsyncClient, body: Body, given: dict[str, Any], status: int, code: str, remedy: str
) -> None:
    answer = await client.post("/api/v1/jobs", json=body(**given))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert remedy in problem["remedy"] + problem["detail"]
    assert problem["remedy"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert stored(house) == 0
    assert house.control.calls == []


async def test_never_fits_names_the_largest_request_and_that_one_is_accepted(
    client: httpx.AsyncClient, body: Body
) -> None:
    refused = (await client.post("/api/v1/jobs", json=body(kind="ray", gpus=9))).json()
    assert refused["largest"] == {"gpus": 6.0}
    accepted = await client.post("/api/v1/jobs", json=body(kind="ray", gpus=refused["largest"]["gpus"]))
    assert accepted.status_code == 201


BURST = """\
default: burst
queues:
  burst: {}
  team: {quota: {gpu: 4}}
  closed: {limit: {gpu: 0}}
"""


async def test_fixed_work_where_nothing_is_guaranteed_is_offered_every_way_out(house: House, body: Body) -> None:
    async with house.client("*/admin") as root:
        assert (await root.put("/api/v1/queues/file", content=BURST, headers={"If-Match": "*"})).status_code == 200
        asked = body(kind="ray", gpus=2, preemptibility="non-preemptible")
        told = (await root.post("/api/v1/jobs?plan=true", json=asked)).json()
        assert told["remedy"] == (
            "Make it preemptible, then it may borrow: --preemptibility preemptible (preemptibility='preemptible'); "
            "or choose another queue: --queue team."
        )
        for change in ({"preemptibility": "preemptible"}, {"queue": "team"}):
            assert (await root.post("/api/v1/jobs?plan=true", json={**asked, **change})).status_code == 200
        nowhere = (await root.post("/api/v1/jobs", json=body(kind="ray", gpus=99, queue="closed"))).json()
        assert nowhere["remedy"] == "No GPU request fits there, nor in another queue."


async def test_a_queue_that_the_token_may_not_use_names_the_rule(house: House, body: Body) -> None:
    async with house.client("ocr/member") as other:
        problem = (await other.post("/api/v1/jobs", json=body(queue="production"))).json()
    assert (problem["status"], problem["code"]) == (403, "queue_not_allowed")
    assert "line 9" in problem["rule"]
    assert "project vision up to high" in problem["rule"]


async def test_a_cluster_of_which_nothing_is_known_refuses_nothing(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    house.control.nodes = []
    assert (await client.post("/api/v1/jobs", json=body(gpus=64, flavor="h100"))).status_code == 201


async def test_a_cluster_without_gpus_says_so(house: House, client: httpx.AsyncClient, body: Body) -> None:
    house.control.nodes = [node("n1", 0)]
    problem = (await client.post("/api/v1/jobs", json=body())).json()
    assert problem["code"] == "never_fits"
    assert "has none" in problem["detail"]


async def test_conda_is_accepted_for_a_job_without_gpus(client: httpx.AsyncClient, body: Body) -> None:
    assert (await client.post("/api/v1/jobs", json=body(gpus=0, runtime_env={"conda": "x"}))).status_code == 201


async def test_pythonpath_is_the_users_own(house: House, client: httpx.AsyncClient, body: Body) -> None:
    answer = await client.post("/api/v1/jobs", json=body(env={"PYTHONPATH": "lib"}))
    with house.store.read() as session:
        assert jobs.get(session, answer.json()["id"]).env == {"PYTHONPATH": "lib"}


async def test_an_id_of_ones_own_is_used_once_even_after_deletion(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    assert (await client.post("/api/v1/jobs", json=body(id="mine"))).status_code == 201
    assert (await client.post("/api/v1/jobs", json=body(id="mine"))).json()["code"] == "job_exists"
    house.control.move("mine", JobState.CANCELLED)
    assert (await client.delete("/api/v1/jobs/mine")).status_code == 204
    assert (await client.post("/api/v1/jobs", json=body(id="mine"))).status_code == 409


async def test_a_plan_stores_nothing(house: House, client: httpx.AsyncClient, body: Body) -> None:
    answer = await client.post("/api/v1/jobs?plan=true", json=body(kind="ray", gpus=2))
    assert (answer.status_code, answer.json()["starts_now"], answer.json()["tasks"]) == (200, True, 2)
    assert stored(house) == 0


async def test_a_plan_is_refused_and_held_like_a_submission(
    house: House, client: httpx.AsyncClient, body: Body
) -> None:
    held = await client.post("/api/v1/jobs?plan=true", json=body(hold=True))
    assert held.json()["starts_now"] is False
    refused = await client.post("/api/v1/jobs?plan=true", json=body(after=["nobody"]))
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_job")
    assert stored(house) == 0


async def test_a_held_job_waits_for_its_release(client: httpx.AsyncClient, body: Body) -> None:
    job = (await client.post("/api/v1/jobs", json=body(hold=True))).json()
    assert job["state"] == "held"
    assert (await client.post(f"/api/v1/jobs/{job['id']}/release")).json()["state"] == "queued"


async def test_the_queue_with_queues_below_it_takes_no_jobs(make_house: Callable[..., House], body: Body) -> None:
    house = make_house("queues:\n  top: {}\n  a: {parent: top}\n  b: {parent: top}\n")
    async with house.client() as client:
        below = (await client.post("/api/v1/jobs", json=body(queue="top"))).json()
        unnamed = (await client.post("/api/v1/jobs", json=body())).json()
    assert (below["code"], unnamed["code"]) == ("unknown_queue", "unknown_queue")
    assert "a, b" in unnamed["remedy"]


class TestChanges:
    async def test_a_waiting_job_changes_and_the_control_plane_is_told(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        job = (await client.post("/api/v1/jobs", json=body(kind="ray", gpus=4))).json()
        changed = await client.patch(f"/api/v1/jobs/{job['id']}", json={"min_gpus": 2, "priority": "low"})
        assert changed.status_code == 200, changed.text
        assert (changed.json()["tasks"]["min"], changed.json()["tasks"]["max"], changed.json()["priority"]) == (
            2,
            4,
            50,
        )
        assert house.control.calls[-1] == ("changed", job["id"])

    async def test_a_waiting_job_becomes_preemptible_and_may_borrow_then(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        asked = body(kind="ray", gpus=4, preemptibility="non-preemptible")
        path = f"/api/v1/jobs/{(await client.post('/api/v1/jobs', json=asked)).json()['id']}"
        assert (await client.patch(path, json={"gpus": 5})).json()["code"] == "never_fits"
        changed = await client.patch(path, json={"gpus": 5, "preemptibility": "preemptible"})
        assert (changed.status_code, changed.json()["preemptibility"]) == (200, "preemptible")
        assert (await client.patch(path, json={"preemptibility": "perhaps"})).json()["code"] == "bad_request"
        with house.store.read() as session:
            assert jobs.core_spec(jobs.get(session, path.split("/")[-1])).preemptibility == "preemptible"

    async def test_the_checks_are_those_of_the_door(self, client: httpx.AsyncClient, body: Body) -> None:
        job = (await client.post("/api/v1/jobs", json=body())).json()
        path = f"/api/v1/jobs/{job['id']}"
        assert (await client.patch(path, json={"queue": "nope"})).json()["code"] == "unknown_queue"
        assert (await client.patch(path, json={"gpus": 5})).json()["code"] == "never_fits"
        assert (await client.patch(path, json={"queue": "production", "priority": "critical"})).json()[
            "code"
        ] == "priority_not_allowed"

    async def test_a_job_may_drop_what_it_waits_for_and_nothing_else(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        first = (await client.post("/api/v1/jobs", json=body())).json()["id"]
        path = f"/api/v1/jobs/{(await client.post('/api/v1/jobs', json=body(after=[first]))).json()['id']}"
        assert (await client.patch(path, json={"after": ["another"]})).json()["code"] == "bad_request"
        calls = len(house.control.calls)
        assert (await client.patch(path, json={"after": [first]})).status_code == 200
        assert len(house.control.calls) == calls, "nothing changed, nobody is told"
        assert (await client.patch(path, json={"after": []})).status_code == 200
        with house.store.read() as session:
            assert jobs.get(session, path.rsplit("/", 1)[1]).dependencies == []

    async def test_a_running_job_changes_its_priority_only(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        job = (await client.post("/api/v1/jobs", json=body())).json()
        house.control.run(job["id"])
        path = f"/api/v1/jobs/{job['id']}"
        assert (await client.patch(path, json={"priority": "high"})).json()["priority"] == 150
        assert (await client.patch(path, json={"gpus": 2})).status_code == 409

    async def test_a_job_that_is_over_does_not_change(
        self, house: House, client: httpx.AsyncClient, body: Body
    ) -> None:
        job = (await client.post("/api/v1/jobs", json=body())).json()
        path = f"/api/v1/jobs/{job['id']}"
        assert (await client.post(path + "/cancel")).json()["state"] == "cancelled"
        assert (await client.post(path + "/cancel")).status_code == 200
        assert (await client.patch(path, json={"priority": "high"})).status_code == 409
        assert (await client.post(path + "/hold")).status_code == 409

    async def test_only_what_is_over_can_be_deleted(self, client: httpx.AsyncClient, body: Body) -> None:
        job = (await client.post("/api/v1/jobs", json=body())).json()
        path = f"/api/v1/jobs/{job['id']}"
        refused = await client.delete(path)
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
        await client.post(path + "/cancel")
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404
