"""The timeline as text: a row per slot, a letter per job, and the changes in order under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from heliostat.render.amounts import clock, duration, parse_time, percent

Json = Mapping[str, Any]  # Any: JSON
LETTERS = ascii_uppercase + ascii_lowercase
FREE = "·"
MANY = "#"
LABEL = 24
CHANGES = 60


def timeline_text(told: Json, width: int, job: str | None = None) -> str:
    """Columns are equal stretches of the window; a column shows the job that held the slot longest in it."""
    begin, end = parse_time(told.get("from")), parse_time(told.get("to"))
    spans = told.get("spans") or []
    if begin is None or end is None or not spans:
        return "Nobody held a slot in this time."
    letters = letters_of(spans)
    columns = max(20, width - LABEL - 1)
    step_s = max(1e-9, (end - begin).total_seconds() / columns)
    lines = [f"{clock(begin)} to {clock(end)}, a column is {duration(step_s)}"]
    for slot in told.get("slots") or []:
        mine = [span for span in spans if (span["node"], span["slot"]) == (slot["node"], slot["slot"])]
        lines.append(f"{_label(slot):<{LABEL}.{LABEL}} {_row(mine, letters, begin, end, columns, step_s)}")
    lines.append("")
    lines += [f"  {letter}  {name}" for name, letter in _named(letters, spans)]
    lines += ["", *(changes_of(spans, letters, job) or [f"  {job} held no slot in this time."])]
    return "\n".join(lines)


def letters_of(spans: Sequence[Json]) -> dict[str, str]:
    """A letter per job, in order of appearance; the last one for all that are too many."""
    found: dict[str, str] = {}
    for span in spans:
        found.setdefault(span["job"], LETTERS[len(found)] if len(found) < len(LETTERS) else MANY)
    return found


def _named(letters: Mapping[str, str], spans: Sequence[Json]) -> list[tuple[str, str]]:
    names = {
        span["job"]: f"{span['job']}  {span.get('name') or ''}  {span.get('queue') or ''}".rstrip() for span in spans
    }
    return [(names[job], letter) for job, letter in letters.items()]


def _label(slot: Json) -> str:
    device = slot.get("device")
    return f"{str(slot['node'])[:12]} " + (f"gpu {device}" if device is not None else slot["slot"][-10:] or "cpu")


def _row(
    spans: Sequence[Json], letters: Mapping[str, str], begin: datetime, end: datetime, columns: int, step_s: float
) -> str:
    held: list[dict[str, float]] = [{} for _ in range(columns)]
    for span in spans:
        first, last = parse_time(span["from"]), parse_time(span["to"]) or end
        assert first is not None
        low, high = max(0.0, (first - begin).total_seconds()), (last - begin).total_seconds()
        for column in range(int(low / step_s), min(columns, int(high / step_s) + 1)):
            share = min(high, (column + 1) * step_s) - max(low, column * step_s)
            if share > 0:
                held[column][span["job"]] = held[column].get(span["job"], 0.0) + share
    return "".join(letters[max(cell, key=lambda job: (cell[job], job))] if cell else FREE for cell in held)


def changes_of(
    spans: Sequence[Json], letters: Mapping[str, str], job: str | None = None, most: int = CHANGES
) -> list[str]:
    """What happened to each lease, in order: one line for all slots that changed hands together."""
    told: dict[tuple[str, str, str], list[Json]] = {}
    for span in spans:
        if job is not None and span["job"] != job:
            continue
        told.setdefault((span["from"], span["job"], "+"), []).append(span)
        if span["to"] is not None:
            told.setdefault((span["to"], span["job"], "-"), []).append(span)
    lines = []
    for (at, name, sign), mine in sorted(told.items(), key=lambda item: (item[0][0], item[0][2] == "+", item[0][1])):
        why = mine[0]["opened"] if sign == "+" else mine[0]["closed"]
        moment = parse_time(at)
        code = f" ({why['code']})" if why and why["code"] else ""
        used = mine[0].get("used")
        share = f", {percent(used)} used" if sign == "-" and used is not None else ""
        what = f"{sign}{len(mine)} slot{'s' if len(mine) > 1 else ''}{share}"
        who = f"{letters[name]} {name} attempt {mine[0]['attempt']}"
        said = why["sentence"] if why else "not recorded"
        lines.append(f"  {clock(moment) if moment else at}  {who}  {what}: {said}{code}")
    left = len(lines) - most
    return ([f"  ... {left} earlier changes"] if left > 0 else []) + lines[-most:]
