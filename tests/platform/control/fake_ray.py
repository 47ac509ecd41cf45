"""Ray's Jobs API in memory, on the virtual clock of a FakeCluster. Passes the conformance suite that the real client passes.

A driver does what its `Script` says. A script with `steps` behaves like a Train job: it sits in its lease's slots, reports,
writes a checkpoint every `checkpoint_every` steps, obeys orders from the lease board, and resumes from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from heliostat.control.hands import Submission
from heliostat.control.messages import DriverInfo
from heliostat.control.ray_jobs import RayRefused, RayUnreachable
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.board_state import BoardEmpty
from heliostat_scheduler.live.fake_cluster import FakeCluster
from heliostat_scheduler.live.protocol import Lease, LeaseGone

TICK_MS = 100


@dataclass(frozen=True, slots=True)
class Script:
    """steps 0: a plain driver that runs `runs_ms` (None: until it is stopped). stop_ms: from SIGTERM to its end."""

    runs_ms: int | None = 1_000
    steps: int = 0
    checkpoint_every: int = 5
    start_ms: int = 300
    stop_ms: int = 200
    exit_code: int = 0
    obeys: bool = True
    output: str = "hello\n"


@dataclass(slots=True)
class Driver:
    submission: Submission
    script: Script
    status: str = "PENDING"
    exit_code: int | None = None
    error_type: str = ""
    step: int = 0
    working: bool = False
    log: str = ""
    actors: list[str] = field(default_factory=list)

    @property
    def job(self) -> str:
        return self.submission.runtime_env["env_vars"][protocol.ENV_JOB]  # type: ignore[no-any-return]

    @property
    def attempt(self) -> int:
        return int(self.submission.runtime_env["env_vars"][protocol.ENV_ATTEMPT])

    @property
    def secret(self) -> str:
        return self.submission.runtime_env["env_vars"][protocol.ENV_SECRET]  # type: ignore[no-any-return]

    @property
    def alive(self) -> bool:
        return self.status in ("PENDING", "RUNNING")


@dataclass(slots=True)
class FakeRayJobs:
    """cluster: where its drivers work. scripts: by job id. disk: checkpoints, which outlive everything. executed: (job, step)."""

    cluster: FakeCluster
    scripts: dict[str, Script] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    executed: list[tuple[str, int]] = field(default_factory=list)
    drivers: dict[str, Driver] = field(default_factory=dict)
    down: bool = False

    # ---- the port ------------------------------------------------------------------------------------------------------

    def submit(self, submission: Submission) -> None:
        self._reachable()
        if submission.submission_id in self.drivers:
            return
        if not all(isinstance(value, str) for value in submission.metadata.values()):
            raise RayRefused("metadata values must be strings")
        env = submission.runtime_env.get("env_vars", {})
        script = self.scripts.get(env.get(protocol.ENV_JOB, ""), Script())
        driver = self.drivers[submission.submission_id] = Driver(submission, script)
        self._at(script.start_ms, lambda: self._run(driver))

    def info(self, submission_id: str) -> DriverInfo | None:
        self._reachable()
        driver = self.drivers.get(submission_id)
        if driver is None:
            return None
        return DriverInfo(driver.status, "", driver.error_type, driver.exit_code)

    def stop(self, submission_id: str) -> None:
        self._reachable()
        driver = self.drivers.get(submission_id)
        if driver is not None and driver.alive:
            self._at(driver.script.stop_ms, lambda: self._end(driver, "STOPPED"))

    def delete(self, submission_id: str) -> None:
        self._reachable()
        driver = self.drivers.get(submission_id)
        if driver is None:
            return
        if driver.alive:
            raise RayUnreachable("Ray answered 500: it is in a non-terminal state")
        del self.drivers[submission_id]

    def logs(self, submission_id: str) -> str:
        self._reachable()
        driver = self.drivers.get(submission_id)
        return "" if driver is None else driver.log

    # ---- faults --------------------------------------------------------------------------------------------------------

    def kill(self, submission_id: str) -> None:
        """kill -9 of the driver's process; Ray frees its workers at once."""
        self._end(self.drivers[submission_id], "FAILED", exit_code=-9, error_type="JOB_ENTRYPOINT_COMMAND_ERROR")

    def forget_all(self, cluster: FakeCluster) -> None:
        """A new Ray cluster: nothing of the old one is there."""
        for driver in self.drivers.values():
            driver.status, driver.working = "FAILED", False
        self.drivers = {}
        self.cluster = cluster

    # ---- what drivers do -----------------------------------------------------------------------------------------------

    def _run(self, driver: Driver) -> None:
        if driver.status != "PENDING":
            return
        driver.status, driver.log = "RUNNING", driver.log + driver.script.output
        if driver.script.steps:
            self._at(TICK_MS, lambda: self._tick(driver))
        elif driver.script.runs_ms is not None:
            code = driver.script.exit_code
            self._at(
                driver.script.runs_ms, lambda: self._end(driver, "FAILED" if code else "SUCCEEDED", exit_code=code)
            )

    def _tick(self, driver: Driver) -> None:
        """100 ms of a Train driver: obey, or work one step."""
        if driver.status != "RUNNING":
            return
        try:
            lease = self.cluster.lease(driver.job, driver.secret)
        except LeaseGone:
            self._let_go(driver)
        except BoardEmpty:
            if driver.working:
                self._step(driver)
        else:
            self._obey(driver, lease)
        if driver.status == "RUNNING":
            self._at(TICK_MS, lambda: self._tick(driver))

    def _obey(self, driver: Driver, lease: Lease) -> None:
        if lease.attempt != driver.attempt:
            self._let_go(driver)
        elif lease.order == protocol.RUN:
            if not driver.working:
                self._take_slots(driver, lease)
            self._step(driver)
        elif driver.working and driver.script.obeys:
            self.disk[driver.job] = driver.step
            self._let_go(driver)
            self.cluster.ack(driver.job, driver.secret, lease.epoch, protocol.RELEASED, {"checkpoint": driver.step})
        elif driver.working:
            self._step(driver)

    def _take_slots(self, driver: Driver, lease: Lease) -> None:
        driver.working = True
        driver.step = self.disk.get(driver.job, 0)
        for ref in lease.slots:
            actor = f"worker:{driver.submission.submission_id}:{ref.slot}:{len(self.executed)}"
            driver.actors.append(actor)
            self.cluster.occupy(ref.slot, actor, job=driver.job, attempt=driver.attempt)
        self.cluster.ack(driver.job, driver.secret, lease.epoch, protocol.STARTED, {"world_size": len(lease.slots)})

    def _step(self, driver: Driver) -> None:
        if not all(actor in self.cluster.occupants for actor in driver.actors):
            self._end(driver, "FAILED", exit_code=1, error_type="JOB_ENTRYPOINT_COMMAND_ERROR")
            return
        if driver.step < driver.script.steps:
            driver.step += 1
            self.executed.append((driver.job, driver.step))
        if driver.step % driver.script.checkpoint_every == 0:
            self.disk[driver.job] = driver.step
        if driver.step >= driver.script.steps:
            self._end(driver, "SUCCEEDED", exit_code=0)

    def _let_go(self, driver: Driver) -> None:
        driver.working = False
        for actor in driver.actors:
            self.cluster.vacate(actor)
        driver.actors = []

    def _end(self, driver: Driver, status: str, *, exit_code: int | None = None, error_type: str = "") -> None:
        if driver.alive:
            driver.status, driver.exit_code, driver.error_type = status, exit_code, error_type
            self._let_go(driver)

    def _at(self, after_ms: int, call: Callable[[], None]) -> None:
        self.cluster.at(self.cluster.now_ms + after_ms, call)

    def _reachable(self) -> None:
        if self.down:
            raise RayUnreachable("Ray's dashboard does not answer: connection refused")
