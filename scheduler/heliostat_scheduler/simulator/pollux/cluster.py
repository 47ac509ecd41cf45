"""The Pollux simulator's law of motion: rounds of 60 s, 30 s of standstill after every change of a job's placement.

Each round advances every job by one interval and then asks the policy for new placements. A job's progress follows the true
step time and the true gradient statistics; `Job.visited` collects what it has measured itself, which is all a policy may use.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from heliostat_scheduler.simulator.pollux.profiles import Application
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.results import Finished
from heliostat_scheduler.simulator.tables import BadInput, read_rows, whole

NODES = 16
GPUS_PER_NODE = 4
GPUS = NODES * GPUS_PER_NODE
ROUND_S = 60
RESTART_S = 30
FIXED_BATCH = {"ncf": 32768}
"""Applications whose batch size every policy fixes; they also stay on one GPU."""

Nodes = tuple[int, ...]
"""Node index per replica, replicas of a node adjacent."""


@dataclass(slots=True, eq=False)
class Job:
    """One training job inside the simulation."""

    name: str
    app: Application
    submit_s: int
    replicas: int
    batch: int
    nodes: Nodes = ()
    placement: tuple[int, ...] = ()
    local_batch: int = 0
    accumulation: int = 0
    rescale_s: float = 0
    progress: float = 0.0
    epoch: int = 0
    now_s: float = 0
    finish_s: float | None = None
    restarts: int = -1
    served_gpu_s: float = 0.0
    visited: dict[tuple[int, int, int], tuple[float, float]] = field(default_factory=dict)
    gradient: tuple[float, float] | None = None

    @property
    def fixed(self) -> bool:
        return self.app.name in FIXED_BATCH

    def split(self, batch: int) -> None:
        """Divide a total batch over the replicas and, where memory asks for it, over accumulation steps."""
        count = sum(self.placement)
        local = math.ceil(batch / count - 1e-8)
        self.accumulation = math.ceil(local / self.app.max_local - 1e-8) - 1
        if count == 1 and batch > self.app.init_batch:
            self.accumulation = max(1, self.accumulation)
        self.local_batch = math.ceil(local / (self.accumulation + 1) - 1e-8)
        self.cap()

    def cap(self) -> None:
        self.local_batch = min(self.local_batch, self.app.max_batch // (sum(self.placement) * (self.accumulation + 1)))

    def advance(self, seconds: float, tune: Callable[[Job], None]) -> None:
        """Live through one interval; `tune` sets the batch after every step across an epoch or interval."""
        if not self.placement:
            self.now_s += seconds
            return
        delay = min(self.rescale_s, seconds)
        self.rescale_s -= delay
        self.now_s += delay
        self.served_gpu_s += delay * sum(self.placement)
        seconds -= delay
        while seconds > 0 and self.finish_s is None:
            seconds -= self._stretch(seconds)
            tune(self)
        self.now_s += seconds

    def goodput(self) -> float:
        """True progress per second now; records the visited point."""
        count = sum(self.placement)
        batch = count * self.local_batch * (self.accumulation + 1)
        scale = batch / self.app.init_batch
        step, sync = self.app.step_time(self.placement, self.local_batch)
        sqr, var = self.gradient = self.app.gradient(batch, self.epoch)
        self.visited.setdefault((len(self.placement), count, self.local_batch), (step, sync))
        return (var + sqr) / (var / scale + sqr) / (step + (step - sync) * self.accumulation)

    def _stretch(self, seconds: float) -> float:
        """Run until the interval or the epoch ends; returns the seconds used."""
        goodput = self.goodput()
        goal = self.app.progress_at(self.epoch + 1)
        used = seconds
        if self.progress + goodput * seconds < goal:
            self.progress += goodput * seconds
        else:
            used = round((goal - self.progress) / goodput)
            self.progress = goal
            self.epoch += 1
            if self.epoch > self.app.last_epoch:
                self.finish_s = self.now_s + used
        self.now_s += used
        self.served_gpu_s += used * sum(self.placement)
        return used

    def move(self, nodes: Nodes, tune: Callable[[Job], None]) -> None:
        """Take a new placement (empty: stop) and pay for it."""
        self.nodes = nodes
        runs: list[int] = []
        for i, node in enumerate(nodes):
            if i and nodes[i - 1] == node:
                runs[-1] += 1
            else:
                runs.append(1)
        self.placement = tuple(runs)
        if nodes:
            tune(self)
            self.rescale_s = RESTART_S
            self.restarts += 1


Decide = Callable[[int, list[Job]], dict[str, Nodes]]
"""(now in seconds, unfinished submitted jobs) -> nodes per job; a job that is absent gets none."""


def simulate(jobs: list[Job], decide: Decide, tune: Callable[[Job], None]) -> list[Finished]:
    """Run all jobs to completion."""
    now, ideal = 0, 0.0
    with Progress("pollux", len(jobs)) as bar:
        while any(job.finish_s is None for job in jobs):
            for job in jobs:
                job.advance(ROUND_S, tune)
            now += ROUND_S
            active = [job for job in jobs if job.submit_s <= now and job.finish_s is None]
            wanted = decide(now, active) if active else {}
            for job in active:
                nodes = wanted.get(job.name, ())
                if nodes != job.nodes:
                    job.move(nodes, tune)
            bar.at(sum(job.finish_s is not None for job in jobs))
    return [
        Finished(job.name, "default", job.submit_s, ideal, job.finish_s or 0.0, max(0, job.restarts)) for job in jobs
    ]


def load_jobs(path: Path, name: str, workload: int, applications: dict[str, Application]) -> list[Job]:
    """Jobs of one workload of the packed table."""
    columns = ("set", "workload", "name", "time", "application", "num_replicas", "batch_size")
    rows = read_rows(path, columns)
    jobs = []
    for line, row in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        if row["set"] != name or row["workload"] != str(workload):
            continue
        if row["application"] not in applications:
            raise BadInput(f"{where}: application {row['application']} has no profile")
        app = applications[row["application"]]
        replicas, batch = whole(row, "num_replicas", where, least=1), whole(row, "batch_size", where, least=1)
        jobs.append(Job(row["name"], app, whole(row, "time", where), replicas, batch))
    if not jobs:
        known = sorted({(row["set"], row["workload"]) for row in rows})
        raise BadInput(f"{path}: no workload {workload} in set {name!r}; there are {', '.join(map(str, known))}")
    return jobs


def table_names(path: Path) -> list[str]:
    """Header of a CSV table (for messages)."""
    with path.open() as handle:
        return next(csv.reader(handle))
