"""Demand that is discovered: a program says in its first `fit()` what it needs, and waits there for its lease.

A job that declared no GPUs starts its driver on none. What it then asks for becomes its request: the job goes back to the queue with
it, at its old place, and its driver is *parked*: it holds nothing and waits on the lease board, where its lease (same attempt, a
higher epoch) appears when the job is admitted. A declared range that is wider than the script's own is narrowed to what both
allow, so that a script of exactly two workers is never given three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from heliostat_scheduler.core.decisions import Start
from heliostat_scheduler.core.events import DemandFound, JobCancelled, JobChanged, JobStartFailed
from heliostat_scheduler.core.lifecycle import JobState
from heliostat_scheduler.core.model import TaskShape
from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Acked, DropLease
from sqlalchemy.orm import Session

from heliostat.control import endings, receipts, rows
from heliostat.control.attempts import Attempt, Finish, Phase
from heliostat.control.messages import DriverInfo
from heliostat.control.outbox import Outbox
from heliostat.control.patience import GRANT_PATIENCE_MS, POLL_MS, RUNNING_POLL_MS
from heliostat.control.resizing import Resizing
from heliostat.control.slot_refs import refs_of
from heliostat.store import jobs
from heliostat.store.tables import Job

GPU_MILLI = 1000


@dataclass(frozen=True, slots=True)
class Demand:
    """What a program can run on: `fewest` to `most` tasks of one GPU each."""

    fewest: int
    most: int

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Demand | None:  # Any: JSON
        """None when the facts make no sense; then they are nobody's demand."""
        fewest, most = facts.get("min_gpus"), facts.get("max_gpus")
        if isinstance(fewest, int) and isinstance(most, int) and 1 <= fewest <= most:
            return cls(fewest, most)
        return None

    def within(self, least: int, most: int) -> Demand | None:
        """What this range and a declared one have in common."""
        fewest, most = max(self.fewest, least), min(self.most, most)
        return Demand(fewest, most) if fewest <= most else None


