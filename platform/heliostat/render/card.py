"""A job as a card: HTML for notebooks, plain text for everything else, a rich panel for terminals that ask for one.

The HTML carries its style with it and no script, so that it survives nbconvert, GitHub and a trusted-notebook check. State is
told by colour, icon and word together. Every value is escaped: names and errors are other people's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from heliostat.render.amounts import duration, seconds_between, sparkline
from heliostat.render.jobs import ICONS, gpus, receipt, why
from heliostat.wire.shapes import TERMINAL_STATES, JobJson, MetricJson

if TYPE_CHECKING:
    from rich.panel import Panel

COLOURS = {
    "queued": "#8a6d00", "held": "#6b6b6b", "admitted": "#0b63a5", "starting": "#0b63a5", "running": "#0b63a5",
    "resizing": "#0b63a5", "preempting": "#a04a00", "cancelling": "#6b6b6b", "succeeded": "#1b7f3b",
    "failed": "#b3261e", "cancelled": "#6b6b6b", "timed_out": "#b3261e",
}  # fmt: skip


def card_text(job: JobJson, now: datetime, metrics: Sequence[MetricJson] = ()) -> str:
    """`▶ job-01  digits  running  2/2 GPUs  3m` and, below it, why and the last metrics."""
    state = job.get("state", "?")
    first = [ICONS.get(state, "•"), job.get("id", "?"), job.get("name") or "", state, _gpus(job), _since(job, now)]
    lines = ["  ".join(part for part in first if part)]
    lines += [f"   {line}" for line in (why(job, now), *_metric_lines(metrics), _receipt(job)) if line]
    return "\n".join(lines)


def card_html(job: JobJson, now: datetime, metrics: Sequence[MetricJson] = ()) -> str:
    state = job.get("state", "?")
    colour = COLOURS.get(state, "#444")
    pill = (
        f'<span style="background:{colour};color:#fff;border-radius:10px;padding:1px 9px;font-weight:600">'
        f"{ICONS.get(state, '•')} {escape(state)}</span>"
    )
    facts = [f"queue {job.get('queue') or '-'}", _gpus(job), _since(job, now)]
    rows = [line for line in (why(job, now), *_metric_lines(metrics), _receipt(job)) if line]
    return (
        f'<div style="border:1px solid #8885;border-left:4px solid {colour};border-radius:6px;padding:8px 12px;'
        'max-width:46em;font-family:system-ui,sans-serif;font-size:13px;line-height:1.5">'
        f"<div>{pill} <b>{escape(job.get('name') or job.get('id', '?'))}</b> "
        f'<code style="opacity:.75">{escape(job.get("id", "?"))}</code></div>'
        f'<div style="opacity:.85">{escape(" · ".join(fact for fact in facts if fact))}</div>'
        + "".join(f"<div>{escape(row)}</div>" for row in rows)
        + "</div>"
    )


def card_rich(job: JobJson, now: datetime) -> Panel:
    from rich.panel import Panel
    from rich.text import Text

    state = job.get("state", "?")
    body = Text(card_text(job, now))
    return Panel(
        body, title=Text(job.get("name") or job.get("id", "?")), border_style=COLOURS.get(state, "white"), expand=False
    )


def _gpus(job: JobJson) -> str:
    text = gpus(job)
    return "no GPU" if text == "-" else f"{text} GPU" + ("" if text == "1" else "s")


def _since(job: JobJson, now: datetime) -> str:
    if job.get("state") in TERMINAL_STATES:
        return ""
    return f"for {duration(seconds_between(job.get('state_since'), now))}"


def _receipt(job: JobJson) -> str:
    return receipt(job) if job.get("state") in TERMINAL_STATES else ""


def _metric_lines(metrics: Sequence[MetricJson]) -> list[str]:
    """`loss  0.231  █▅▃▂▁` per metric, at most four."""
    series: dict[str, list[float]] = {}
    for point in metrics:
        series.setdefault(point.get("name", "?"), []).append(point.get("value", 0.0))
    return [f"{name}  {values[-1]:.4g}  {sparkline(values)}" for name, values in sorted(series.items())[:4]]
