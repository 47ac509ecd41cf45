"""Whatever has happened to a running job or an endpoint, its explanation says so in a sentence, with who it was for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from heliostat.api import endpoint_shapes as shapes
from heliostat.api.endpoint_explaining import of_endpoint
from heliostat.control import explaining
from heliostat.control.foretelling import Foretelling
from heliostat.render.explain import endpoint_text, explanation_text
from heliostat.store.reasons import reason_json
from heliostat.store.tables import Job
from heliostat_scheduler.core import Reason, ReasonCode
from heliostat_scheduler.core.explain import Check
from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
CODE = ReasonCode


@pytest.mark.parametrize(
    ("code", "facts", "sentence"),
    [
        pytest.param(CODE.SHRUNK_FOR, {"for": "b", "gpu_milli": 2000}, "gave up 2 GPU for b", id="shrunk"),
        pytest.param(CODE.MIGRATED_FOR, {"for": "b"}, "moves to other places so that b fits", id="moved"),
        pytest.param(
            CODE.IDLE,
            {"idle_ms": 300_000, "for": "b"},
            "its GPUs have been idle for 300 s while others wait",
            id="idle",
        ),
        pytest.param(CODE.ROTATED_FOR, {"for": "b"}, "takes turns with b", id="its turn is over"),
        pytest.param(
            CODE.RECLAIMED_FOR,
            {"for": "b", "queue": "prod", "gpu_milli": 1000},
            "queue prod reclaimed 1 GPU for b",
            id="reclaimed",
        ),
    ],
)
def test_a_job_from_which_something_was_taken(code: ReasonCode, facts: dict[str, int | str], sentence: str) -> None:
    reason = Reason(code, tuple(sorted(facts.items())), ("b",))
    job = Job(id="a", state="running", reason=reason_json(reason))
    checks = [Check("uses its GPUs", code is not CODE.IDLE, (("idle_ms", 300_000),))]
    story = [{"at": "2026-11-22T11:59:00Z", "code": code.value, "sentence": sentence, "attempt": 1, "for": ["b"]}]
    told: Any = explaining.of_job(job, None, None, NOW_MS, checks=checks, story=story)
    lines = explanation_text(told, NOW).splitlines()
    assert lines[0] == f"a is running ({code.value})" and lines[1].strip() == sentence
    assert "  held by    b" in lines, "for whom"
    mark = "✖" if code is CODE.IDLE else "✔"
    assert any(line.strip().startswith(f"{mark} uses its GPUs") for line in lines)
    assert any(f"{sentence} ({code.value})" in line for line in lines[2:]), "and in its story"


def version(state: str, replicas: tuple[int, int, int, int, int], reason: str = "") -> shapes.Deployment:
    """replicas: min, max, granted, running, wish."""
    low, high, granted, running, wish = replicas
    return shapes.Deployment.model_construct(
        version="v1", state=state, reason=reason,
        replicas=shapes.Replicas(min=low, max=high, granted=granted, running=running, wish=wish),
    )  # fmt: skip


WAITS = {"sentence": "needs 2 GPU, 0 GPU free, 2 GPU short", "blockers": ["train"], "growth": None}
GROWS = {"sentence": "", "growth": {"tasks": 1, "wanted": 3, "sentence": "needs 1 GPU, 0 GPU free", "remedies": []}}
QUIET: dict[str, Any] = {"sentence": "", "growth": None}


@pytest.mark.parametrize(
    ("row", "why", "whole", "sentence"),
    [
        pytest.param(
            version("waiting", (1, 1, 0, 0, 1)), WAITS, "1 replica short of what its versions want",
            "its serving job needs 2 GPU, 0 GPU free, 2 GPU short", id="its floor waits in the queue",
        ),
        pytest.param(
            version("ready", (1, 3, 1, 1, 3)), GROWS, "2 replicas short of what its versions want",
            "has 1 of the 3 replicas that it wants; one more needs 1 GPU, 0 GPU free", id="it wants to grow",
        ),
        pytest.param(
            version("ready", (1, 3, 1, 1, 2)), QUIET, "1 replica short of what its versions want",
            "has 1 of the 2 replicas that it wants; the scheduler has not looked yet", id="a wish that is new",
        ),
        pytest.param(
            version("ready", (2, 2, 2, 1, 2), "a replica has died"), QUIET, "its versions have the replicas that they want",
            "is granted 2 replicas, 1 run: a replica has died", id="one is missing",
        ),
        pytest.param(
            version("ready", (1, 3, 1, 1, 1)), QUIET, "its versions have the replicas that they want",
            "has the 1 replica that it wants", id="all is well",
        ),
        pytest.param(
            version("failed", (1, 1, 0, 0, 1), "its smoke request failed"), QUIET, "its versions have the replicas that they want",
            "its smoke request failed", id="a version that is over",
        ),
    ],
)  # fmt: skip
def test_an_endpoint(row: shapes.Deployment, why: dict[str, Any], whole: str, sentence: str) -> None:
    endpoint = shapes.Endpoint.model_construct(name="digits", state="ready", trouble=None, deployments=[row])
    usage: list[dict[str, Any]] = [
        {"name": "prod", "parent": None, "pressure": {"gpu": 2.0}},
        {"name": "other", "pressure": {}},
    ]
    told: Any = of_endpoint(endpoint, [(row, why, "prod")], usage)
    assert told["sentence"] == whole and told["versions"][0]["sentence"] == sentence
    lines = endpoint_text(told, NOW).splitlines()
    assert lines[0] == f"endpoint digits is ready: {whole}"
    assert f"v1 is {row.state}: {sentence}" in lines
    assert any(line.strip().startswith("queue      prod: 2 GPU") for line in lines), "what its queue wants beyond"


def test_a_job_that_waits_again_says_who_displaced_it(plant: Plant) -> None:
    plant.submit("train", gpus=2, work=Script(steps=200), priority=50)
    plant.advance(1_500)
    plant.submit("urgent", gpus=2, work=Program(runs_ms=600_000), priority=150)
    plant.until(lambda: plant.state("urgent") == "running" and plant.state("train") == "queued", "train to wait again")
    told: Any = Foretelling(plant.loop, plant.store, None).explain(plant.job("train"), 0)
    displaced = [past for past in told["story"] if past["code"] == CODE.PREEMPTED_FOR.value]
    assert [(past["for"], past["attempt"]) for past in displaced] == [(["urgent"], 1)]
    assert "displaced by urgent" in displaced[0]["sentence"] and displaced[0]["at"]
    assert told["remedies"], "and what would help it, as for any waiting job"
    text = explanation_text(told, NOW)
    assert "what happened so far" in text and "(PreemptedFor)" in text


def test_a_job_that_waits_for_the_first_time_has_no_story(plant: Plant) -> None:
    plant.submit("first", gpus=2, work=Program(runs_ms=600_000))
    plant.until(lambda: plant.state("first") == "running", "first to run")
    plant.submit("second", gpus=2, work=Program(runs_ms=600_000))
    plant.advance(1_000)
    told: Any = Foretelling(plant.loop, plant.store, None).explain(plant.job("second"), 0)
    assert told["story"] == [] and told["code"]
