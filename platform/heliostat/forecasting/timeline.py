"""Who held which slot when, and why it changed hands: spans of leases, each with the decision that opened and the one that closed it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from heliostat.forecasting.answers import time_of
from heliostat.store.reasons import reason_from, sentence_of
from heliostat.store.tables import Event, Job, LeaseSpan, Node

MOST = 5_000
SLACK_MS = 2_000
"""A span opens with the commit of its decision, but closes when the slots are verified free: its reason may be a little older."""
Json = dict[str, Any]  # Any: JSON


def timeline(session: Session, from_ms: int, to_ms: int) -> Json:
    """The spans that touch the window, oldest first; at most MOST of them, the newest."""
    query = (
        select(LeaseSpan)
        .where(LeaseSpan.from_ms < to_ms, or_(LeaseSpan.to_ms.is_(None), LeaseSpan.to_ms > from_ms))
        .order_by(LeaseSpan.from_ms.desc(), LeaseSpan.id.desc())
        .limit(MOST)
    )
    spans = list(reversed(session.execute(query).scalars().all()))
    ids = sorted({span.job for span in spans})
    told = _events(session, ids)
    jobs = _jobs(session, ids)
    rows = [_span(span, told.get(span.job, ([], [])), jobs.get(span.job, {})) for span in spans]
    return {
        "from": time_of(from_ms),
        "to": time_of(to_ms),
        "slots": _slots(session, rows),
        "spans": rows,
        "complete": len(spans) < MOST,
    }


def _span(span: LeaseSpan, told: tuple[list[int], list[Event]], job: Json) -> Json:
    times, events = told
    opened = _last(times, events, span.from_ms + SLACK_MS, _opens)
    closed = None if span.to_ms is None else _last(times, events, span.to_ms + SLACK_MS, _closes)
    if closed is not None and closed.at_ms < span.from_ms:
        closed = None
    return {
        "job": span.job, "name": job.get("name", ""), "queue": job.get("queue", ""), "attempt": span.attempt,
        "slot": span.slot, "node": span.node, "flavor": span.flavor, "gpus": span.gpu_milli / 1000,
        "from": time_of(span.from_ms), "to": time_of(span.to_ms), "from_ms": span.from_ms, "to_ms": span.to_ms,
        "used": None if span.used_ms is None or span.to_ms is None else round(span.used_ms / max(1, span.to_ms - span.from_ms), 3),
        "opened": _why(opened), "closed": _why(closed),
    }  # fmt: skip


def _opens(event: Event) -> bool:
    return event.reason is not None and event.reason.get("code") in ("Placed", "Grew")


def _closes(event: Event) -> bool:
    """An order that takes places away, or the end of the job or attempt."""
    taken = event.reason is not None and event.to_state in ("preempting", "resizing", "cancelling")
    return taken or event.to_state in ("succeeded", "failed", "cancelled", "timed_out", "queued")


def _last(times: list[int], events: list[Event], at_ms: int, fits: Any) -> Event | None:  # Any: a predicate
    """The last fitting event; of an end and the order that led to it, the order."""
    best: Event | None = None
    for event in reversed(events[: bisect_right(times, at_ms)]):
        if not fits(event):
            if best is not None:
                break
            continue
        if best is None or (best.reason is None and event.reason is not None):
            best = event
        if best.reason is not None:
            break
    return best


def _why(event: Event | None) -> Json | None:
    if event is None:
        return None
    if event.reason is None:
        return {"code": "", "sentence": str(event.to_state or event.kind), "at": time_of(event.at_ms), "for": []}
    reason = reason_from(event.reason)
    return {
        "code": reason.code.value,
        "sentence": sentence_of(reason),
        "at": time_of(event.at_ms),
        "for": list(reason.blockers),
    }


def _events(session: Session, ids: list[str]) -> dict[str, tuple[list[int], list[Event]]]:
    found: dict[str, tuple[list[int], list[Event]]] = {}
    for some in _some(ids):
        query = (
            select(Event)
            .where(Event.job.in_(some), Event.kind.in_(("job_moved", "job_resized", "lease_granted")))
            .order_by(Event.seq)
        )
        for event in session.execute(query).scalars():
            times, events = found.setdefault(str(event.job), ([], []))
            times.append(event.at_ms)
            events.append(event)
    return found


def _jobs(session: Session, ids: list[str]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for some in _some(ids):
        for job, name, queue in session.execute(select(Job.id, Job.name, Job.queue).where(Job.id.in_(some))):
            found[job] = {"name": name, "queue": queue}
    return found


def _some(ids: list[str], size: int = 400) -> Iterable[list[str]]:
    return (ids[at : at + size] for at in range(0, len(ids), size))


def _slots(session: Session, rows: list[Json]) -> list[Json]:
    """All slots in order of node and device: those of known nodes, and those that only the spans name."""
    found: dict[tuple[str, str], Json] = {}
    for node in session.execute(select(Node).where(Node.state == "up").order_by(Node.id)).scalars():
        for ref in node.spec.get("slots", ()):
            found[node.id, ref["slot"]] = {
                "node": node.id,
                "slot": ref["slot"],
                "device": ref["device"],
                "flavor": node.flavor,
            }
    for row in rows:
        key = (row["node"], row["slot"])
        found.setdefault(key, {"node": row["node"], "slot": row["slot"], "device": None, "flavor": row["flavor"]})
    return [found[key] for key in sorted(found, key=lambda key: (key[0], _rank(found[key]), key[1]))]


def _rank(slot: Json) -> int:
    return slot["device"] if slot["device"] is not None else 1 << 20
