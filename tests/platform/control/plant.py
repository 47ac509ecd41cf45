"""A whole control plane without Ray, sockets or real time: loop, store, fake bridge, fake Jobs API, one virtual clock.

Faults are methods. The control plane can die anywhere: `crash_after(n)` makes the n-th act towards the world or the store raise
`Crash`, which is what kill -9 at that point leaves behind; `restart_control` is what `helio up` does then.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from heliostat.control.drivers import DriverDesk
from heliostat.control.hands import NoServing, Serving
from heliostat.control.inbox import Inbox
from heliostat.control.launch import Launcher, Package
from heliostat.control.loop import Loop, Parts
from heliostat.control.messages import Asked, BridgeLost, BridgeSaid, JobTold, Message
from heliostat.store import Store, jobs
from heliostat.store.tables import Attempt, Event, Job, Lease
from heliostat_scheduler.core.lifecycle import TERMINAL
from heliostat_scheduler.live.fake_bridge import FakeBridge
from heliostat_scheduler.live.fake_cluster import FakeCluster, FakeNode, Program
from heliostat_scheduler.live.protocol import Command
from sqlalchemy import select
from sqlalchemy.orm import Session

from tests.platform.control.fake_ray import FakeRayJobs, Script

T = TypeVar("T")
START_MS = 1_800_000_000_000


class Crash(BaseException):
    """kill -9 of the control plane, here."""


class Fuse:
    """Counts acts; blows at the chosen one."""

    def __init__(self) -> None:
        self.left: int | None = None

    def act(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left <= 0:
            self.left = None
            raise Crash


class FusedStore:
    """The store, where the control plane may die before or after a write."""

    def __init__(self, store: Store, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse
        self.read = store.read

    def write(self, work: Callable[[Session], T]) -> T:
        self._fuse.act()
        result = self._store.write(work)
        self._fuse.act()
        return result


class PlantBridge:
    """The bridge as the loop sees it."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def send(self, command: Command) -> None:
        self._plant.fuse.act()
        bridge = self._plant.bridge
        if bridge is not None:
            bridge.send(command)

    def restart(self) -> None:
        self._plant.kill_bridge()


