"""The play in five acts: train, wait, preempt, resume, count. Every act waits for what it needs, with a deadline that names it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from heliostat_jobs.spec import recount_run

from heliostat.demo.scene import Child, Scene
from heliostat.render.explain import explanation_text
from heliostat.wire.shapes import TERMINAL_STATES, ExplanationJson, JobJson

FIRST, SECOND = "digits-ada", "digits-bob"
EPOCHS = 40
STEPS_PER_EPOCH = 29
"""The recipe trains on 1,438 images in batches of 48; the last, incomplete batch of an epoch is left out."""
CHECKPOINT_EVERY = 100
URGENT_S = 4
POLL_S = 0.5
PATIENCE_S = 240.0
"""How long nothing at all may move. Not how long an act may take: that is the machine's affair."""


class DemoFailed(Exception):
    """What was awaited did not happen."""


@dataclass(frozen=True, slots=True)
class Glance:
    """The state of things at one moment. steps: finished training steps by job id."""

    seconds: float
    jobs: tuple[JobJson, ...]
    steps: dict[str, int]


@dataclass(frozen=True, slots=True)
class Told:
    """What the play leaves behind for the verdict. jobs: as the API tells them at the end, in order of submission."""

    jobs: tuple[JobJson, ...]
    explanation: ExplanationJson
    urgent_id: str
    children: tuple[Child, ...]
    seconds: float


class Audience:
    """Who watches: told what is about to happen, and shown a glance twice a second."""

    def act(self, title: str) -> None: ...

    def typed(self, line: str) -> None: ...

    def said(self, text: str) -> None: ...

    def glance(self, glance: Glance) -> None: ...


def play(scene: Scene, audience: Audience) -> Told:
    stage = _Stage(scene, audience)
    audience.act("Ada trains a CNN on both GPUs, through Ray's own command line")
    first = stage.train(FIRST, "ada")

    audience.act("Bob submits the same; both GPUs are taken, so he waits")
    second = stage.train(SECOND, "bob")
    stage.until(f"{SECOND} to wait with a reason", lambda: _waits(stage.read(SECOND)))
    audience.typed(f"helio explain {SECOND}")
    explanation = scene.client.job(SECOND).explain().raw
    audience.said(explanation_text(explanation, datetime.now(UTC)))
    audience.said("Bob's own terminal, meanwhile:\n" + "\n".join(_from_us(second)[-2:]))
    stage.until(f"{FIRST} to pass its first checkpoint", lambda: stage.steps(FIRST) > CHECKPOINT_EVERY * 3 // 2)

    audience.act("Production needs both GPUs now; research only borrowed them")
    urgent_id = stage.urgent()
    stage.until(f"{urgent_id} to end", lambda: stage.read(urgent_id).get("state") in TERMINAL_STATES)

    audience.act("Ada goes on from her checkpoint, then it is Bob's turn")
    for job_id in (FIRST, SECOND):
        stage.until(f"{job_id} to end", lambda job_id=job_id: stage.read(job_id).get("state") in TERMINAL_STATES)  # type: ignore[misc]  # bound now
    for child in (first, second):
        stage.until(f"`{child.line[:40]}...` to return", lambda child=child: child.process.poll() is not None)  # type: ignore[misc]  # bound now
    jobs = tuple(scene.client.read_job(job_id) for job_id in (FIRST, SECOND, urgent_id))
    return Told(jobs, explanation, urgent_id, (first, second), stage.seconds())


class _Stage:
    def __init__(self, scene: Scene, audience: Audience) -> None:
        self._scene = scene
        self._audience = audience
        self._started = time.monotonic()
        self._jobs: dict[str, JobJson] = {}

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def train(self, job_id: str, user: str) -> Child:
        recipe = ["python", "-m", "heliostat_jobs.recipes.digits_cnn", "--workers", "2", "--epochs", str(EPOCHS)]
        recipe += ["--checkpoint-every", str(CHECKPOINT_EVERY)]
        child = self._scene.ray_job_submit(job_id, {"queue": "research", "owner": user}, recipe)
        self._audience.typed(child.line)
        self.until(f"{job_id} to be queued", lambda: job_id in self._jobs, child)
        return child

    def urgent(self) -> str:
        """Submit the urgent command; its id is what `helio submit` printed."""
        options = ["--queue", "production", "--priority", "high", "--gpus", "2", "--name", "urgent"]
        command = [sys.executable, "-m", "heliostat.demo.urgent", "--seconds", str(URGENT_S)]
        child = self._scene.helio_submit(options, command)
        self._audience.typed(child.line.replace(sys.executable, "python"))
        self.until("helio submit to return", lambda: child.process.poll() is not None)
        if child.process.returncode:
            raise DemoFailed(f"helio submit ended with {child.process.returncode}: {child.text()}")
        return child.text().splitlines()[0]

    def read(self, job_id: str) -> JobJson:
        return self._jobs.get(job_id, {})

    def steps(self, job_id: str) -> int:
        return recount_run(self._scene.run_dir(job_id)).distinct

    def until(self, what: str, reached: Callable[[], bool], child: Child | None = None) -> None:
        moved_at, seen = time.monotonic(), ""
        while True:
            glance = self._look()
            if reached():
                return
            self._check(what, child)
            now_seen = f"{glance.steps} {[(job['state'], job.get('attempts')) for job in glance.jobs]}"
            if now_seen != seen:
                moved_at, seen = time.monotonic(), now_seen
            if time.monotonic() - moved_at > PATIENCE_S:
                raise DemoFailed(f"Nothing moved for {PATIENCE_S:.0f} s while waiting for {what}.")
            time.sleep(POLL_S)

    def _look(self) -> Glance:
        jobs = list(self._scene.client.list_jobs(state=None, queue=None, user=None, limit=10))[::-1]
        self._jobs = {job["id"]: job for job in jobs}
        glance = Glance(self.seconds(), tuple(jobs), {job_id: self.steps(job_id) for job_id in self._jobs})
        self._audience.glance(glance)
        return glance

    def _check(self, what: str, child: Child | None) -> None:
        """Fail at once where waiting is pointless."""
        for job in self._jobs.values():
            if job.get("state") in ("failed", "timed_out"):
                raise DemoFailed(
                    f"{job['id']} failed while waiting for {what}: {job.get('error')}\n{self._log(job['id'])}"
                )
        if child is not None and child.process.poll():
            raise DemoFailed(f"`{child.line}` ended with {child.process.returncode}:\n{child.text()}")

    def _log(self, job_id: str) -> str:
        return "\n".join(self._scene.client.job(job_id).logs().text().splitlines()[-15:])


def _from_us(child: Child) -> list[str]:
    """What the queue wrote into the terminal of `ray job submit`."""
    return [line for line in child.text().splitlines() if line.startswith("[heliostat]")]


def _waits(job: JobJson) -> bool:
    code = (job.get("reason") or {}).get("code", "")
    return job.get("state") == "queued" and code not in ("", "PendingEvaluation", "Starting")
