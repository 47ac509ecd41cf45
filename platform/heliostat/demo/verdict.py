"""What the demo proves, counted from what the jobs left behind: the table, the checks, and one line of JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heliostat_jobs.spec import StepCount, recount_run

from heliostat.demo import elastic_verdict, serving_act
from heliostat.demo.elastic_act import ELASTIC
from heliostat.demo.scene import Scene
from heliostat.demo.story import CHECKPOINT_EVERY, FIRST, SECOND, STEPS_PER_EPOCH, TOTALS, Told
from heliostat.render.amounts import count, duration
from heliostat.render.table import table
from heliostat.wire.shapes import JobJson

WANTED_ACCURACY = 0.95
TAKEN_BACK = frozenset({"ReclaimedFor", "PreemptedFor"})


@dataclass(frozen=True, slots=True)
class Verdict:
    told: Told
    accuracy: float
    steps: dict[str, StepCount]
    steps_lost: int
    resizes: list[dict[str, Any]]  # Any: JSON
    checks: tuple[tuple[str, bool], ...]

    @property
    def jobs(self) -> tuple[JobJson, ...]:
        """Everything that ran, in order of submission."""
        return (*self.told.jobs, self.told.borrowed.job, self.told.borrowed.gang)

    @property
    def good(self) -> bool:
        return all(held for _, held in self.checks)


def judge(scene: Scene, told: Told) -> Verdict:
    """Recount everything from steps.jsonl and the API; nothing is taken from the jobs' own word but their accuracy."""
    first, second, urgent = told.jobs
    accuracies = [float((job.get("metrics") or {}).get("accuracy", 0.0)) for job in (first, second, told.borrowed.job)]
    steps = {job_id: recount_run(scene.run_dir(job_id)) for job_id in TOTALS}
    elastic = scene.run_dir(ELASTIC)
    trained = (FIRST, SECOND)
    codes = {past.get("code") for past in first.get("reason_history") or []}
    checks = (
        ("all three jobs succeeded", all(job.get("state") == "succeeded" for job in told.jobs)),
        (f"all models are at least {WANTED_ACCURACY:.0%} accurate", min(accuracies) >= WANTED_ACCURACY),
        (
            "the first training was preempted for production and resumed",
            first.get("attempts", 0) >= 2 and bool(codes & TAKEN_BACK),
        ),
        ("it came back at its old place: the second training started after it had ended", _in_order(first, second)),
        ("no training step is missing", all(steps[job_id].distinct == TOTALS[job_id] for job_id in trained)),
        (
            f"at most one checkpoint interval ({CHECKPOINT_EVERY} steps) was recomputed, on the same batches",
            all(steps[job_id].recomputed <= CHECKPOINT_EVERY and not steps[job_id].changed for job_id in trained),
        ),
        ("the second training was told why it waited and what would help", _was_explained(told)),
        ("the urgent command ran once", urgent.get("attempts") == 1),
        ("both `ray job submit` returned 0", all(child.process.returncode == 0 for child in told.children)),
        *elastic_verdict.checks(elastic, told.borrowed, STEPS_PER_EPOCH),
        *serving_act.checks(told.served),
    )
    resizes = elastic_verdict.resizes(elastic, told.borrowed)
    return Verdict(told, min(accuracies), steps, elastic_verdict.steps_lost(elastic), resizes, checks)


def as_json(verdict: Verdict) -> dict[str, Any]:  # Any: JSON
    """The last line of `helio demo --json`."""
    keys = ("id", "queue", "state", "attempts", "waited_s", "ran_s", "reason_history")
    used = [amount for job in verdict.jobs if (amount := (job.get("gpu_seconds") or {}).get("used")) is not None]
    return {
        "jobs": [{key: job.get(key) for key in keys} for job in verdict.jobs],
        "accuracy": verdict.accuracy,
        "checkpoint_steps_recomputed": sum(counted.recomputed for counted in verdict.steps.values()),
        "steps_lost": verdict.steps_lost,
        "resizes": verdict.resizes,
        **serving_act.as_json(verdict.told.served),
        "gpu_seconds": {"held": sum(_held(job) for job in verdict.jobs), "used": sum(used) if used else None},
        "seconds": round(verdict.told.seconds, 1),
        "checks": [{"check": check, "held": held} for check, held in verdict.checks],
    }


def as_text(verdict: Verdict) -> str:
    """The table of who waited, ran and was preempted, why, and what it cost."""
    rows = [
        (
            job.get("id", "?"),
            job.get("queue", "?"),
            job.get("state", "?"),
            duration(job.get("waited_s")),
            duration(job.get("ran_s")),
            str(max(0, job.get("attempts", 0) - 1)),
            count(round(_held(job), 1)),
            count(used if (used := (job.get("gpu_seconds") or {}).get("used")) is None else round(used, 1)),
            str(verdict.steps[job["id"]].recomputed) if job["id"] in verdict.steps else "-",
            _story(job),
        )
        for job in verdict.jobs
    ]
    head = ("JOB", "QUEUE", "STATE", "WAITED", "RAN", "PREEMPTED", "GPU-S HELD", "USED", "STEPS AGAIN", "WHY")
    right = frozenset(head[3:9])
    checks = "\n".join(f"{'✔' if held else '✖'} {check}" for check, held in verdict.checks)
    notes = "USED is - where there is no GPU to measure: logical GPUs are only counted."
    acts = f"{elastic_verdict.as_text(verdict.resizes)}\n{serving_act.as_text(verdict.told.served)}"
    return f"{table(head, rows, right=right)}\n\n{acts}\n\n{checks}\n\naccuracy {verdict.accuracy:.4f}. {notes}"


def _held(job: JobJson) -> float:
    return float((job.get("gpu_seconds") or {}).get("held") or 0.0)


def _story(job: JobJson) -> str:
    """The most telling reason of its life: why it was preempted, else why it waited."""
    history = job.get("reason_history") or []
    taken = [past for past in history if past.get("code") in TAKEN_BACK]
    told = taken or [past for past in history if past.get("code") not in ("Placed", "PendingEvaluation", "Starting")]
    return told[-1].get("sentence", "") if told else "-"


def _in_order(first: JobJson, second: JobJson) -> bool:
    """Both need both GPUs, so whoever is first in the queue has ended before the other starts."""
    ended, started = first.get("finished_at"), second.get("started_at")
    return bool(ended and started) and str(ended) <= str(started)


def _was_explained(told: Told) -> bool:
    return bool(told.explanation.get("sentence")) and bool(told.explanation.get("remedies"))
