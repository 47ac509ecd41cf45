"""A thousand cycles on real Ray, with logical GPUs and telemetry that the test writes, replayed in other processes, byte for byte.

A training of one to four workers gives GPUs up to production and takes them back, production's commands of every class come, are preempted,
cancelled, held and let go, GPUs look busy or idle, shares change, and the control plane is killed twice on the way.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from heliostat import local
from heliostat.forecasting.replaying import in_another_process
from heliostat.local import UpOptions, control_plane, records
from heliostat.local.records import ControlRecord
from heliostat.settings import load
from heliostat.store import database
from heliostat.store.tables import DecisionLog
from heliostat_scheduler.core import codec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tests.e2e import test_control_plane as plane
from tests.e2e.ray_cluster import free_ports
from tests.e2e.scripts.control_with_fake_gpus import ACTIVITY_FILE
from tests.e2e.test_control_plane import ENDED, House, kill
from tests.e2e.test_idle_gpus import TRAINING, start_with_fake_gpus

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]

CYCLES = 1_000
AT_ONCE = 6
QUEUES = (
    "default: research\nqueues:\n  research: {{weight: 1}}\n  production: {{quota: {{gpu: {quota}}}, priority: 200}}\n"
)
HAPPENS = {
    "Start", "Resize", "Preempt", "Stop", "JobSubmitted", "JobStarted", "JobFinished", "JobRequeued", "JobHeld", "JobReleased",
    "JobCancelled", "JobRestored", "Utilized", "Checkpointed", "QueuesChanged",
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    patch = pytest.MonkeyPatch()
    patch.setattr(plane, "OPTIONS", UpOptions(gpus=4, object_store_bytes=200_000_000, port=free_ports(1)[0]))
    patch.setattr(control_plane, "start", start_with_fake_gpus)
    made = House(load(home=tmp_path_factory.mktemp("home") / "h", environ={}))
    try:
        made.up()
        yield made
    finally:
        local.down(made.settings)
        patch.undo()
        assert local.leftovers(made.settings) == []


class Life:
    def __init__(self, house: House) -> None:
        self.house = house
        self.random = random.Random(9)
        self.jobs: list[str] = []
        self.kills = 0
        self.engine = database.reader_engine(house.settings.database_url, 1)

    @property
    def cycles(self) -> int:
        with Session(bind=self.engine) as session:
            return session.execute(select(func.max(DecisionLog.cycle))).scalar() or 0

    def run(self) -> None:
        house = self.house
        self._share(2)
        training = f"{TRAINING.replace('--workers 1-2', '--workers 1-4')} --checkpoint-every 10"
        job = house.submit(kind="ray", entrypoint=training, min_gpus=1, max_gpus=4, queue="research")
        steps = house.settings.runs_dir / job / "steps.jsonl"
        house.wait(lambda: steps.exists() and steps.read_text().count("\n") > 20, "the training's first steps")
        while (done := self.cycles) < CYCLES:
            if done > (self.kills + 1) * CYCLES // 3:
                kill(records.read(house.settings.control_state_path, ControlRecord))
                assert house.up().started == ("control",)
                self.kills += 1
            self._turn()
            house.wait(lambda done=done: self.cycles > done + 3, "more cycles")  # type: ignore[misc]

    def _turn(self) -> None:
        house, rng = self.house, self.random
        states = {job: house.job(job)["state"] for job in self.jobs}
        self.jobs = [job for job, state in states.items() if state not in ENDED]
        if len(self.jobs) < AT_ONCE:
            self.jobs.append(
                house.submit(
                    kind="command", command=["sleep", rng.choice(("0.2", "1", "8"))], gpus=rng.choice((1, 2)),
                    queue="production", priority=rng.choice(("low", "normal", "high")),
                )
            )  # fmt: skip
        (house.settings.home / ACTIVITY_FILE).write_text(rng.choice(("950", "950", "0")))
        queued = [job for job in self.jobs if states.get(job) == "queued"]
        held = [job for job in self.jobs if states.get(job) == "held"]
        chance = rng.random()
        if held:
            self._ask("release", held[0])
        elif queued and chance < 0.2:
            self._ask("hold", queued[0])
        elif len(self.jobs) >= AT_ONCE and chance < 0.6:
            self._ask("cancel", rng.choice(self.jobs))
        elif chance > 0.9:
            self._share(rng.randint(2, 3))

    def _ask(self, what: str, job: str) -> None:
        """The job may have moved on since it was looked at: then it is refused."""
        try:
            self.house.call("POST", f"/jobs/{job}/{what}")
        except AssertionError as error:
            assert "wrong_state" in str(error), error

    def _share(self, quota: int) -> None:
        self.house.call("PUT", "/queues/file", content=QUEUES.format(quota=quota), headers={"If-Match": "*"})

    def happened(self) -> Counter[str]:
        found: Counter[str] = Counter()
        with Session(bind=self.engine) as session:
            for row in session.execute(select(DecisionLog)).scalars():
                found.update(event["type"] for _, event in codec.loads(row.events))
                found.update(type(decision).__name__ for decision in codec.from_json(row.decisions).decisions)
        return found


def test_a_thousand_cycles_replay_byte_for_byte(house: House) -> None:
    life = Life(house)
    life.run()
    found, newest = life.happened(), life.cycles
    print(f"{newest} cycles, {life.kills} kills: {dict(found)}")
    assert found.keys() >= HAPPENS, HAPPENS - found.keys()
    for hash_seed in (1, 4_294_967_295):
        told = in_another_process(house.settings.database_url, None, newest, hash_seed, 300)
        assert (told["differs"], told["why"], told["from"], told["to"]) == (None, "", 1, newest)
        assert told["cycles"] == newest >= CYCLES
