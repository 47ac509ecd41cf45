"""Idleness on real Ray, with logical GPUs and telemetry that the test writes: somebody waits in the same queue, with the same class,
over its quota, so that nothing but measured idleness can move a GPU. Five runs, five outcomes; one installation."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from heliostat import local
from heliostat.local import UpOptions, control_plane, environments, processes
from heliostat.settings import Settings, load

from tests.e2e import test_control_plane as plane
from tests.e2e.ray_cluster import free_ports
from tests.e2e.scripts.control_with_fake_gpus import ACTIVITY_FILE, IDLE_AFTER_MS
from tests.e2e.test_control_plane import House

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

CONTROL = Path(__file__).parent / "scripts" / "control_with_fake_gpus.py"
QUEUES = "default: research\nqueues:\n  research: {quota: {gpu: 1}}\n"
TRAINING = (
    f"{sys.executable} -m heliostat_jobs.recipes.digits_cnn --workers 1-2 --epochs 100000 --look-every 1 --step-ms 50"
)
REPORTS_OFTEN, NEVER_REPORTS = 10, 10**9
"""Steps between two reports of the training: every half second, or none."""
WATCH_S = 3 * IDLE_AFTER_MS / 1000


@dataclass(frozen=True)
class Run:
    """activity: of both GPUs in permille, None: no reading. reports: whether the training makes progress. waits: whether somebody does."""

    say: str
    activity: int | None
    reports: bool
    waits: bool
    left: int


RUNS = [
    Run("idle and no progress: it gives a GPU to who waits", 0, False, True, 1),
    Run("busy: untouched", 950, False, True, 2),
    Run("no activity but progress: untouched", 0, True, True, 2),
    Run("nobody waits: untouched", 0, False, False, 2),
    Run("no telemetry: untouched", None, False, True, 2),
]


def start_with_fake_gpus(settings: Settings, host: str, port: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, str(CONTROL), "--host", host, "--port", str(port)]
    return processes.spawn(argv, environments.of_control(settings), control_plane.log_path(settings), settings.home)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    patch = pytest.MonkeyPatch()
    patch.setattr(plane, "OPTIONS", UpOptions(gpus=2, object_store_bytes=200_000_000, port=free_ports(1)[0]))
    patch.setattr(control_plane, "start", start_with_fake_gpus)
    made = House(load(home=tmp_path_factory.mktemp("home") / "h", environ={}))
    try:
        made.up()
        made.call("PUT", "/queues/file", content=QUEUES, headers={"If-Match": "*"})
        yield made
    finally:
        local.down(made.settings)
        patch.undo()
        assert local.leftovers(made.settings) == []


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.say)
def test_only_measured_idleness_moves_a_gpu(house: House, run: Run) -> None:
    activity = house.settings.home / ACTIVITY_FILE
    activity.write_text("950")
    every = REPORTS_OFTEN if run.reports else NEVER_REPORTS
    entrypoint = f"{TRAINING} --checkpoint-every {every}"
    training = house.submit(kind="ray", entrypoint=entrypoint, min_gpus=1, max_gpus=2)
    steps = house.settings.runs_dir / training / "steps.jsonl"
    house.wait(lambda: steps.exists() and steps.read_text().count("\n") > 5, "the training's first steps")
    assert (house.job(training)["state"], house.job(training)["gpus"]["held"]) == ("running", 2)
    waiting = house.submit(kind="command", command=["sleep", "600"], gpus=1) if run.waits else None
    if run.activity is None:
        activity.unlink()
    else:
        activity.write_text(str(run.activity))
    if run.left < 2:
        assert waiting is not None
        house.wait(lambda: house.job(waiting)["state"] == "running", "the idle GPU")
    else:
        watch(house, training, waiting)
    assert house.job(training)["gpus"]["held"] == run.left
    assert house.job(training)["attempts"] == 1
    if run.left < 2:
        events = house.call("GET", f"/jobs/{training}/events")["items"]
        assert [event["reason"]["code"] for event in events if event["to"] == "resizing"] == ["Idle"]
    for job in (training, waiting):
        if job is not None:
            house.call("POST", f"/jobs/{job}/cancel")
            house.ended(job)


def watch(house: House, training: str, waiting: str | None) -> None:
    """For three times as long as it takes to be found idle nothing moves."""
    until = time.monotonic() + WATCH_S
    while time.monotonic() < until:
        assert house.job(training)["gpus"]["held"] == 2
        assert waiting is None or house.job(waiting)["state"] == "queued"
        time.sleep(0.5)
