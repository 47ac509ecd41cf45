"""The demo's judgement: recounted from the step logs, and false as soon as anything does not hold."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from heliostat import local
from heliostat.client.client import Client
from heliostat.demo.elastic_act import ELASTIC, Borrowed, resizes_of
from heliostat.demo.scene import ELASTIC_QUEUES, QUEUES, Child, Scene
from heliostat.demo.screen import Lines, Screen
from heliostat.demo.serving_act import Served
from heliostat.demo.stage import Glance
from heliostat.demo.story import CHECKPOINT_EVERY, FIRST, SECOND, TOTALS, Told
from heliostat.demo.verdict import as_json, as_text, judge
from heliostat.queuefile import parse
from heliostat.settings import Settings
from heliostat.wire.shapes import JobJson
from rich.console import Console
from rich.live import Live

TOTAL_STEPS = TOTALS[FIRST]
ELASTIC_STEPS = TOTALS[ELASTIC]
ORDERED = "2026-01-01T00:10:00.000Z"
ORDERED_S = datetime.fromisoformat(ORDERED).timestamp()


def step(number: int) -> dict[str, object]:
    return {"step": number, "batch": f"b{number}", "world_size": 2}


def elastic_step(number: int) -> dict[str, object]:
    """Four workers, then two from step 200 on (ordered in time), then four again from step 700 on."""
    size = 2 if 200 <= number < 700 else 4
    return {"step": number, "batch": f"b{number}", "world_size": size, "at": ORDERED_S + (number - 195) / 10}


def write_steps(scene: Scene, job_id: str, rows: list[dict[str, object]]) -> None:
    scene.run_dir(job_id).mkdir(parents=True, exist_ok=True)
    (scene.run_dir(job_id) / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("queues", [QUEUES, ELASTIC_QUEUES])
def test_the_queues_of_the_demo_are_valid(queues: str) -> None:
    file = parse(queues)
    assert set(file.leaves()) == {"research", "production"} and file.default == "research"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two finished trainings, the first with 40 steps done twice, and the elastic one."""
    scene = Scene(Settings(tmp_path), cast("Client", None), [])
    for job_id, again in ((FIRST, 40), (SECOND, 0)):
        write_steps(scene, job_id, [step(number) for number in [*range(300), *range(300 - again, TOTAL_STEPS)]])
    write_steps(scene, ELASTIC, [elastic_step(number) for number in range(ELASTIC_STEPS)])
    return scene


