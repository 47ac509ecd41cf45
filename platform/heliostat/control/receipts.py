"""What an attempt is charged: one span per slot from grant to release, and what was used of it by telemetry."""

from __future__ import annotations

from collections.abc import Iterable

from heliostat_scheduler.live.protocol import SlotRef
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from heliostat.control.attempts import Attempt
from heliostat.store.tables import LeaseSpan


def open_spans(session: Session, attempt: Attempt, flavors: dict[str, str], gpu_milli: int, now_ms: int) -> None:
    """One row per slot; one for a lease without GPUs."""
    if attempt.slots:
        open_slot_spans(session, attempt, attempt.slots, flavors, gpu_milli, now_ms)
    else:
        _open(session, attempt, [("", attempt.node, 0)], flavors, now_ms)


def open_slot_spans(
    session: Session, attempt: Attempt, slots: Iterable[SlotRef], flavors: dict[str, str], gpu_milli: int, now_ms: int
) -> None:
    """These slots are charged to the attempt from now on."""
    _open(session, attempt, [(slot.slot, slot.node, gpu_milli) for slot in slots], flavors, now_ms)


def _open(
    session: Session, attempt: Attempt, held: list[tuple[str, str, int]], flavors: dict[str, str], now_ms: int
) -> None:
    for slot, node, milli in held:
        session.add(
            LeaseSpan(
                job=attempt.job,
                attempt=attempt.n,
                epoch=attempt.epoch,
                slot=slot,
                node=node,
                flavor=flavors.get(node, ""),
                gpu_milli=milli,
                from_ms=now_ms,
            )
        )


def close_spans(session: Session, job: str, now_ms: int) -> None:
    """The slots are verified free."""
    session.execute(update(LeaseSpan).where(LeaseSpan.job == job, LeaseSpan.to_ms.is_(None)).values(to_ms=now_ms))


def close_spans_except(session: Session, job: str, kept: set[str], now_ms: int) -> None:
    """The job's other slots are verified free."""
    held = (LeaseSpan.job == job, LeaseSpan.to_ms.is_(None), LeaseSpan.slot.not_in(sorted(kept)))
    session.execute(update(LeaseSpan).where(*held).values(to_ms=now_ms))


def add_used(session: Session, used_ms: dict[str, int]) -> None:
    """Telemetry of one window: milliseconds of full activity, by slot, to whoever holds the slot now."""
    for slot, milliseconds in used_ms.items():
        session.execute(
            update(LeaseSpan)
            .where(LeaseSpan.slot == slot, LeaseSpan.to_ms.is_(None))
            .values(used_ms=func.coalesce(LeaseSpan.used_ms, 0) + milliseconds)
        )


def held_and_used(session: Session, job: str) -> tuple[int, int | None]:
    """GPU-milliseconds that the job's ended spans held and used, over all its attempts. Used is None when nothing was measured."""
    held = 0
    used: int | None = None
    for span in session.execute(select(LeaseSpan).where(LeaseSpan.job == job, LeaseSpan.to_ms.is_not(None))).scalars():
        held += (span.to_ms - span.from_ms) * span.gpu_milli // 1000 if span.to_ms is not None else 0
        if span.used_ms is not None:
            used = (used or 0) + span.used_ms * span.gpu_milli // 1000
    return held, used
