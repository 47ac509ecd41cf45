"""A thousand cycles of the control plane's own loop, replayed from its log by other processes with other hash seeds, byte for byte.

The loop, the executor, the store and the log are the live ones; Ray is the fake that the failure tests use, on virtual time. The life is
seeded: work of two queues that grows, shrinks, is preempted and resumes, telemetry, what is learned of run times, changed shares, a drained
node, a bridge that dies, and a control plane that dies in the middle of an act and is started again, four times.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from heliostat.control.messages import Learned, NodeAsked, QueuesTold, SlotsRead
from heliostat.forecasting.replaying import in_another_process
from heliostat.store import queuefiles
from heliostat.store.tables import DecisionLog, Snapshot
from heliostat_scheduler.core import codec
from heliostat_scheduler.core.lifecycle import TERMINAL
from heliostat_scheduler.live.fake_cluster import Program
from sqlalchemy import select

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Crash, Plant

CYCLES = 1_000
GPUS = 8
AT_ONCE = 14
QUEUES = """\
default: research
queues:
  research: {{weight: 2}}
  production: {{quota: {{gpu: {quota}}}, priority: 200}}
"""
HAPPENS = {
    "Start", "Resize", "Preempt", "Stop",
    "JobSubmitted", "JobStarted", "JobFinished", "JobResized", "JobRequeued", "JobCancelled", "JobHeld", "JobReleased",
    "Utilized", "Estimated", "Checkpointed", "QueuesChanged", "NodeCordoned", "NodeUncordoned",
}  # fmt: skip


class Life:
    def __init__(self, plant: Plant, seed: int) -> None:
        self.plant = plant
        self.random = random.Random(seed)
        self.count = 0
        self.restarts = 0

    def run(self) -> None:
        self._share(3)
        while self.plant.loop.cycles < CYCLES:
            live = [job for job in self._jobs() if self.plant.state(job) not in TERMINAL]
            if len(live) < AT_ONCE:
                self._submit()
            self._happen(live)
            self._advance(self.random.choice((100, 300, 1_000, 3_000)))

    def _jobs(self) -> list[str]:
        return [f"job{number}" for number in range(max(0, self.count - 4 * AT_ONCE), self.count)]

    def _submit(self) -> None:
        gpus = self.random.choice((1, 1, 2, 4, 8))
        if self.random.random() < 0.6:
            work: Script | Program = Script(
                steps=self.random.choice((20, 100, 400)), checkpoint_every=10, again_ms=self.random.choice((0, 500))
            )
        else:
            work = Program(runs_ms=self.random.choice((500, 3_000, 20_000)))
        queue = self.random.choice(("research", "research", "production"))
        fewest = self.random.randint(1, gpus) if isinstance(work, Script) else gpus
        self.plant.submit(
            f"job{self.count}", gpus=gpus, work=work, min_tasks=fewest, queue=queue, user=self.random.choice(("ann", "bob")),
            priority=self.random.choice((50, 100, 150)), max_runtime_ms=self.random.choice((None, None, 60_000)),
        )  # fmt: skip
        self.count += 1

    def _happen(self, live: list[str]) -> None:
        plant, rng = self.plant, self.random
        if plant.loop.cycles > (self.restarts + 1) * CYCLES // 5:
            plant.fuse.left = rng.randint(1, 9)  # it dies in the middle of one of its next acts
        chance = rng.random()
        if chance < 0.3:
            plant.post(SlotsRead({slot: rng.choice((0, 30, 950)) for slot in plant.cluster.slots}, 10_000))
        elif chance < 0.4 and live:
            rests = tuple((job, rng.randrange(1_000, 10**6)) for job in rng.sample(live, 1 + len(live) // 2))
            plant.post(Learned(rests, {"research": (rng.randrange(1_000, 10**6), 30)}))
        elif chance < 0.5 and live:
            held = [job for job in live if plant.state(job) == "held"]
            plant.ask("release", held[0]) if held else plant.ask(rng.choice(("cancel", "hold")), rng.choice(live))
        elif chance < 0.55:
            self._share(rng.randrange(2, 6))
        elif chance < 0.57:
            for what in ("cordon", rng.choice(("cordon", "drain")), "uncordon"):
                plant.post(NodeAsked(what, plant.loop.executor.head_node, "ann", Future()))
                self._advance(500)
        elif chance < 0.58:
            plant.kill_bridge()

    def _share(self, quota: int) -> None:
        plant, text = self.plant, QUEUES.format(quota=quota)
        plant.store.write(lambda session: queuefiles.put(session, text, actor="ann", now_ms=plant.cluster.now_ms))
        plant.post(QueuesTold())

    def _advance(self, ms: int) -> None:
        step_ms = min(ms, 100)
        for _ in range(ms // step_ms):
            try:
                self.plant.advance(step_ms, step_ms)
            except Crash:
                self.restarts += 1
                self.plant.restart_control()


def happened(plant: Plant) -> tuple[Counter[str], int]:
    """Kinds of events and of decisions in the log, and how many snapshots there are."""
    found: Counter[str] = Counter()
    with plant.store.read() as session:
        for row in session.execute(select(DecisionLog)).scalars():
            found.update(event["type"] for _, event in codec.loads(row.events))
            found.update(type(decision).__name__ for decision in codec.from_json(row.decisions).decisions)
        snapshots = len(session.execute(select(Snapshot.cycle)).all())
    return found, snapshots


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_live_cycles_replay_byte_for_byte_in_other_processes(make_plant: Callable[..., Plant]) -> None:
    plant = make_plant(gpus=GPUS, cpu_milli=16_000)
    plant.advance(1_000)
    life = Life(plant, seed=6)
    life.run()
    found, snapshots = happened(plant)
    print(
        f"{plant.loop.cycles} cycles, {life.count} jobs, {life.restarts} restarts, {snapshots} snapshots: {dict(found)}"
    )
    assert found.keys() >= HAPPENS, HAPPENS - found.keys()
    assert life.restarts >= 4 and snapshots > life.restarts
    told = [in_another_process(plant.store.url, None, None, seed, 300) for seed in (1, 4_294_967_295)]
    assert [(row["differs"], row["why"]) for row in told] == [(None, "")] * 2
    assert [(row["from"], row["to"], row["cycles"]) for row in told] == [(1, plant.loop.cycles, plant.loop.cycles)] * 2
    assert plant.loop.cycles >= CYCLES
