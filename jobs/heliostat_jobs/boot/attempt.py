"""Which attempt of which job this process belongs to: the only place in this package that reads the environment for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heliostat_scheduler.live.protocol import (
    ENV_ATTEMPT,
    ENV_CHECKPOINT_DIR,
    ENV_DISCOVER,
    ENV_JOB,
    ENV_RUN_DIR,
    ENV_SECRET,
    ENV_WARM,
)

from heliostat_jobs.errors import BrokenEnvironment


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a job, as its own processes see it.

    secret: what the lease board wants to see from this attempt.
    run_dir: the job's folder, the same for all its attempts (result.json, steps.jsonl, Train's storage).
    checkpoint_dir: where a job that keeps its own checkpoints puts them.
    discovers: the job declared nothing, and its first fit() may ask for GPUs.
    warms: a run that changes its size keeps what processes it can, and starts new ones beside them (metadata `warm_handover`).
    """

    job: str
    number: int
    run_dir: Path
    checkpoint_dir: Path
    secret: str = field(repr=False)
    discovers: bool = False
    warms: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Attempt | None:
        """This process's attempt, or None outside a job."""
        job = environment.get(ENV_JOB)
        if not job:
            return None
        missing = [name for name in (ENV_ATTEMPT, ENV_SECRET, ENV_RUN_DIR) if not environment.get(name)]
        if missing:
            raise BrokenEnvironment(
                f"{ENV_JOB} is set to {job}, but {', '.join(missing)} is not.",
                f"Do not set or clear {ENV_JOB} by hand; a child of a job inherits all HELIOSTAT_ variables.",
            )
        run_dir = Path(environment[ENV_RUN_DIR])
        checkpoints = Path(environment.get(ENV_CHECKPOINT_DIR) or run_dir / "checkpoints")
        discovers, warms = environment.get(ENV_DISCOVER) == "1", environment.get(ENV_WARM) != "0"
        return cls(job, int(environment[ENV_ATTEMPT]), run_dir, checkpoints, environment[ENV_SECRET], discovers, warms)
