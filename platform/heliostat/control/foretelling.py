"""Explanations that do not hold up anybody: at once what is known, the tried remedies when they are there.

While few jobs wait, the engine itself is asked, under its lock. When many wait, trying remedies takes longer than a cycle: then the
forecasting process tries them on its mirror, and what it found is kept for a few seconds, so that the next question gets it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from heliostat_scheduler.core import Check, QueueUsage, Reason
from heliostat_scheduler.core.explain import glance, standing
from heliostat_scheduler.core.wanting import wanting
from sqlalchemy import select

from heliostat.control import explaining
from heliostat.control.loop import Loop
from heliostat.control.port import ControlError
from heliostat.forecasting.link import Forecaster
from heliostat.store import Store
from heliostat.store.reasons import reason_from, sentence_of
from heliostat.store.tables import Event, Job

FEW_JOBS = 200
KEPT_MS = 15_000
STORY = 12
PATIENCE_S = 60.0
Json = dict[str, Any]  # Any: JSON


@dataclass(slots=True)
class Foretelling:
    """kept: job -> (when, the whole explanation). pending: jobs whose remedies are being tried now."""

    loop: Loop
    store: Store
    forecaster: Forecaster | None
    kept: dict[str, tuple[int, Json]] = field(default_factory=dict)
    pending: dict[str, threading.Event] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def explain(self, job: Job, patience_s: float) -> Json:
        now_ms = self.loop.parts.clock.now_ms()
        with self.loop.engine_lock:
            engine = self.loop.engine
            waits = job.id in self.loop.desk.waiting
            expected = self.loop.learned.believed(engine, job.id, now_ms)
            few = self.forecaster is None or len(engine.state.book.jobs) <= FEW_JOBS
            if not waits:
                checks = _standing(self.loop, job.id, now_ms)
                more = wanting(engine, job.id, now_ms, tried=len(engine.state.book.jobs) <= FEW_JOBS)
            elif few:
                told = explaining.of_explanation(engine.explain(job.id, now_ms))
            else:
                told = explaining.of_explanation(glance(engine.state, job.id, now_ms))
        story = self._story(job.id) if job.attempts or not waits else ()
        if not waits:
            growth = None if more is None else explaining.of_wanting(more)
            return explaining.of_job(
                job, None, None, now_ms, checks=checks, story=story, growth=growth, expected=expected
            )
        if few:
            return explaining.of_job(job, told, told["position"], now_ms, story=story, expected=expected)
        whole = self._whole(job.id, now_ms, patience_s)
        if whole is not None and whole["code"] == told["code"]:
            told = {**whole, "position": told["position"]}
        return explaining.of_job(
            job, told, told["position"], now_ms, story=story, complete=whole is not None, expected=expected
        )

    def _whole(self, job_id: str, now_ms: int, patience_s: float) -> Json | None:
        """The explanation with its remedies, if it is there or arrives in time."""
        with self.lock:
            known = self.kept.get(job_id)
            if known is not None and now_ms - known[0] < KEPT_MS:
                return known[1]
            arrived = self.pending.get(job_id)
            if arrived is None:
                arrived = self.pending[job_id] = threading.Event()
                threading.Thread(target=self._try, args=(job_id, arrived), name="remedies", daemon=True).start()
        if not arrived.wait(patience_s):
            return None
        known = self.kept.get(job_id)
        return None if known is None else known[1]

    def _try(self, job_id: str, arrived: threading.Event) -> None:
        told = self._ask(job_id, sooner=False)
        self._keep(job_id, told)
        arrived.set()
        if told is not None and told["open"]:
            told = self._ask(job_id, sooner=True)  # takes seconds; for whoever asks then
            self._keep(job_id, told)

    def _ask(self, job_id: str, *, sooner: bool) -> Json | None:
        assert self.forecaster is not None
        try:
            return self.forecaster.ask({"ask": "explain", "job_id": job_id, "sooner": sooner}, PATIENCE_S)
        except ControlError:
            return None  # it has started meanwhile, or the process is busy: the next question asks again

    def _keep(self, job_id: str, told: Json | None) -> None:
        now_ms = self.loop.parts.clock.now_ms()
        with self.lock:
            self.pending.pop(job_id, None)
            self.kept = {key: row for key, row in self.kept.items() if now_ms - row[0] < KEPT_MS}
            if told is not None:
                self.kept[job_id] = (now_ms, told)

    def _story(self, job_id: str) -> list[Json]:
        """Its last reasons, oldest first: why it was started, shrunk, preempted, moved; not what it waited for in between."""
        told = select(Event).where(Event.job == job_id, Event.reason.is_not(None), Event.kind != "job_waits")
        query = told.order_by(Event.seq.desc()).limit(STORY)
        with self.store.read() as session:
            rows = session.execute(query).scalars().all()
        found = []
        for row in reversed(rows):
            assert row.reason is not None
            reason = reason_from(row.reason)
            found.append({"at": explaining.time_of(row.at_ms), "code": reason.code.value, "sentence": sentence_of(reason),
                          "attempt": row.attempt, "for": list(reason.blockers)})  # fmt: skip
        return found

    def explain_queue(self, name: str) -> Json:
        with self.loop.engine_lock:
            engine = self.loop.engine
            usage = {row.name: row for row in engine.queue_usage()}
            if name not in usage:
                raise ControlError("unknown_queue", f"There is no queue {name}.", f"Queues: {', '.join(sorted(usage))}")
            waiting = _in_order(self.loop, name)
        return explaining.of_queue(usage[name], waiting, _borrowers(usage, name))


def _standing(loop: Loop, job_id: str, now_ms: int) -> tuple[Check, ...]:
    try:
        return standing(loop.engine.state, job_id, now_ms)
    except KeyError:
        return ()  # it is over, or the engine has not heard of its lease yet


def _in_order(loop: Loop, name: str) -> list[tuple[str, Reason]]:
    """The waiting jobs of a queue and of those below it, each queue in its order."""
    state = loop.engine.state
    found = []
    for leaf in state.book.tree.leaves:
        if not any(node.name == name for node in leaf.chain):
            continue
        for key in state.waiting.line(leaf.name).order:
            reason = state.waiting_reason(state.book.jobs[key.job_id])
            if reason is not None:
                found.append((key.job_id, reason))
    return found


def _borrowers(usage: dict[str, QueueUsage], name: str) -> list[str]:
    """Other queues that use more than is guaranteed to them, the largest first."""
    parents = {row.parent for row in usage.values()}
    amounts = {
        row.name: max(row.borrowed.values(), default=0)
        for row in usage.values()
        if row.name != name and row.name not in parents
    }
    return sorted((queue for queue, amount in amounts.items() if amount), key=lambda queue: (-amounts[queue], queue))
