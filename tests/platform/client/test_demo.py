"""The demo's judgement: recounted from the step logs, and false as soon as anything does not hold."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from heliostat import local
from heliostat.client.client import Client
from heliostat.demo.scene import QUEUES, Child, Scene
from heliostat.demo.screen import Lines, Screen
from heliostat.demo.story import CHECKPOINT_EVERY, FIRST, SECOND, Glance, Told
from heliostat.demo.verdict import TOTAL_STEPS, as_json, as_text, judge
from heliostat.queuefile import parse
from heliostat.settings import Settings
from heliostat.wire.shapes import JobJson
from rich.console import Console
from rich.live import Live


def step(number: int) -> dict[str, object]:
    return {"step": number, "batch": f"b{number}", "world_size": 2}


def test_the_queues_of_the_demo_are_valid() -> None:
    file = parse(QUEUES)
    assert set(file.leaves()) == {"research", "production"} and file.default == "research"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two finished trainings, the first with 40 steps done twice."""
    scene = Scene(Settings(tmp_path), cast("Client", None), [])
    for job_id, again in ((FIRST, 40), (SECOND, 0)):
        scene.run_dir(job_id).mkdir(parents=True)
        numbers = [*range(300), *range(300 - again, TOTAL_STEPS)]
        (scene.run_dir(job_id) / "steps.jsonl").write_text(
            "".join(json.dumps(step(number)) + "\n" for number in numbers)
        )
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


def told(**changes: Any) -> Told:
    taken = [{"at": "", "code": "ReclaimedFor", "sentence": "gave 2 GPUs back to production", "attempt": 1}]
    first = job(FIRST, attempts=2, reason_history=taken)
    jobs = changes.get("jobs", (first, second(), job("job-u", queue="production", metrics=None)))
    process = cast("subprocess.Popen[bytes]", Ended(changes.get("returncode", 0)))
    child = Child("ray job submit", process, Path("/nowhere"))
    explanation = changes.get("explanation", {"sentence": "waits", "remedies": [{"kind": "wait"}]})
    return Told(jobs, explanation, "job-u", (child, child), 170.0)


def test_a_good_run(scene: Scene) -> None:
    verdict = judge(scene, told())
    assert verdict.good
    document = as_json(verdict)
    assert document["checkpoint_steps_recomputed"] == 40 and document["accuracy"] == 0.98
    assert document["gpu_seconds"] == {"held": pytest.approx(360.12), "used": None}
    assert set(document["jobs"][0]) == {"id", "queue", "state", "attempts", "waited_s", "ran_s", "reason_history"}
    text = as_text(verdict)
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
    (scene.run_dir(SECOND) / "steps.jsonl").write_text("".join(json.dumps(step(number)) + "\n" for number in numbers))
    assert not judge(scene, told()).good


def test_without_a_terminal_only_changes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.act("Act one")
    running = job(FIRST, state="running", reason={"code": "Placed", "sentence": "placed on both GPUs"})
    for seconds, steps in ((1.0, 10), (2.0, 20), (3.0, 250)):
        lines.glance(Glance(seconds, (running,), {FIRST: steps}))
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
        "580/1160",
        "[b]x",
    ):
        assert text in told
