"""Second pass of the study: an estimate at submission for each job of the recording that a seeded draw picks, by the code that runs live.

Of each job the engine is as it was at its submission; run times are learned from the jobs that had finished by then (`Lengths`), arrivals
from the submissions of the day before. Beside it the naive estimate: the quantiles of the waits of the last 100 jobs that had started in
the queue. Estimates are appended to `estimates.jsonl`, so that an interrupted study goes on.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.estimate.expectation import Expectations
from heliostat_scheduler.estimate.history import RunHistory
from heliostat_scheduler.forecast import Lengths, Ran, estimates, futures
from heliostat_scheduler.forecast.eta import quantile
from heliostat_scheduler.forecast.lengths import FEW, uniform
from heliostat_scheduler.forecast.whatif import grid_for
from heliostat_scheduler.simulator.drive import rigid_job
from heliostat_scheduler.simulator.eta.recording import LEAST_WAIT_S, facts_of
from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE, PhillyJob
from heliostat_scheduler.simulator.progress import Progress

DAY_MS = 24 * 3_600_000
HORIZON_MS = DAY_MS
NAIVE_JOBS = 100
ESTIMATES = "estimates.jsonl"


@dataclass(frozen=True, slots=True)
class Told:
    """One estimate as computed. Times in milliseconds from at_s; None beyond the horizon. naive: (p50, p90) of the last jobs of the
    queue; naive_waited: of those among them that waited more than a minute."""

    job: str
    queue: str
    at_s: int
    waited_ms: int
    p50_ms: int | None
    p90_ms: int | None
    samples: int
    naive: tuple[int, int]
    naive_waited: tuple[int, int]


@dataclass
class Known:
    """What may be known at a moment of the recording."""

    trace: dict[str, PhillyJob]
    lengths: Lengths = field(default_factory=Lengths)
    ended: dict[str, int] = field(default_factory=dict)
    recent: deque[JobSpec] = field(default_factory=deque)
    waits: dict[str, deque[int]] = field(default_factory=dict)
    expected: Expectations = field(default_factory=lambda: Expectations(RunHistory()))

    def hear(self, now_s: int, what: str, job: PhillyJob) -> None:
        self._expect(now_s, what, job)
        match what:
            case "submitted":
                self.recent.append(_spec(job))
                while self.recent[0].submitted_at_ms < 1000 * now_s - DAY_MS:
                    self.recent.popleft()
            case "started":
                self.waits.setdefault(job.vc, deque(maxlen=NAIVE_JOBS)).append(1000 * (now_s - job.submit_s))
            case "finished":
                shape = _spec(job)
                self.lengths.add(
                    Ran(
                        job.vc,
                        "",
                        shape.shape.gpu_milli * shape.min_tasks,
                        1000 * job.duration_s,
                        1000 * now_s,
                        1000 * job.submit_s,
                    )
                )
                self.ended[job.vc] = self.ended.get(job.vc, 0) + 1

    def _expect(self, now_s: int, what: str, job: PhillyJob) -> None:
        match what:
            case "submitted":
                spec = _spec(job)
                self.expected.arrived(job.id, job.vc, spec.shape.gpu_milli * spec.min_tasks)
            case "started" | "resumed":
                self.expected.started(job.id, now_s)
            case "stopped":
                self.expected.stopped(job.id, now_s)
            case "finished":
                self.expected.finished(job.id, now_s)


def _spec(job: PhillyJob) -> JobSpec:
    return rigid_job(job.id, job.vc, 1000 * job.submit_s, job.gpus, GPUS_PER_NODE, job.overhead_s)


def tell(trace: dict[str, PhillyJob], folder: Path, share: float, samples: int, ranked: bool) -> list[Told]:
    """All estimates of the recording, those of an earlier run included, in order of submission."""
    facts = facts_of(folder)
    started = {job_id: now_s for now_s, what, job_id in facts if what == "started"}
    chosen = {path.stem for path in folder.glob("*.z") if uniform(0, path.stem) < share}
    found = {told.job: told for told in _earlier(folder / ESTIMATES)}
    known = Known(trace)
    with (folder / ESTIMATES).open("a", encoding="utf-8") as out, Progress("eta, estimates", len(chosen)) as bar:
        for now_s, what, job_id in facts:
            if what != "waits":
                known.hear(now_s, what, trace[job_id])
            elif job_id in chosen and job_id not in found and known.ended.get(trace[job_id].vc, 0) >= FEW:
                body = zlib.decompress((folder / f"{job_id}.z").read_bytes())
                told = _tell(known, Engine.restore(body), job_id, now_s, started[job_id], samples, ranked)
                out.write(json.dumps(asdict(told)) + "\n")
                out.flush()
                found[job_id] = told
                bar.at(len(found))
    return sorted(found.values(), key=lambda told: (told.at_s, told.job))


def _tell(known: Known, engine: Engine, job_id: str, now_s: int, started_s: int, samples: int, ranked: bool) -> Told:
    now_ms, queue = 1000 * now_s, known.trace[job_id].vc
    seeds = [now_ms + seed for seed in range(samples)]
    grid, wanted = grid_for(engine, HORIZON_MS), frozenset({job_id})
    expected = known.expected if ranked else None
    courses = futures(engine, known.lengths, known.recent, now_ms, HORIZON_MS, seeds, grid, wanted, expected)
    (raw,) = estimates(courses, [job_id])
    waits = sorted(float(wait) for wait in known.waits.get(queue, ()))
    some = [wait for wait in waits if wait > 1000 * LEAST_WAIT_S]
    waited_ms = 1000 * (started_s - now_s)
    return Told(job_id, queue, now_s, waited_ms, raw.p50_ms, raw.p90_ms, samples, _quantiles(waits), _quantiles(some))


def _quantiles(waits: list[float]) -> tuple[int, int]:
    """p50 and p90 of sorted waits, 0 where there are none."""
    return (round(quantile(waits, 0.5)), round(quantile(waits, 0.9))) if waits else (0, 0)


def _earlier(path: Path) -> Iterator[Told]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Told(**{**row, "naive": tuple(row["naive"]), "naive_waited": tuple(row["naive_waited"])})
