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
from heliostat_scheduler.live.protocol import Lease, LeaseGone, SlotRef

TICK_MS = 100


@dataclass(frozen=True, slots=True)
class Script:
    """steps 0: a plain driver that runs `runs_ms` (None: until it is stopped). stop_ms: from SIGTERM to its end.

    obeys: it saves a checkpoint when it is told to; else its runner ends the workers at the order's deadline, unless the runner
    hangs. again_ms: from letting go to workers in the new slots. fit_ms: when its fit() begins, after the driver's start.
    demand: GPUs that its fit() asks for where it was given none, or what a given range is narrowed to.
    """

    runs_ms: int | None = 1_000
    steps: int = 0
    checkpoint_every: int = 5
    start_ms: int = 300
    stop_ms: int = 200
    exit_code: int = 0
    obeys: bool = True
    hangs: bool = False
    again_ms: int = 0
    demand: tuple[int, int] = (0, 0)
    fit_ms: int = 0
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
    slots: tuple[SlotRef, ...] = ()
    again_at_ms: int = 0

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
    """cluster: where its drivers work. scripts: by job id. disk: checkpoints, which outlive everything. executed: (job, step).

    sizes: (job, step, workers) of every worker group that started.
    """

    cluster: FakeCluster
    scripts: dict[str, Script] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    executed: list[tuple[str, int]] = field(default_factory=list)
    sizes: list[tuple[str, int, int]] = field(default_factory=list)
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
            self._at(driver.script.fit_ms + TICK_MS, lambda: self._tick(driver))
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
        fewest, most = driver.script.demand
        if most and not driver.working:
            facts = {"min_gpus": fewest, "max_gpus": most, "gpus_per_task": 1}
            self.cluster.ack(driver.job, driver.secret, lease.epoch, protocol.DEMAND, facts)
        if lease.attempt != driver.attempt:
            self._let_go(driver)
        elif most and not lease.slots:
            return  # it waits in fit()
        elif driver.working and (lease.order != protocol.RUN or lease.slots != driver.slots):
            self._release(driver, lease)
        elif lease.order == protocol.RUN and self.cluster.now_ms >= driver.again_at_ms:
            if not driver.working:
                self._take_slots(driver, lease)
            self._step(driver)

    def _release(self, driver: Driver, lease: Lease) -> None:
        """An order: save and let go, or work on until the deadline."""
        script = driver.script
        overdue = 0 < lease.deadline_ms <= self.cluster.now_ms
        if script.hangs or not (script.obeys or overdue):
            self._step(driver)
            return
        if script.obeys:
            self.disk[driver.job] = driver.step
            facts = {"checkpoint": driver.step}
            self.cluster.ack(driver.job, driver.secret, lease.epoch, protocol.CHECKPOINTED, facts)
        self._let_go(driver)
        driver.again_at_ms = self.cluster.now_ms + script.again_ms
        self.cluster.ack(driver.job, driver.secret, lease.epoch, protocol.RELEASED, {"forced": not script.obeys})

    def _take_slots(self, driver: Driver, lease: Lease) -> None:
        driver.working, driver.slots = True, lease.slots
        driver.step = self.disk.get(driver.job, 0)
        for ref in lease.slots:
            actor = f"worker:{driver.submission.submission_id}:{ref.slot}:{lease.epoch}:{len(self.executed)}"
            driver.actors.append(actor)
            self.cluster.occupy(ref.slot, actor, job=driver.job, attempt=driver.attempt)
        self.cluster.ack(
            driver.job,
            driver.secret,
            lease.epoch,
            protocol.STARTED,
            {"world_size": len(lease.slots), "kept": 1, "warm": 0, "plain_because": ""},
        )
        self.sizes.append((driver.job, driver.step, len(lease.slots)))

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