class Ended:
    """A process that is over."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


def job(job_id: str, **more: Any) -> JobJson:
    base = {"id": job_id, "queue": "research", "state": "succeeded", "attempts": 1, "waited_s": 1.0, "ran_s": 60.0,
            "started_at": "2026-01-01T00:00:01.000Z", "finished_at": "2026-01-01T00:01:01.000Z",
            "metrics": {"accuracy": 0.98}, "gpu_seconds": {"held": 120.04, "used": None},
            "reason_history": [{"at": "", "code": "Placed", "sentence": "placed", "attempt": 1}]}  # fmt: skip
    return cast("JobJson", {**base, **more})


def second(**more: Any) -> JobJson:
    return job(SECOND, started_at="2026-01-01T00:01:01.500Z", finished_at="2026-01-01T00:02:00.000Z", **more)


SERVED = Served(
    {"name": "digits", "version": 1, "sha256": "a" * 64}, "http://127.0.0.1:8000/endpoints/digits", "c0ffee", 100, 97, 4.2, 120.0,
    "unauthenticated",
)  # fmt: skip


def told(**changes: Any) -> Told:
    taken = [{"at": "", "code": "ReclaimedFor", "sentence": "gave 2 GPUs back to production", "attempt": 1}]
    first = job(FIRST, attempts=2, reason_history=taken)
    jobs = changes.get("jobs", (first, second(), job("job-u", queue="production", metrics=None)))
    process = cast("subprocess.Popen[bytes]", Ended(changes.get("returncode", 0)))
    child = Child("ray job submit", process, Path("/nowhere"))
    explanation = changes.get("explanation", {"sentence": "waits", "remedies": [{"kind": "wait"}]})
    return Told(
        jobs,
        explanation,
        "job-u",
        (child, child),
        changes.get("borrowed", borrowed()),
        changes.get("served", SERVED),
        170.0,
    )


def moved(before: str, after: str, data: dict[str, Any] | None = None, *, at: str = ORDERED, code: str = "") -> Any:
    reason = {"code": code} if code else None
    return {"kind": "job_moved", "job": ELASTIC, "at": at, "from": before, "to": after, "data": data, "reason": reason}


EVENTS = [
    moved("starting", "running"),
    moved("running", "resizing", code="ShrunkFor"),
    {"kind": "job_checkpointed", "job": ELASTIC, "at": ORDERED, "data": {}},
    moved("resizing", "running", {"from": 4, "to": 2, "checkpoint_s": 0.3, "released_s": 0.5, "started_s": 6.0}),
    moved("running", "resizing", at="2026-01-01T00:10:50.000Z", code="Grew"),
    moved("resizing", "running", {"from": 2, "to": 4, "checkpoint_s": 0.2, "released_s": 0.4, "started_s": 9.0}),
]


def borrowed(**changes: Any) -> Borrowed:
    elastic = changes.get("elastic", job(ELASTIC))
    gang = changes.get("gang", job("job-g", queue="production", waited_s=0.8))
    process = cast("subprocess.Popen[bytes]", Ended(changes.get("returncode", 0)))
    resizes = tuple(resizes_of(changes.get("events", EVENTS)))
    return Borrowed(elastic, gang, resizes, Child("ray job submit", process, Path("/nowhere")))


def test_a_good_run(scene: Scene) -> None:
    verdict = judge(scene, told())
    assert verdict.good
    document = as_json(verdict)
    assert document["checkpoint_steps_recomputed"] == 40 and document["accuracy"] == 0.98
    assert document["gpu_seconds"] == {"held": pytest.approx(600.2), "used": None}
    assert document["steps_lost"] == 0
    assert document["resizes"] == [
        {"job": ELASTIC, "from": 4, "to": 2, "reason": "ShrunkFor", "checkpoint_s": 0.3, "released_s": 0.5, "training_again_s": 0.5},
        {"job": ELASTIC, "from": 2, "to": 4, "reason": "Grew", "checkpoint_s": 0.2, "released_s": 0.4, "training_again_s": 0.5},
    ]  # fmt: skip
    assert [job["id"] for job in document["jobs"]] == [FIRST, SECOND, "job-u", ELASTIC, "job-g"]
    assert set(document["jobs"][0]) == {"id", "queue", "state", "attempts", "waited_s", "ran_s", "reason_history"}
    text = as_text(verdict)
    assert document["model"]["version"] == 1 and document["http_accuracy"] == 0.97 and document["p50_ms"] == 4.2
    assert "97 of 100 held-out images right" in text
    assert "gave 2 GPUs back to production" in text and "✖" not in text and "accuracy 0.9800" in text


def test_used_gpu_seconds_are_added_where_they_were_measured(scene: Scene) -> None:
    measured = told(jobs=(job(FIRST, gpu_seconds={"held": 2.0, "used": 1.5}), job(SECOND), job("job-u")))
    assert as_json(judge(scene, measured))["gpu_seconds"]["used"] == 1.5


WRONG: list[Any] = [
    pytest.param(lambda: told(jobs=(job(FIRST), second(), job("job-u"))), id="nobody was preempted"),
    pytest.param(lambda: told(jobs=(*told().jobs[:2], job("job-u", state="failed"))), id="the urgent job failed"),
    pytest.param(
        lambda: told(jobs=(told().jobs[0], second(metrics={"accuracy": 0.94}), told().jobs[2])), id="a poor model"
    ),
    pytest.param(lambda: told(jobs=(told().jobs[0], second(metrics=None), told().jobs[2])), id="no model"),
    pytest.param(lambda: told(explanation={"sentence": "waits", "remedies": []}), id="nobody knew what would help"),
    pytest.param(lambda: told(returncode=1), id="ray job submit failed"),
    pytest.param(lambda: told(served=replace(SERVED, correct=94)), id="the endpoint predicts poorly"),
    pytest.param(lambda: told(served=replace(SERVED, refused="nothing")), id="the endpoint answers anybody"),
    pytest.param(
        lambda: told(jobs=(told().jobs[0], job(SECOND, started_at="2026-01-01T00:00:30.000Z"), told().jobs[2])),
        id="the second overtook the preempted first",
    ),
    pytest.param(
        lambda: told(jobs=(told().jobs[0], job(SECOND, started_at=None), told().jobs[2])), id="the second never started"
    ),
]


@pytest.mark.parametrize("make", WRONG)
def test_anything_that_does_not_hold_fails_the_demo(scene: Scene, make: Callable[[], Told]) -> None:
    assert not judge(scene, make()).good


STEPS: list[Any] = [
    pytest.param([*range(TOTAL_STEPS - 1)], id="the last step is missing"),
    pytest.param(
        [*range(300), *range(299 - CHECKPOINT_EVERY, TOTAL_STEPS)], id="more than a checkpoint interval again"
    ),
]


@pytest.mark.parametrize("numbers", STEPS)
def test_the_step_log_decides(scene: Scene, numbers: list[int]) -> None:
    write_steps(scene, SECOND, [step(number) for number in numbers])
    assert not judge(scene, told()).good


BROKEN: list[Any] = [
    pytest.param(lambda rows: [*rows[:300], *rows[299:]], id="a step done twice"),
    pytest.param(lambda rows: [*rows[:300], *rows[301:]], id="a gap"),
    pytest.param(lambda rows: rows[:-1], id="the last step is missing"),
    pytest.param(lambda rows: [*rows, {**rows[5], "batch": "another"}], id="a step on another batch"),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_lost_step_of_the_elastic_training_fails_the_demo(scene: Scene, broken: Callable[[list[Any]], Any]) -> None:
    write_steps(scene, ELASTIC, broken([elastic_step(number) for number in range(ELASTIC_STEPS)]))
    verdict = judge(scene, told())
    assert not verdict.good
    assert verdict.steps_lost > 0 or verdict.steps[ELASTIC].distinct < ELASTIC_STEPS


UNMOVED: list[Any] = [
    pytest.param({"events": EVENTS[:4]}, id="it never grew back"),
    pytest.param({"events": EVENTS[:1]}, id="it never shrank"),
    pytest.param({"elastic": job(ELASTIC, attempts=2)}, id="it was preempted instead of resized"),
    pytest.param({"gang": job("job-g", waited_s=30.0)}, id="production waited"),
    pytest.param({"gang": job("job-g", state="failed")}, id="the gang failed"),
    pytest.param({"returncode": 1}, id="ray job submit failed"),
]


@pytest.mark.parametrize("changes", UNMOVED)
def test_anything_that_does_not_hold_of_act_two_fails_the_demo(scene: Scene, changes: dict[str, Any]) -> None:
    assert not judge(scene, told(borrowed=borrowed(**changes))).good


def test_without_a_terminal_only_changes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.act("Act one")
    running = job(FIRST, state="running", reason={"code": "Placed", "sentence": "placed on both GPUs"})
    for seconds, steps in ((1.0, 10), (2.0, 20), (3.0, 250)):
        lines.glance(Glance(seconds, (running,), {FIRST: steps}, TOTALS))
    assert capsys.readouterr().err.splitlines() == [
        "",
        "== Act one",
        "  [   1 s] digits-ada running: placed on both GPUs",
        f"  [   3 s] digits-ada running: placed on both GPUs (200+ of {TOTAL_STEPS} steps)",
    ]


def test_at_a_terminal_the_jobs_are_a_panel_under_the_story() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with Live("", console=console, transient=True, auto_refresh=False) as live:
        screen = Screen(console, live)
        screen.step(local.Step("ray", "start", "starting Ray"))
        screen.step(local.Step("ray", "done", "Ray 2.60.0 [x]"))
        screen.act("Act one")
        screen.typed("ray job submit --metadata-json '[1]'")
        screen.said("needs 2 GPU [and more]")
        screen.glance(
            Glance(
                4.0,
                (job(FIRST, state="running", gpus={"min": 2, "max": 2, "held": 2}, reason={"sentence": "[b]x"}),),
                {FIRST: 580},
                TOTALS,
            )
        )
    told = cast("io.StringIO", console.file).getvalue()
    for text in (
        "✔ Ray 2.60.0 [x]",
        "Act one",
        "$ ray job submit --metadata-json '[1]'",
        "[and more]",
        "▶ running",
        "2/2",
        f"580/{TOTAL_STEPS}",
        "[b]x",
    ):
        assert text in told
