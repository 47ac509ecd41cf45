"""Plans, what-ifs and the record of past estimates as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from heliostat.render.amounts import count, duration, parse_time, percent, unknown_start
from heliostat.render.table import table

Json = Mapping[str, Any]  # Any: JSON
BAR = 40
SHOWN = 25
NEEDS_SOMEBODY = frozenset({"Held", "NeverFits", "FlavorMismatch"})
"""A job with such a reason does not start by itself: there is no time to tell."""


def plan_lines(plan: Json, now: datetime) -> list[str]:
    """Where, when and at what cost: the lines under the first one of `helio submit --plan`."""
    lines = []
    eta = plan.get("eta") or {}
    unknown = eta.get("unknown_runtimes") or 0
    known = eta.get("p50") or (eta.get("samples") and (plan.get("reason") or {}).get("code") not in NEEDS_SOMEBODY)
    if not plan.get("starts_now") and not plan.get("estimated_start") and known:
        times = f"{_in(eta.get('p50'), now)}; in 9 of 10 cases {_in(eta.get('p90'), now)}"
        lines.append(f"  when   {unknown_start(unknown) if unknown else times}")
    if plan.get("nodes"):
        lines.append(f"  where  {', '.join(plan['nodes'])}")
    cost = plan.get("cost") or {}
    if cost.get("gpu_hours_p50"):
        limit = cost.get("gpu_hours_limit")
        most = f", at most {count(limit)} by its declared limit" if limit else ""
        lines.append(
            f"  cost   about {count(cost['gpu_hours_p50'])} GPU-hours, in 9 of 10 cases {count(cost['gpu_hours_p90'])}{most}"
        )
    return lines


def _in(at: str | None, now: datetime) -> str:
    found = parse_time(at)
    return "later than in a day" if found is None else f"in {duration(max(0.0, (found - now).total_seconds()))}"


def whatif_text(told: Json, now: datetime, width: int = 0, most: int = SHOWN) -> str:
    """The summary, then who starts at another time, then who is evicted."""
    rows = told.get("rows") or []
    until = parse_time(told.get("until"))
    span = "" if until is None else f" in the next {duration(round((until - now).total_seconds() / 600) * 600)}"
    grain = "" if told.get("exact", True) else " (times to within about a third of the distance)"
    moves = f"{told.get('earlier', 0)} start earlier, {told.get('later', 0)} later"
    lines = [f"{moves if rows else 'nobody would start at another time'}{span}{grain}"]
    if told.get("unknown_runtimes"):
        lines.append(
            f"the times are guesses: nothing is known yet about how long {told['unknown_runtimes']} of the running jobs will run"
        )
    cost = told.get("cost") or {}
    evicted, spared = told.get("evicted") or [], told.get("spared") or []
    lines.append(
        f"evicted: {len(evicted)} more, {len(spared)} fewer; cost: {cost.get('restart_gpu_hours', 0)} GPU-hours of repeated work, "
        f"{cost.get('delivered_gpu_hours', 0):+} GPU-hours delivered"
    )
    lines += [f"warning: {text}" for text in told.get("warnings") or ()]
    if rows:
        share = told.get("band_share")
        shown = [
            (
                row["job"],
                row["queue"],
                row["change"],
                _then(row, "before", now),
                _then(row, "after", now),
                _by(row),
                *(() if share is None else (_between(row, now),)),
            )
            for row in rows[:most]
        ]
        heads = (
            "JOB",
            "QUEUE",
            "CHANGE",
            "NOW",
            "THEN",
            "BY",
            *(() if share is None else (f"{percent(share)} BETWEEN",)),
        )
        lines += ["", table(heads, shown, width=width)]
        if len(rows) > most:
            lines.append(f"... and {len(rows) - most} more (--json has all)")
    if evicted:
        shown = [
            (row["job"], row["queue"], str(row["times"]), _in(row["first"], now), row["code"], row["for"] or "-")
            for row in evicted[:most]
        ]
        lines += ["", table(("EVICTED", "QUEUE", "TIMES", "FIRST", "WHY", "FOR"), shown, width=width)]
    return "\n".join(lines)


def _then(row: Json, name: str, now: datetime) -> str:
    """A job that runs now starts only after an eviction, and a new one does not start without the change."""
    if row["change"] == "new" and name == "before":
        return "-"
    if row["change"] == "again":
        return "runs on" if row[name] is None else f"again {_in(row[name], now)}"
    return _in(row[name], now)


def _between(row: Json, now: datetime) -> str:
    low, high = _in(row.get("after_from"), now), _in(row.get("after_until"), now)
    return low if low == high else f"{low} .. {high.removeprefix('in ')}"


def _by(row: Json) -> str:
    seconds = row.get("by_s")
    if seconds is None:
        return "-"
    return ("-" if seconds < 0 else "+") + duration(abs(seconds))


def report_text(report: Json) -> str:
    """Coverage and loss per queue, and where the starts fell relative to the p90 they were told."""
    everything = report.get("all") or {}
    guessed = (report.get("guessed") or {}).get("jobs", 0)
    apart = (
        f"{guessed} more started before anything was known of run times; they were told no time and are not counted."
        if guessed
        else ""
    )
    if not everything.get("jobs"):
        return f"No estimate has come true yet: jobs get one while they wait. See helio ps.\n{apart}".rstrip()
    rows = [_row("all", everything), *(_row(name, row) for name, row in (report.get("queues") or {}).items())]
    text = table(("QUEUE", "JOBS", "MEAN WAIT", "WITHIN P50", "WITHIN P90", "PINBALL"), rows)
    return f"{text}\n\n{_plot(report.get('calibration') or {})}\n{apart}".rstrip()


def _row(name: str, row: Json) -> Sequence[str]:
    return (
        name,
        str(row["jobs"]),
        duration(row["mean_wait_s"]),
        percent(row["p50_held"]),
        percent(row["p90_held"]),
        duration(row["pinball_s"]),
    )


def _plot(calibration: Json) -> str:
    """A bar for each tenth of the told p90."""
    counts, width = calibration.get("counts") or [], calibration.get("width", 0.1)
    most, total = max(counts, default=0), sum(counts)
    if not most:
        return ""
    lines = ["waited, as a share of the p90 that was told"]
    within = 0
    for index, number in enumerate(counts):
        within += number
        label = (
            f"{index * width:.1f}-{(index + 1) * width:.1f}" if index < len(counts) - 1 else f"> {index * width:.1f}  "
        )
        bar = "█" * max(1 if number else 0, round(BAR * number / most))
        lines.append(f"  {label:>8} {bar:<{BAR}} {number:>6}  {percent(within / total):>5}")
        if index == round(1 / width) - 1:
            lines.append(f"  {'told p90':>8} {'-' * BAR}")
    return "\n".join(lines)
