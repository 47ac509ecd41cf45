"""Which attempt a process belongs to, from its environment."""

from pathlib import Path

import pytest
from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.errors import BrokenEnvironment

FULL = {
    "HELIOSTAT_JOB": "job-1",
    "HELIOSTAT_ATTEMPT": "2",
    "HELIOSTAT_LEASE_SECRET": "s3cret",
    "HELIOSTAT_RUN_DIR": "/runs/job-1",
}


def test_an_attempt_and_its_folders() -> None:
    attempt = Attempt.from_environment(FULL)
    assert attempt == Attempt("job-1", 2, Path("/runs/job-1"), Path("/runs/job-1/checkpoints"), "s3cret")
    chosen = Attempt.from_environment({**FULL, "HELIOSTAT_CHECKPOINT_DIR": "/ckpt"})
    assert chosen is not None and chosen.checkpoint_dir == Path("/ckpt")


def test_outside_a_job_there_is_none() -> None:
    assert Attempt.from_environment({}) is None


def test_the_secret_is_not_printed() -> None:
    assert "s3cret" not in repr(Attempt.from_environment(FULL))


@pytest.mark.parametrize("missing", ["HELIOSTAT_ATTEMPT", "HELIOSTAT_LEASE_SECRET", "HELIOSTAT_RUN_DIR"])
def test_half_an_environment_names_what_is_missing(missing: str) -> None:
    with pytest.raises(BrokenEnvironment, match=missing):
        Attempt.from_environment({name: value for name, value in FULL.items() if name != missing})
