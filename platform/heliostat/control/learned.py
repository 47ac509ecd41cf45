"""What was learned about live jobs becomes events of the engine: how long each is expected to run on, its rank by it, and how well it scales.

They take the way of all events, into the decision log, so that a replay never learns anything again. What the engine knows already is not told
twice, and a job that is gone meanwhile is not missed. A job that arrives in a queue where something was learned begins with what is expected
of a new job there; its own estimate follows. Without this memory (a control plane that has just started) nobody is ranked until all are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from heliostat_scheduler.core import Engine
from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.events import Estimated
from heliostat_scheduler.core.model import JobSpec

from heliostat.control.messages import Learned
from heliostat.control.outbox import Outbox
from heliostat.store.jobs import SERVE

Json = dict[str, Any]  # Any: JSON
KEPT_UNITS = 10_000
MILLI = {"samples": 1_000, "epochs": 1_000_000_000}
"""The engine counts work in whole thousandths: of samples, or of millionths of an epoch. The names are those of `estimate.throughput`."""


@dataclass(slots=True)
class LearnedReader:
    """fresh: as the forecasting process told it last. units: of the curves' work."""

    fresh: dict[str, tuple[int, int]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def read(self, learned: Learned, engine: Engine, out: Outbox) -> None:
        self.fresh.update(learned.fresh)
        for job_id, rest_ms in learned.rests:
            event = _of_rest(engine, job_id, rest_ms)
            if event is not None:
                out.event(event)
        for job_id, curve, done, unit in learned.curves:
            rec = engine.state.book.jobs.get(job_id)
            if rec is not None and rec.spec.elastic and ((curve and curve != rec.goodput) or done != rec.done_milli):
                out.event(Estimated(job_id, goodput_milli=curve, done_milli=done))
                self.units[job_id] = unit
        if len(self.units) > KEPT_UNITS:
            self.units = {job: unit for job, unit in self.units.items() if job in engine.state.book.jobs}

    def believed(self, engine: Engine, job_id: str, now_ms: int) -> Json | None:
        """What the engine goes by for this job, for people; None: nothing was learned of it."""
        rec = engine.state.book.jobs.get(job_id)
        if rec is None or (rec.remaining_ms is None and not rec.goodput):
            return None
        rest_ms = max(0, rec.ends_at - now_ms) if rec.ends_at else rec.remaining_ms
        unit = self.units.get(job_id, "")
        milli = MILLI.get(unit, 1_000)
        return {
            "rest_s": None if rest_ms is None else rest_ms / 1000,
            "ranked": bool(rec.rank),
            "queue": rec.spec.queue,
            "finished_jobs": self.fresh.get(rec.spec.queue, (0, 0))[1],
            "goodput": [{"tasks": tasks, "per_s": per_s / milli} for tasks, per_s in rec.goodput],
            "unit": unit,
            "enough": _has_enough(engine, rec),
        }

    def of_new(self, engine: Engine, spec: JobSpec) -> Estimated | None:
        """What a job that has just been submitted begins with."""
        known = self.fresh.get(spec.queue)
        return None if known is None or spec.kind == SERVE else _of_rest(engine, spec.id, known[0])


def _of_rest(engine: Engine, job_id: str, rest_ms: int) -> Estimated | None:
    """rest_ms 0: nothing is known any more. Whoever waits is ranked with what starting it costs, so that turns are not taken for seconds."""
    rec = engine.state.book.jobs.get(job_id)
    if rec is None:
        return None
    leaf = engine.state.book.leaf_of(rec)
    rank_ms = rest_ms if engine.state.policy.rotate and leaf.spec.rotate else 0
    if rank_ms and not rec.running_at:
        rank_ms += rec.spec.restart_cost_ms
    remaining_ms = rest_ms or None
    if (remaining_ms is None or rec.remaining_ms == remaining_ms) and bool(rec.rank) == bool(rank_ms):
        return None
    return Estimated(job_id, remaining_ms=remaining_ms, rank_ms=rank_ms)


def _has_enough(engine: Engine, rec: JobRec) -> bool:
    """Whether no larger size would gain as much as a resize costs."""
    table, horizon_ms = dict(rec.goodput), engine.state.policy.resize_horizon_ms
    held, larger = table.get(rec.tasks), [goodput for tasks, goodput in rec.goodput if tasks > rec.tasks]
    if held is None or not larger:
        return False
    return max(larger) * (horizon_ms - rec.spec.restart_cost_ms) <= held * horizon_ms


def learned_of(told: Json) -> Learned:
    """The forecasting process's words as a message."""
    return Learned(
        tuple((str(job), int(rest_ms)) for job, rest_ms in told.get("rests", ())),
        {str(queue): (int(rest_ms), int(finished)) for queue, (rest_ms, finished) in told.get("fresh", {}).items()},
        tuple(
            (str(job), tuple((int(tasks), int(per_s)) for tasks, per_s in curve), int(done), str(unit))
            for job, curve, done, unit in told.get("curves", ())
        ),
    )
