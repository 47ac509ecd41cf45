"""How an attempt is started: the command line for the bridge, or the submission for Ray's Jobs API.

The environment of every attempt begins with HELIOSTAT_; these names are what the hook on the nodes wakes up for. A package is
given to Ray under the name of its content, never under the name that the client chose: two projects may use the same name.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import CommandSpec

from heliostat.control.attempts import Attempt
from heliostat.control.hands import Submission
from heliostat.store.tables import Job
from heliostat.submission.request import WARM_HANDOVER

SCHEME = "gcs://"
SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
GRACE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Package:
    """A stored archive: the hash of its content, and where it lies on this machine."""

    digest: str
    path: Path


@dataclass(frozen=True, slots=True)
class Launcher:
    """runs: the folder of all run folders. package: (project, gcs:// URI) -> what is stored under it; OSError when nothing is.

    driver_cpus: what a driver takes of the head's reserve, now; 0 takes nothing.
    """

    runs: Path
    package: Callable[[str, str], Package]
    driver_cpus: Callable[[], float] = lambda: 0.0

    def run_dir(self, job_id: str) -> Path:
        """The job's own folder. Ids are chosen by clients, so what is no plain file name is hashed."""
        if SAFE_NAME.fullmatch(job_id):
            return self.runs / job_id
        return self.runs / f"id-{hashlib.sha256(job_id.encode()).hexdigest()[:40]}"

    def log_path(self, job_id: str, n: int) -> Path:
        return self.run_dir(job_id) / f"attempt-{n}.log"

    def prepare(self, job_id: str) -> None:
        """The folders that the attempt finds when it starts."""
        folder = self.run_dir(job_id)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def command(self, job: Job, attempt: Attempt) -> CommandSpec:
        env = {str(key): str(value) for key, value in job.env.items()} | self._env(attempt)
        env[protocol.ENV_KIND] = job.kind
        package = str(self.package(job.project, job.package_uri).path) if job.package_uri else ""
        return CommandSpec(
            argv=tuple(job.argv) or ("/bin/bash", "-c", job.entrypoint),
            env=tuple(sorted(env.items())),
            cwd=str(self.run_dir(job.id) / "work"),
            log=str(self.log_path(job.id, attempt.n)),
            package=package,
            nodes=job.nodes,
            grace_ms=GRACE_MS,
        )

    def submission(self, job: Job, attempt: Attempt, head_node: str) -> Submission:
        runtime_env: dict[str, Any] = dict(job.runtime_env)  # Any: JSON
        packages: dict[str, Path] = {}

        def pushed(uri: Any) -> Any:  # Any: JSON
            """The name under which Ray gets this package; other values as they are."""
            if not isinstance(uri, str) or not uri.startswith(SCHEME):
                return uri
            package = self.package(job.project, uri)
            name = uri.removeprefix(SCHEME) if uri.endswith(".whl") else f"_ray_pkg_{package.digest[:32]}.zip"
            packages[name] = package.path
            return f"{SCHEME}{name}"

        if job.package_uri:
            runtime_env["working_dir"] = job.package_uri
        if "working_dir" in runtime_env:
            runtime_env["working_dir"] = pushed(runtime_env["working_dir"])
        if "py_modules" in runtime_env:
            runtime_env["py_modules"] = [pushed(uri) for uri in runtime_env["py_modules"]]
        given = {str(key): str(value) for key, value in runtime_env.get("env_vars", {}).items()}
        own = {str(key): str(value) for key, value in job.env.items()}
        runtime_env["env_vars"] = given | own | self._env(attempt)
        if job.gpu_milli == 0 and job.kind == "ray":
            runtime_env["env_vars"][protocol.ENV_DISCOVER] = "1"
        if job.job_metadata.get(WARM_HANDOVER) == "false":
            runtime_env["env_vars"][protocol.ENV_WARM] = "0"
        return Submission(
            submission_id=attempt.submission_id,
            entrypoint=job.entrypoint or shlex.join(job.argv),
            runtime_env=runtime_env,
            metadata={str(key): str(value) for key, value in job.job_metadata.items()},
            num_cpus=self.driver_cpus(),
            label_selector={"ray.io/node-id": head_node} if head_node else {},
            packages=tuple(sorted(packages.items())),
        )

    def _env(self, attempt: Attempt) -> dict[str, str]:
        folder = self.run_dir(attempt.job)
        return {
            protocol.ENV_JOB: attempt.job,
            protocol.ENV_ATTEMPT: str(attempt.n),
            protocol.ENV_SECRET: attempt.secret,
            protocol.ENV_RUN_DIR: str(folder),
            protocol.ENV_CHECKPOINT_DIR: str(folder / "checkpoints"),
        }
