"""What every act stands on: it types commands, watches the jobs, and waits for what it needs with a deadline that names it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heliostat_jobs.spec import recount_run

from heliostat.demo.scene import Child, Scene
from heliostat.wire.shapes import TERMINAL_STATES, EventJson, JobJson

POLL_S = 0.5
PATIENCE_S = 240.0
"""How long nothing at all may move. Not how long an act may take: that is the machine's affair."""


class DemoFailed(Exception):
    """What was awaited did not happen."""


@dataclass(frozen=True, slots=True)
class Glance:
    """The state of things at one moment. steps, totals: finished and all training steps by job id."""

    seconds: float
    jobs: tuple[JobJson, ...]
    steps: dict[str, int]
    totals: Mapping[str, int]


class Audience:
    """Who watches: told what is about to happen, and shown a glance twice a second."""

    def act(self, title: str) -> None: ...

    def typed(self, line: str) -> None: ...

    def said(self, text: str) -> None: ...

    def glance(self, glance: Glance) -> None: ...


class Stage:
    def __init__(self, scene: Scene, audience: Audience, totals: Mapping[str, int]) -> None:
        self.scene = scene
        self.audience = audience
        self._totals = totals
        self._started = time.monotonic()
        self._jobs: dict[str, JobJson] = {}

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def typed(self, child: Child, job_id: str) -> Child:
        """A submission was typed: show it, and wait until the job is there."""
        self.audience.typed(child.line)
        self.until(f"{job_id} to be queued", lambda: job_id in self._jobs, child)
        return child

    def command(self, queue: str, gpus: int, name: str, seconds: float) -> str:
        """Submit the urgent command with `helio submit`; its id is the first line of what that prints."""
        options = ["--queue", queue, "--priority", "high", "--gpus", str(gpus), "--name", name]
        child = self.scene.helio_submit(options, urgent(seconds))
        self.audience.typed(child.line.replace(sys.executable, "python"))
        self.until("helio submit to return", lambda: child.process.poll() is not None)
        if child.process.returncode:
            raise DemoFailed(f"helio submit ended with {child.process.returncode}: {child.text()}")
        return child.text().splitlines()[0]

    def until_ended(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.until(f"{job_id} to end", lambda job_id=job_id: self.read(job_id).get("state") in TERMINAL_STATES)  # type: ignore[misc]  # bound now

    def until_returned(self, *children: Child) -> None:
        for child in children:
            self.until(f"`{child.line[:40]}...` to return", lambda child=child: child.process.poll() is not None)  # type: ignore[misc]  # bound now

    def read(self, job_id: str) -> JobJson:
        return self._jobs.get(job_id, {})

    def events(self, job_id: str) -> list[EventJson]:
        return self.scene.client.job(job_id).events()

    def steps(self, job_id: str) -> int:
        return recount_run(self.scene.run_dir(job_id)).distinct

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
        jobs = list(self.scene.client.list_jobs(state=None, queue=None, user=None, limit=10))[::-1]
        self._jobs = {job["id"]: job for job in jobs}
        glance = Glance(
            self.seconds(), tuple(jobs), {job_id: self.steps(job_id) for job_id in self._jobs}, self._totals
        )
        self.audience.glance(glance)
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
        return "\n".join(self.scene.client.job(job_id).logs().text().splitlines()[-15:])


def urgent(seconds: float) -> list[str]:
    """A short command of production's."""
    return [sys.executable, "-m", "heliostat.demo.urgent", "--seconds", str(seconds)]


def recipe(*options: str) -> list[str]:
    """The digits recipe, as one types it."""
    return ["python", "-m", "heliostat_jobs.recipes.digits_cnn", *options]
