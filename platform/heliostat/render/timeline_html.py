"""The timeline as one page: inline SVG, no script, no other file. A bar per lease; its title says who, when and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from heliostat.render.amounts import clock, duration, parse_time
from heliostat.render.timeline import MANY, changes_of, letters_of

Json = Mapping[str, Any]  # Any: JSON
COLOURS = ("#c2410c", "#0369a1", "#15803d", "#7e22ce", "#a16207", "#be123c", "#0f766e", "#475569")
WIDTH, LABEL, ROW, TOP = 1100, 170, 22, 24
TICKS = 8
SHORT = len("12:00:00")
"""Labels with a date are longer: fewer of them fit."""
STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em;color:#1c1917}svg{width:100%;height:auto}"
    "td,th{text-align:left;padding:.1em 1em .1em 0}td b{display:inline-block;width:1.5em;text-align:center;color:#fff;border-radius:2px}"
    "text{font:11px system-ui,sans-serif}pre{font-size:12px;line-height:1.5;overflow-x:auto}"
)


def timeline_html(told: Json) -> str:
    """The whole page."""
    begin, end = parse_time(told.get("from")), parse_time(told.get("to"))
    assert begin is not None and end is not None
    spans, slots = told.get("spans") or [], told.get("slots") or []
    letters = letters_of(spans)
    rows = {(slot["node"], slot["slot"]): index for index, slot in enumerate(slots)}
    height = TOP + ROW * len(slots) + 8
    parts = [_axis(begin, end, height)]
    parts += [
        f'<text x="4" y="{TOP + ROW * index + 15}">{escape(_label(slot))}</text>' for index, slot in enumerate(slots)
    ]
    parts += [_bar(span, rows[span["node"], span["slot"]], begin, end, letters) for span in spans]
    changes = "\n".join(escape(line) for line in changes_of(spans, letters, most=2_000))
    title = f"Timeline, {clock(begin)} to {clock(end)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<h1>{escape(title)}</h1><svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(parts)}</svg>'
        f"<h2>Who is who</h2>{_legend(spans, letters)}"
        f"<h2>Changes, with the decision and reason of each</h2><pre>{changes}</pre></html>\n"
    )


def _legend(spans: Sequence[Json], letters: Mapping[str, str]) -> str:
    """A row for each letter; those that share the last one are counted."""
    told = {span["job"]: (span.get("name") or "", span.get("queue") or "") for span in spans}
    own = [job for job in letters if letters[job] != MANY]
    rows = [
        f'<tr><td><b style="background:{_colour(job, letters)}">{escape(letters[job])}</b></td>'
        f"<td>{escape(told[job][0])}</td><td>{escape(told[job][1])}</td><td>{escape(job)}</td></tr>"
        for job in own
    ]
    more = len(letters) - len(own)
    if more:
        rows.append(f"<tr><td><b>{MANY}</b></td><td colspan=3>{more} more jobs: point at their bars</td></tr>")
    return f"<table><tr><th></th><th>Name</th><th>Queue</th><th>Job</th></tr>{''.join(rows)}</table>"


def _colour(job: str, letters: Mapping[str, str]) -> str:
    return COLOURS[list(letters).index(job) % len(COLOURS)]


def _label(slot: Json) -> str:
    device = slot.get("device")
    return f"{str(slot['node'])[:14]} " + (f"gpu {device}" if device is not None else slot["slot"][-10:] or "cpu")


def _x(at: datetime, begin: datetime, end: datetime) -> float:
    share = (at - begin).total_seconds() / max(1e-9, (end - begin).total_seconds())
    return LABEL + (WIDTH - LABEL) * min(1.0, max(0.0, share))


def _axis(begin: datetime, end: datetime, height: int) -> str:
    parts = []
    ticks = TICKS if max(len(clock(at)) for at in (begin, end)) <= SHORT else TICKS // 2
    for index in range(ticks + 1):
        at = begin + (end - begin) * index / ticks
        x = _x(at, begin, end)
        anchor = "end" if index == ticks else "middle" if index else "start"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{height}" stroke="#e7e5e4"/>')
        parts.append(f'<text x="{x:.1f}" y="14" text-anchor="{anchor}" fill="#57534e">{escape(clock(at))}</text>')
    return "".join(parts)


def _bar(span: Json, row: int, begin: datetime, end: datetime, letters: Mapping[str, str]) -> str:
    first, last = parse_time(span["from"]), parse_time(span["to"]) or end
    assert first is not None
    left, right = _x(first, begin, end), _x(last, begin, end)
    colour = _colour(span["job"], letters)
    opened, closed = span.get("opened") or {}, span.get("closed") or {}
    title = (
        f"{span['job']} {span.get('name') or ''} (queue {span.get('queue') or '-'}, attempt {span['attempt']})\n"
        f"{clock(first)} for {duration((last - first).total_seconds())}\nbegan: {opened.get('sentence') or 'not recorded'}\n"
        f"ended: {closed.get('sentence') or ('still held' if span['to'] is None else 'not recorded')}"
    )
    y = TOP + ROW * row + 2
    letter = escape(letters[span["job"]]) if right - left > 12 else ""
    return (
        f'<g><title>{escape(title)}</title><rect x="{left:.1f}" y="{y}" width="{max(1.0, right - left):.1f}" height="{ROW - 5}" '
        f'rx="2" fill="{colour}"/><text x="{left + 3:.1f}" y="{y + 12}" fill="#fff">{letter}</text></g>'
    )
