"""Why a job that holds something does not get all that it asks for, and what would let it grow.

The same rights as growth has: the queue's rules, then free capacity, then borrowed surplus of others where the queue is within its
entitlement. A remedy is told only after it was carried out on a copy of the engine and the job grew within one cycle, or as soon as
those who had to leave for it had left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.book import HOLDING, JobRec, Phase, core_tasks, reason, task_amounts
from heliostat_scheduler.core.cycle import Cycle
from heliostat_scheduler.core.editing import edit_command
from heliostat_scheduler.core.explain import holders_of
from heliostat_scheduler.core.growth import growth_due, next_step
from heliostat_scheduler.core.judge import personal_reason, rule_reason
from heliostat_scheduler.core.model import PRIORITY_CLASSES
from heliostat_scheduler.core.reasons import Reason, ReasonCode, Remedy, RemedyKind, amount
from heliostat_scheduler.core.remedies import twin
from heliostat_scheduler.core.shortage import Shortage
from heliostat_scheduler.core.trial import leave_all, losers

if TYPE_CHECKING:
    from heliostat_scheduler.core.engine import Engine

MAX_OTHERS = 4


@dataclass(frozen=True, slots=True)
class Wanting:
    """tasks: held now. wanted: what it would take. reason: why not one step more."""

    job_id: str
    tasks: int
    wanted: int
    reason: Reason
    remedies: tuple[Remedy, ...] = ()


def wanting(engine: Engine, job_id: str, now_ms: int, *, tried: bool = True) -> Wanting | None:
    """None when the job holds nothing, or all that it asks for. tried: whether remedies are looked for, which costs cycles."""
    rec = engine.state.book.jobs.get(job_id)
    if rec is None or rec.phase not in HOLDING or rec.cancel or rec.phase in (Phase.PREEMPTING, Phase.STOPPING):
        return None
    step = next_step(rec)
    if step is None or not rec.spec.elastic:
        return None
    why = _reason(engine, rec, step, now_ms)
    told = tuple(_remedies(engine, rec, why, now_ms)) if tried else ()
    return Wanting(job_id, len(rec.places), rec.spec.max_tasks, why, told)


def _reason(engine: Engine, rec: JobRec, step: int, now_ms: int) -> Reason:
    state = engine.state
    if rec.claim:
        why = personal_reason(state, rec)
        assert why is not None, "a claim is a reason"
        return why
    if rec.phase is not Phase.RUNNING:
        return reason(ReasonCode.STARTING)
    due = growth_due(rec, state.policy)
    if due > now_ms and _grows(engine, rec, (), due) is not None:
        return reason(ReasonCode.PENDING_EVALUATION, ("resize_ms", due - now_ms), until=due)
    leaf = state.book.leaf_of(rec)
    tasks = len(rec.places)
    need = task_amounts(rec.spec, rec.flavor, step)
    core = task_amounts(rec.spec, rec.flavor, core_tasks(rec.spec, tasks + step) - core_tasks(rec.spec, tasks))
    broken = rule_reason(state, leaf, rec.spec, need, core)
    if broken is not None:
        return replace(broken, blockers=tuple(job for job in holders_of(state, rec, broken) if job != rec.id))
    flavor = rec.flavor if rec.spec.shape.gpu_milli else ""
    wish = Cycle(state, now_ms, budget=0).wish(rec, flavor, step, evict=False)
    one = replace(rec.spec, min_tasks=step, max_tasks=step, sizes=())
    short = Shortage(state).lack_of(leaf, one, wish).reason()
    return replace(short, blockers=tuple(job for job in short.blockers if job != rec.id))


def _remedies(engine: Engine, rec: JobRec, why: Reason, now_ms: int) -> Iterator[Remedy]:
    """Its class, then more nodes, then somebody else's end; or to wait."""
    if why.code in (ReasonCode.STARTING, ReasonCode.WAITING_FOR_VICTIMS):
        yield Remedy(RemedyKind.WAIT, "wait", "more is on its way", at_ms=why.until_ms)
        return
    if why.code is ReasonCode.PENDING_EVALUATION:
        yield Remedy(RemedyKind.WAIT, "wait", "it grows at that time, if nothing else happens", at_ms=why.until_ms)
        return
    for value in sorted(value for value in PRIORITY_CLASSES.values() if value > rec.spec.priority):
        spec = replace(rec.spec, priority=value)
        evicts = _grows(engine, rec, [ev.JobChanged(spec)], now_ms)
        if evicts is not None:
            command, text = edit_command(rec.spec, spec)
            yield Remedy(RemedyKind.APPLY, "raise_priority", text, command, evicts=evicts)
            break
    yield from _more_nodes(engine, rec, now_ms)
    yield from _ends(engine, rec, why, now_ms)
    yield Remedy(RemedyKind.WAIT, "wait", "or wait until running work ends")


def _more_nodes(engine: Engine, rec: JobRec, now_ms: int) -> Iterator[Remedy]:
    known = [node.spec for _, node in sorted(engine.state.book.nodes.items())]
    kinds = [spec for spec in known if not rec.flavor or spec.flavor == rec.flavor]
    if not kinds:
        return
    model = max(kinds, key=lambda spec: (len(spec.slots), spec.cpu_milli, spec.id))
    if _grows(engine, rec, [ev.NodeUp(twin(model, 0))], now_ms) == ():
        have = amount(len(model.slots) * 1000, model.flavor) if model.slots else amount(model.cpu_milli, "cpu")
        yield Remedy(RemedyKind.APPLY, "add_nodes", f"add a node with {have}")


def _ends(engine: Engine, rec: JobRec, why: Reason, now_ms: int) -> Iterator[Remedy]:
    """The smallest holder whose end would do."""
    jobs = engine.state.book.jobs
    holders = [jobs[job_id] for job_id in why.blockers if job_id in jobs and job_id != rec.id]
    holders.sort(key=lambda other: (len(other.places) * other.spec.shape.gpu_milli, -other.started_at, other.id))
    for other in holders[:MAX_OTHERS]:
        evicts = _grows(engine, rec, [ev.JobCancelled(other.id)], now_ms)
        if evicts is not None:
            text, command = f"cancel {other.id}", f"helio cancel {other.id}"
            yield Remedy(RemedyKind.APPLY, "cancel_other", text, command, evicts=evicts)
            return


def _grows(engine: Engine, rec: JobRec, changes: Sequence[ev.Event], now_ms: int) -> tuple[str, ...] | None:
    """Who loses GPUs when the job grows by these changes; None when it does not."""
    at_ms = max(now_ms, growth_due(rec, engine.state.policy))
    copy = engine.branch()
    for change in changes:
        copy.apply(change, now_ms)
    ended = {change.job_id for change in changes if isinstance(change, ev.JobCancelled)}
    lost = ended | losers(copy, copy.decide(at_ms))
    twin_rec = copy.state.book.jobs[rec.id]
    if len(twin_rec.places) <= len(rec.places) and (twin_rec.claim or ended):
        leave_all(copy, at_ms)
        lost |= losers(copy, copy.decide(at_ms))
        twin_rec = copy.state.book.jobs[rec.id]
    if len(twin_rec.places) <= len(rec.places):
        return None
    return tuple(sorted(lost - {rec.id}))
