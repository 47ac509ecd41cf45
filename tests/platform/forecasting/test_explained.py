"""Whatever has happened to a running job or an endpoint, its explanation says so in a sentence, with who it was for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from heliostat.api import endpoint_shapes as shapes
from heliostat.api.endpoint_explaining import of_endpoint
from heliostat.control import explaining
from heliostat.render.explain import endpoint_text, explanation_text
from heliostat.store.reasons import reason_json
from heliostat.store.tables import Job
from heliostat_scheduler.core import Reason, ReasonCode
from heliostat_scheduler.core.explain import Check

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
