"""The client of Ray's Jobs API against a real dashboard with a token: the suite that the fake passes, and what a fake cannot show."""

from __future__ import annotations

import shlex
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from heliostat.control.ray_jobs import DashboardJobs, RayUnreachable
from heliostat.control.tails import WebSocketTails
from heliostat.local import leftovers, ray_head
from heliostat.local.machine import Shape
from heliostat.local.records import RayRecord
from heliostat.settings import load

from tests.contracts.ray_jobs_conformance import RayJobsConformance, submission

pytestmark = pytest.mark.ray

PYTHON = shlex.quote(sys.executable)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayRecord]:
    settings = load(home=tmp_path_factory.mktemp("home"))
    for folder in (settings.state_dir, settings.logs_dir):
        folder.mkdir(parents=True)
    record, child = ray_head.start(settings, Shape(0, 4, False, 200_000_000), {})
    try:
        ray_head.wait_ready(record, child, ray_head.log_path(settings))
        yield record
    finally:
        assert ray_head.stop(settings, record) == []
        assert leftovers(settings) == []


class RealWorld:
    def __init__(self, record: RayRecord) -> None:
        self.jobs = DashboardJobs(lambda: record)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, f"waited 90 s for {what}"
            time.sleep(0.2)

    def fresh(self) -> str:
        return f"job-{uuid.uuid4().hex[:12]}"

    def quick(self, job: str) -> str:
        return f'{PYTHON} -c "print(chr(104) + chr(101) + chr(108) * 2 + chr(111))"'

    def failing(self, job: str) -> str:
        return f'{PYTHON} -c "raise SystemExit(3)"'

    def endless(self, job: str) -> str:
        return f'{PYTHON} -c "import time; time.sleep(600)"'


@pytest.fixture
def real(head: RayRecord) -> Iterator[RealWorld]:
    world = RealWorld(head)
    # the dashboard answers before its agent can take submissions
    deadline = time.monotonic() + 150
    while True:
        try:
            world.jobs.submit(submission(world.fresh(), world.quick("")))
            break
        except RayUnreachable:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    yield world
    world.jobs.close()


class TestDashboardJobs(RayJobsConformance):
    @pytest.fixture
    def world(self, real: RealWorld) -> RealWorld:
        return real


def test_a_package_is_pushed_and_unpacked(real: RealWorld, tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("inside.txt", "from the package")
    job = real.fresh()
    line = f"{PYTHON} -c \"print(open('inside.txt').read())\""
    name = f"_ray_pkg_{uuid.uuid4().hex}.zip"
    plain = submission(job, line)
    packed = replace(
        plain, runtime_env={**plain.runtime_env, "working_dir": f"gcs://{name}"}, packages=((name, archive),)
    )
    real.jobs.submit(packed)
    real.wait(lambda: (i := real.jobs.info(f"{job}-a1")) is not None and i.ended, "the driver to end")
    assert "from the package" in real.jobs.logs(f"{job}-a1")


def test_a_running_drivers_output_is_copied_while_it_runs(real: RealWorld, tmp_path: Path) -> None:
    job = real.fresh()
    line = f"{PYTHON} -u -c \"import time; print('one'); time.sleep(600)\""
    real.jobs.submit(submission(job, line))
    log = tmp_path / "attempt-1.log"
    tails = WebSocketTails(real.jobs)
    tails.start(f"{job}-a1", log)
    real.wait(lambda: log.exists() and "one" in log.read_text(), "the copy of its output")
    tails.end(f"{job}-a1")
    real.jobs.stop(f"{job}-a1")
    real.wait(lambda: (i := real.jobs.info(f"{job}-a1")) is not None and i.ended, "the driver to end")


def test_a_wrong_token_is_told_as_unreachable(head: RayRecord, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    jobs = DashboardJobs(lambda: replace(head, token_path=str(wrong)))
    with pytest.raises(RayUnreachable, match=r"40[13]"):
        jobs.info("job-x-a1")
    jobs.close()
