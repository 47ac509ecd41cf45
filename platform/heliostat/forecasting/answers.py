"""Answers of the forecasting process as the JSON of /api/v1. Times are RFC 3339, durations seconds, GPU amounts numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from heliostat_scheduler.forecast.bands import Band
from heliostat_scheduler.forecast.whatif import Loser, Shift, Verdict

MOST_SHIFTS = 2_000
Json = dict[str, Any]  # Any: JSON


def time_of(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_verdict(
    verdict: Verdict, bands: Mapping[str, Band], band_share: float | None, as_of_ms: int, took_s: float
) -> Json:
    """`rows` has one entry per job that starts at another time, the soonest first.

    band_share: for how many of them the start lies between `after_from` and `after_until`; None: no bands were computed.
    """
    shifts = [shift for shift in verdict.shifts if not shift.job_id.startswith("~")]
    waiting = [shift for shift in shifts if shift.job_id not in verdict.running and shift.job_id != verdict.new_job]
    return {
        "as_of": time_of(as_of_ms),
        "until": time_of(verdict.until_ms),
        "rows": [_shift(shift, verdict, bands) for shift in shifts[:MOST_SHIFTS]],
        "band_share": band_share,
        "earlier": sum(shift.earlier for shift in waiting),
        "later": sum(not shift.earlier for shift in waiting),
        "evicted": [_loser(loser, verdict) for loser in verdict.evicted],
        "spared": [_loser(loser, verdict) for loser in verdict.spared],
        "cost": {
            "restart_gpu_hours": round(verdict.restart_cost / 3.6e9, 3),
            "delivered_gpu_hours": round(verdict.delivered / 3.6e9, 3),
        },
        "by_queue": _by_queue(waiting),
        "exact": not verdict.coarse,
        "took_s": round(took_s, 3),
    }


def _shift(shift: Shift, verdict: Verdict, bands: Mapping[str, Band]) -> Json:
    band = bands.get(shift.job_id)
    return {
        "job": _named(shift.job_id, verdict),
        "queue": shift.queue,
        "before": time_of(shift.before_ms),
        "after": time_of(shift.after_ms),
        "by_s": None if shift.by_ms is None else shift.by_ms / 1000,
        "change": _change(shift, verdict),
        "after_from": None if band is None else time_of(band.low_ms),
        "after_until": None if band is None else time_of(band.high_ms),
    }


def _change(shift: Shift, verdict: Verdict) -> str:
    """again: it runs now, and starts again after an eviction (before, after: when)."""
    if shift.job_id == verdict.new_job:
        return "new"
    if shift.job_id in verdict.running:
        return "again"
    return "earlier" if shift.earlier else "later"


def _loser(loser: Loser, verdict: Verdict) -> Json:
    return {
        "job": _named(loser.job_id, verdict),
        "queue": loser.queue,
        "times": loser.times,
        "first": time_of(loser.first_ms),
        "code": loser.code,
        "for": _named(loser.beneficiary, verdict),
    }


def _named(job_id: str, verdict: Verdict) -> str:
    """(new): the job that is asked about. (to come): one like those of the last day, which nobody has submitted."""
    if job_id and job_id == verdict.new_job:
        return "(new)"
    return "(to come)" if job_id.startswith("~") else job_id


def _by_queue(shifts: list[Shift]) -> list[Json]:
    """Jobs and mean shift of each queue, over the jobs that start in both futures."""
    queues: dict[str, list[Shift]] = {}
    for shift in shifts:
        queues.setdefault(shift.queue, []).append(shift)
    found = []
    for queue, mine in sorted(queues.items()):
        moved = [shift.by_ms for shift in mine if shift.by_ms is not None]
        found.append(
            {
                "queue": queue,
                "earlier": sum(shift.earlier for shift in mine),
                "later": sum(not shift.earlier for shift in mine),
                "mean_shift_s": round(sum(moved) / len(moved) / 1000, 1) if moved else None,
            }
        )
    return found