@dataclass(slots=True)
class Parking(Resizing):
    """The executor's part that meets demands."""

    def demanded(self, attempt: Attempt, acked: Acked, out: Outbox, now_ms: int) -> None:
        """A program said what it needs. Said again, or of an older epoch, it changes nothing."""
        demand = Demand.of(acked.facts)
        if demand is None or not attempt.has_driver or attempt.ending is not None:
            return
        with self.store.read() as session:
            job = jobs.get(session, attempt.job)
        if job.gpu_milli:
            self._narrow(job, demand.within(job.min_tasks, job.max_tasks), out, now_ms)
        elif acked.epoch == attempt.epoch:
            self.started(attempt, out, now_ms)
            self._park(attempt, job, demand, out, now_ms)

    def started(self, attempt: Attempt, out: Outbox, now_ms: int) -> None:
        raise NotImplementedError

    def _narrow(self, job: Job, demand: Demand | None, out: Outbox, now_ms: int) -> None:
        if demand is None or (demand.fewest, demand.most) == (job.min_tasks, job.max_tasks):
            return
        spec = replace(jobs.core_spec(job), min_tasks=demand.fewest, max_tasks=demand.most)
        job_id, limits = job.id, {"min_tasks": demand.fewest, "max_tasks": demand.most}
        out.step(job_id, lambda s: rows.demand_narrowed(s, job_id, now_ms, limits))
        out.event(JobChanged(spec))

    def _park(self, attempt: Attempt, job: Job, demand: Demand, out: Outbox, now_ms: int) -> None:
        shape = TaskShape(gpu_milli=GPU_MILLI, cpu_milli=job.cpu_milli, memory_bytes=job.memory_bytes)
        wanted = {"gpu_milli": GPU_MILLI, "min_tasks": demand.fewest, "max_tasks": demand.most}
        spec = replace(
            jobs.core_spec(job),
            shape=shape,
            min_tasks=demand.fewest,
            max_tasks=demand.most,
            spread="any",
            elastic=job.kind in jobs.ELASTIC_KINDS,
        )
        if attempt.state is not JobState.RUNNING or not out.event(DemandFound(attempt.job, attempt.epoch, spec)):
            return
        del self.attempts[attempt.job]
        self.parked[attempt.job] = attempt
        attempt.epoch += 1
        attempt.phase, attempt.state, attempt.runner_seen = Phase.PARKED, JobState.QUEUED, False
        attempt.places, attempt.slots, attempt.tasks, attempt.node = (), (), 0, ""
        attempt.due_ms, attempt.poll_ms, attempt.deadline_ms = None, now_ms + RUNNING_POLL_MS, 0
        out.step(attempt.job, lambda s: rows.parked(s, attempt, wanted, now_ms), self.put(attempt))

    def unpark(self, start: Start, out: Outbox, now_ms: int) -> bool:
        """The job is admitted and its driver waits for it already. False: there is none."""
        attempt = self.parked.get(start.job_id)
        if attempt is None:
            return False
        slots = refs_of(self.nodes.values(), start.places)
        attempt.epoch = start.epoch
        if slots is None:
            out.step(attempt.job, lambda s: rows.resized(s, attempt))
            out.event(JobStartFailed(attempt.job, start.epoch, protocol.UNKNOWN_SLOT, now_ms + 1_000))
            return True
        self.attempts[attempt.job] = self.parked.pop(attempt.job)
        attempt.places, attempt.slots, attempt.tasks = start.places, slots, len(start.places)
        attempt.node, attempt.since_ms = start.places[0].node, now_ms
        attempt.phase, attempt.state, attempt.accepted = Phase.GRANTING, JobState.ADMITTED, True
        attempt.in_engine = True  # it was not while it waited, if another control plane had parked it
        attempt.due_ms, attempt.poll_ms = now_ms + GRANT_PATIENCE_MS, now_ms + POLL_MS
        flavors = {node.node: node.flavor for node in self.nodes.values()}
        spans = partial(receipts.open_spans, attempt=attempt, flavors=flavors, gpu_milli=GPU_MILLI, now_ms=now_ms)

        def write(session: Session) -> None:
            rows.resized(session, attempt)
            spans(session)
            rows.moved(session, attempt.job, JobState.ADMITTED, start.reason, attempt.n, now_ms)

        out.step(attempt.job, write, self.put(attempt))
        return True

    def end_parked(self, job_id: str, outcome: str, out: Outbox, now_ms: int, *, gone: bool = False) -> None:
        """Nobody waits for this lease any more. gone: its driver has ended already."""
        attempt = self.parked.pop(job_id, None)
        if attempt is None:
            return
        attempt.process_done = gone
        effects = [self.send(lambda i: DropLease(i, self.term, job_id, attempt.epoch))]
        if not gone:
            attempt.stop_asked_ms = now_ms
            effects.append(partial(self.drivers.stop, attempt.submission_id))
        self.leftovers.add(attempt, now_ms - POLL_MS if gone else now_ms)
        out.step(job_id, lambda s: rows.parked_ended(s, attempt, outcome, now_ms), *effects)

    def parked_driver_ended(self, attempt: Attempt, info: DriverInfo | None, out: Outbox, now_ms: int) -> None:
        """It ended while it waited: by itself, or killed from outside."""
        ending = endings.of_driver(attempt, info, self.tries(attempt.job), now_ms)
        self.end_parked(attempt.job, ending.outcome, out, now_ms, gone=True)
        if not isinstance(ending, Finish):
            return  # the job waits on, with what it asked for, and starts a new driver in its turn
        out.event(JobCancelled(attempt.job))
        out.step(attempt.job, lambda s: rows.finished_in_queue(s, attempt, ending, now_ms))

    def lose_parked(self, out: Outbox, now_ms: int) -> None:
        """Ray is gone with every driver."""
        for job_id in list(self.parked):
            self.end_parked(job_id, "head_lost", out, now_ms, gone=True)
