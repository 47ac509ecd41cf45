"""The study's last step: estimates corrected by those whose outcome was known when they were made, and all of them scored."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from heliostat_scheduler.forecast import Correction, Estimate
from heliostat_scheduler.forecast.eta import Scored, loss_ms, summary
from heliostat_scheduler.simulator.eta.telling import HORIZON_MS, Told

RESAMPLES = 2_000
FEW = 10


def corrected(told: Sequence[Told]) -> list[Estimate]:
    """What users are told, in the order of `told` (by time of submission): each knows only outcomes from before it."""
    correction, coming, found = Correction(), list[tuple[int, int]](), list[Estimate]()
    for index, row in enumerate(told):
        while coming and coming[0][0] < 1000 * row.at_s:
            _, at = heapq.heappop(coming)
            correction.learn(_raw(told[at]), told[at].waited_ms)
        found.append(correction.correct(_raw(row)))
        heapq.heappush(coming, (1000 * row.at_s + row.waited_ms, index))
    return found


def _raw(told: Told) -> Estimate:
    return Estimate(told.job, told.queue, told.p50_ms, told.p90_ms, told.samples)


def tables(told: Sequence[Told]) -> dict[str, object]:
    """told (as shown to users), raw (before the correction), naive, and the differences with their 95 % bootstrap intervals; by VC."""
    shown = corrected(told)
    told_rows = _scored(told, lambda at: (shown[at].p50_ms, shown[at].p90_ms))
    naive = _scored(told, lambda at: told[at].naive)
    naive_waited = _scored(told, lambda at: told[at].naive_waited)
    raw = _scored(told, lambda at: (told[at].p50_ms, told[at].p90_ms))
    return {
        "told": summary(told_rows),
        "raw": summary(raw),
        "naive": summary(naive),
        "naive_of_those_that_waited": summary(naive_waited),
        "against_naive": difference(told_rows, naive),
        "against_naive_of_those_that_waited": difference(told_rows, naive_waited),
        "per_vc": _per_vc(told_rows, naive),
    }


def _scored(told: Sequence[Told], quantiles: Callable[[int], tuple[int | None, int | None]]) -> list[Scored]:
    """A quantile beyond the horizon counts as the horizon."""
    rows = []
    for index, row in enumerate(told):
        p50, p90 = (HORIZON_MS if value is None else value for value in quantiles(index))
        rows.append(Scored(row.queue, row.waited_ms, p50, p90))
    return rows


def difference(told: list[Scored], naive: list[Scored], seed: int = 0) -> dict[str, float | list[float]]:
    """Mean pinball loss told - naive in seconds (negative: better), its 95 % bootstrap interval over jobs, and the relative gain."""
    ours, theirs = np.array([loss_ms(row) for row in told]), np.array([loss_ms(row) for row in naive])
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    means = (ours - theirs)[picks].mean(axis=1) / 1000
    low, high = np.percentile(means, [2.5, 97.5])
    gain = 1 - ours.sum() / theirs.sum() if theirs.sum() else 0.0
    return {
        "mean_s": round(float((ours - theirs).mean()) / 1000, 2),
        "interval_s": [round(float(low), 2), round(float(high), 2)],
        "gain": round(float(gain), 4),
    }


def _per_vc(told: list[Scored], naive: list[Scored]) -> dict[str, object]:
    found: dict[str, object] = {}
    for vc in sorted({row.queue for row in told}):
        pairs = [(ours, theirs) for ours, theirs in zip(told, naive, strict=True) if ours.queue == vc]
        mine, others = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
        known: dict[str, object] = {**summary(mine), "naive_pinball_s": summary(others)["pinball_s"]}
        found[vc] = {**known, **difference(mine, others)} if len(mine) >= FEW else known
    return found
