"""Random work and random deaths, from one seed; then the faults stop and everything must end.

python -m tests.platform.control.fuzz --seeds 200        # each failure prints its seed
python -m tests.platform.control.fuzz --matrix           # every moment and every act of the failure matrix
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from heliostat.control.messages import NodeAsked
from heliostat.store import Store
from heliostat_scheduler.core.lifecycle import TERMINAL
from heliostat_scheduler.live.fake_cluster import Program

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Crash, Plant

TURNS = 120
FAULT_CHANCE = 0.2
CHECKPOINT_EVERY = 4


class Fuzz:
    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.plant = Plant(folder, gpus=3)
        self.names: list[str] = []
        self.faults: Counter[str] = Counter()
        self.scripts: dict[str, Script] = {}

    def run(self) -> None:
        for _ in range(TURNS):
            self._submit_or_ask()
            if self.random.random() < FAULT_CHANCE:
                self._fault()
            self._advance(self.random.choice((50, 100, 300, 1_000)))
        self._calm()

    def _submit_or_ask(self) -> None:
        chance = self.random.random()
        if chance < 0.35 and len(self.names) < 30:
            self._submit()
        elif chance < 0.45 and self.names:
            job = self.random.choice(self.names)
            self.plant.ask(self.random.choice(("cancel", "hold", "hold", "release")), job)

    def _submit(self) -> None:
        name = f"job{len(self.names)}"
        gpus = self.random.choice((0, 1, 1, 2, 3))
        runs_ms = self.random.choice((100, 1_500, 6_000))
        script = Script(
            runs_ms=runs_ms,
            steps=self.random.choice((0, 15, 50)) if gpus else 0,
            checkpoint_every=CHECKPOINT_EVERY,
            obeys=self.random.random() < 0.8,
            again_ms=self.random.choice((0, 0, 700)),
        )
        if not gpus and self.random.random() < 0.5:
            most = self.random.choice((1, 2, 3))
            script = replace(script, steps=15, demand=(self.random.randint(1, most), most))
        program = Program(runs_ms=runs_ms, term_ms=self.random.choice((0, 400, None)))
        work = self.random.choice((script, script, program))
        if isinstance(work, Script):
            self.scripts[name] = work
        priority = self.random.choice((50, 100, 150))
        limit = self.random.choice((None, None, None, 2_000))
        elastic: dict[str, Any] = (
            {"min_tasks": self.random.randint(1, gpus)} if gpus > 1 and self.random.random() < 0.6 else {}
        )
        self.plant.submit(name, gpus=gpus, work=work, priority=priority, max_runtime_ms=limit, **elastic)
        self.names.append(name)

    def _fault(self) -> None:
        plant = self.plant
        fault = self.random.choice(
            ("bridge", "board", "driver", "child", "control", "act", "act", "head", "silence", "drain")
        )
        self.faults[fault] += 1
        alive = [driver.submission.submission_id for driver in plant.ray.drivers.values() if driver.alive]
        children = [key for key, child in plant.cluster.children.items() if child.rc is None]
        match fault:
            case "bridge":
                plant.kill_bridge(self.random.choice((100, 500, 3_000)))
            case "board":
                plant.cluster.kill_board()
            case "driver" if alive:
                plant.ray.kill(self.random.choice(alive))
            case "child" if children:
                plant.cluster.crash_child(*self.random.choice(children))
            case "control":
                plant.restart_control()
            case "act":
                plant.fuse.left = self.random.randint(1, 12)
            case "head":
                plant.kill_head()
                self._advance(self.random.choice((100, 2_500)))
                plant.start_head()
            case "drain":
                node = plant.loop.executor.head_node
                for what in ("drain", "uncordon"):
                    plant.post(NodeAsked(what, node, "ann", Future()))
                    self._advance(self.random.choice((100, 2_500)))
            case "silence":
                plant.ray.down = True
                self._advance(self.random.choice((500, 4_000)))
                plant.ray.down = False
            case _:
                return

    def _advance(self, ms: int) -> None:
        for _ in range(max(1, ms // 50)):
            try:
                self.plant.advance(50)
            except Crash:
                self.plant.restart_control()

    def _calm(self) -> None:
        plant = self.plant
        plant.fuse.left = None
        plant.start_head() if not plant.head.up else None
        for job in self.names:
            plant.ask("release", job)
        for job in self.names:
            plant.until(lambda job=job: plant.state(job) in TERMINAL, f"{job} to end", 600_000)  # type: ignore[misc]
        plant.advance(3_000)
        plant.check_quiet()
        self._check_steps()

    def _check_steps(self) -> None:
        for job, script in self.scripts.items():
            done = Counter(step for name, step in self.plant.ray.executed if name == job)
            if script.steps and self.plant.state(job) == "succeeded":
                assert set(done) == set(range(1, script.steps + 1)), f"{job} skipped steps"
                groups = sum(name == job for name, _, _ in self.plant.ray.sizes)  # of workers, by attempts and resizes
                again = sum(done.values()) - len(done)
                assert again <= CHECKPOINT_EVERY * (groups - 1), f"{job}: {again} steps again in {groups} groups"


def template(folder: Path) -> Path:
    path = folder / "template.db"
    Store(f"sqlite:///{path}").close()
    return path


def fresh(folder: Path, empty: Path) -> Path:
    home = Path(tempfile.mkdtemp(dir=folder))
    shutil.copy(empty, home / "heliostat.db")
    return home


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--matrix", action="store_true")
    given = parser.parse_args()
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="heliostat-", dir=shm if shm.is_dir() else None) as place:
        folder = Path(place)
        return _matrix(folder) if given.matrix else _seeds(folder, given.first, given.seeds)


def _seeds(folder: Path, first: int, count: int) -> int:
    empty = template(folder)
    failed = []
    faults: Counter[str] = Counter()
    for seed in range(first, first + count):
        fuzz = Fuzz(seed, fresh(folder, empty))
        try:
            fuzz.run()
        except (AssertionError, Exception):  # noqa: BLE001  (told with its seed)
            failed.append(seed)
            print(f"seed {seed} failed:\n{traceback.format_exc()}", flush=True)
        faults += fuzz.faults
        fuzz.plant.store.close()
    print(f"{count} seeds, {len(failed)} failed {failed}; faults: {dict(faults)}")
    return 1 if failed else 0


def _matrix(folder: Path) -> int:
    from tests.platform.control import test_matrix as matrix

    empty = template(folder)
    cells = [(victim, at_ms) for victim in matrix.VICTIMS for at_ms in range(0, matrix.STORY_MS, 100)]
    failed = 0
    for what, number in [*cells, *(("act", n) for n in range(1, 54))]:
        made: list[Plant] = []

        def make(made: list[Plant] = made) -> Plant:
            made.append(Plant(fresh(folder, empty)))
            return made[-1]

        try:
            matrix.die_in_act(make, number) if what == "act" else matrix.die_at(make, what, number)
        except AssertionError:
            failed += 1
            print(f"{what} at {number} failed:\n{traceback.format_exc()}", flush=True)
        for plant in made:
            plant.store.close()
    print(f"{len(cells) + 53} cells, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