class PlantPool:
    """Calls wait here until the plant runs them."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        self.calls: list[Callable[[], None]] = []

    def run(self, call: Callable[[], None]) -> None:
        self._fuse.act()
        self.calls.append(call)

    def work(self) -> bool:
        calls, self.calls = self.calls, []
        for call in calls:
            call()
        return bool(calls)


class PlantTails:
    def start(self, submission_id: str, log: Path) -> None:
        """Nothing to copy: save_log fetches it whole."""

    def end(self, submission_id: str) -> None:
        """Nothing to end."""


class PlantHead:
    def __init__(self) -> None:
        self.up = True

    def alive(self) -> bool:
        return self.up


class PlantClock:
    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def now_ms(self) -> int:
        return self._plant.cluster.now_ms


class Plant:
    def __init__(self, folder: Path, *, gpus: int = 2, cpu_milli: int = 4_000) -> None:
        self.folder = folder
        self.gpus = gpus
        self.cpu_milli = cpu_milli
        self.fuse = Fuse()
        self.heads = 0
        self.cluster = self._new_cluster(START_MS)
        self.ray = FakeRayJobs(self.cluster)
        self.head = PlantHead()
        self.bridge: FakeBridge | None = None
        self.bridge_starts_at: int | None = START_MS
        self.store = Store(f"sqlite:///{folder / 'heliostat.db'}")
        self.logged: list[tuple[str, str, dict[str, Any]]] = []  # Any: JSON
        self.outdated = ""
        self.serving: Serving = NoServing()
        self._seq = 0
        self.restart_control()

    # ---- the control plane ---------------------------------------------------------------------------------------------

    def restart_control(self) -> None:
        """`helio up` after the control plane died: the bridge died with it (its pipe closed)."""
        self.fuse.left = None
        self.kill_bridge()
        self.inbox = Inbox()
        self.pool = PlantPool(self.fuse)
        desk = DriverDesk(self.ray, self.pool, PlantTails(), self.post)
        parts = Parts(
            store=FusedStore(self.store, self.fuse),  # type: ignore[arg-type]
            clock=PlantClock(self),
            bridge=PlantBridge(self),
            drivers=desk,
            head=self.head,
            launcher=Launcher(
                self.folder / "runs", lambda project, uri: Package("0" * 64, self.folder / "package.zip")
            ),
            log=lambda level, event, fields: self.logged.append((level, event, fields)),
            reserve_cpu_milli=lambda: 4_000,
            on_outdated=self._outdated,
            serving=self.serving,
        )
        self.loop = Loop(parts, self.inbox)
        self.loop.boot()

    def post(self, message: Message) -> None:
        self.inbox.post(message)

    def _outdated(self, text: str) -> None:
        self.outdated = text

    # ---- time ----------------------------------------------------------------------------------------------------------

    def advance(self, ms: int, step_ms: int = 50) -> None:
        """Let time pass; every message is delivered and answered within its step."""
        for _ in range(max(1, ms // step_ms)):
            self.cluster.advance(step_ms)
            self.settle()

    def settle(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(50):
            if (
                self.bridge is None
                and self.bridge_starts_at is not None
                and self.cluster.now_ms >= self.bridge_starts_at
            ):
                self.bridge = FakeBridge(self.cluster)
                self.bridge_starts_at = None
            facts = self.bridge.take() if self.bridge is not None else []
            for fact in facts:  # one a turn: the pipe promises no more than their order
                self.inbox.post(BridgeSaid(fact))
                self.loop.turn()
            worked = self.pool.work()
            self.loop.turn()
            if not facts and not worked:
                break
        self.check()

    def until(self, condition: Callable[[], bool], what: str, limit_ms: int = 120_000) -> None:
        """Advance until the condition holds."""
        end = self.cluster.now_ms + limit_ms
        while not condition():
            assert self.cluster.now_ms < end, f"waited {limit_ms} ms for: {what}\n{self.story()}"
            self.advance(100)

    # ---- doors ---------------------------------------------------------------------------------------------------------

    def submit(
        self, job_id: str, *, gpus: int = 1, kind: str = "ray", work: Script | Program | None = None, **more: Any
    ) -> str:  # Any: columns
        """A job, in the store and told to the loop."""
        if isinstance(work, Script):
            self.ray.scripts[job_id] = work
        elif isinstance(work, Program):
            kind = "command"
            self.cluster.programs[job_id] = work
        self._seq += 1
        row = {
            "id": job_id,
            "project": "default",
            "user": "ann",
            "name": job_id,
            "kind": kind,
            "queue": "default",
            "state": "queued",
            "min_tasks": max(1, gpus),
            "max_tasks": max(1, gpus),
            "gpu_milli": 1000 if gpus else 0,
            "cpu_milli": 1000,
            "entrypoint": "python train.py",
            "submitted_ms": self.cluster.now_ms + self._seq,
            **more,
        }
        self.store.write(lambda session: jobs.add(session, row))
        self.inbox.post(JobTold(job_id, new=True))
        return job_id

    def ask(self, what: str, job_id: str) -> Future[None]:
        answer: Future[None] = Future()
        self.inbox.post(Asked(what, job_id, "ann", answer))
        return answer

    # ---- faults --------------------------------------------------------------------------------------------------------

    def kill_bridge(self, back_after_ms: int = 500) -> None:
        if self.bridge is not None:
            self.bridge.close()
            self.bridge = None
            self.bridge_starts_at = self.cluster.now_ms + back_after_ms
            self.inbox.post(BridgeLost("killed"))

    def kill_head(self) -> None:
        """Everything on Ray is gone; the control plane stays."""
        now = self.cluster.now_ms
        self.kill_bridge()
        self.bridge_starts_at = None
        self.head.up, self.ray.down = False, True
        programs = self.cluster.programs
        self.cluster = self._new_cluster(now)
        self.cluster.programs = programs
        self.ray.forget_all(self.cluster)

    def start_head(self) -> None:
        """`helio up` after the head's death."""
        self.head.up, self.ray.down = True, False
        self.bridge_starts_at = self.cluster.now_ms + 500

    def run_through_crashes(self, ms: int, step_ms: int = 50) -> int:
        """Advance; whenever the control plane dies, `helio up`. Returns how often it did."""
        died = 0
        end = self.cluster.now_ms + ms
        while self.cluster.now_ms < end:
            try:
                self.advance(step_ms, step_ms)
            except Crash:
                died += 1
                self.restart_control()
        return died

    # ---- looking -------------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        with self.store.read() as session:
            return jobs.get(session, job_id)

    def state(self, job_id: str) -> str:
        return self.job(job_id).state

    def attempts(self, job_id: str) -> list[Attempt]:
        with self.store.read() as session:
            return list(session.execute(select(Attempt).where(Attempt.job == job_id).order_by(Attempt.n)).scalars())

    def states(self, job_id: str) -> list[str]:
        """The story of the job's states."""
        with self.store.read() as session:
            query = select(Event.to_state).where(Event.job == job_id, Event.kind == "job_moved").order_by(Event.seq)
            return [state for state in session.execute(query).scalars() if state is not None]

    def leases(self) -> list[Lease]:
        with self.store.read() as session:
            return list(session.execute(select(Lease)).scalars())

    def story(self) -> str:
        with self.store.read() as session:
            found = session.execute(select(Event).order_by(Event.seq.desc()).limit(40)).scalars().all()
        lines = [
            f"{e.at_ms - START_MS:>8} {e.job or '-':12} {e.kind} {e.from_state}->{e.to_state} a{e.attempt} {e.data}"
            for e in reversed(found)
        ]
        refused = [f"{level} {event} {fields}" for level, event, fields in self.logged if level in ("error", "warning")]
        live = [str(attempt) for attempt in self.loop.executor.attempts.values()]
        return "\n".join([*lines, *refused[-10:], *live])

    def running(self) -> dict[str, int]:
        """Processes alive now, by job: drivers and command children."""
        found: dict[str, int] = {}
        for driver in self.ray.drivers.values():
            if driver.alive:
                found[driver.job] = found.get(driver.job, 0) + 1
        for child in self.cluster.children.values():
            if child.rc is None:
                found[child.job] = found.get(child.job, 0) + 1
        return found

    def check(self) -> None:
        """What holds at every moment."""
        twice = {job: count for job, count in self.running().items() if count > 1}
        assert not twice, f"running twice at once: {twice}\n{self.story()}"
        for slot in self.cluster.slots:
            holders = {(o.job, o.attempt) for o in self.cluster.occupants.values() if o.slot == slot}
            assert len(holders) <= 1, f"{slot} is shared by {holders}\n{self.story()}"

    def check_quiet(self) -> None:
        """What holds when all work is done: everything ended, nothing leaked, nothing refused."""
        with self.store.read() as session:
            states = {job.id: job.state for job in session.execute(select(Job)).scalars()}
        assert all(state in TERMINAL for state in states.values()), f"{states}\n{self.story()}"
        assert not self.leases(), self.story()
        assert not self.loop.executor.attempts, self.story()
        assert not self.cluster.occupants, self.story()
        assert not self.running(), self.story()
        assert not self.loop.engine.state.book.jobs, self.story()
        assert not self.cluster.board.leases, self.story()
        errors = [entry for entry in self.logged if entry[0] == "error"]
        assert not errors, errors

    def _new_cluster(self, now_ms: int) -> FakeCluster:
        self.heads += 1
        node = FakeNode(f"node{self.heads:08d}", gpus=self.gpus, cpu_milli=self.cpu_milli, is_head=True)
        return FakeCluster(node, now_ms=now_ms)
