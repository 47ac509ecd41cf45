"""What would start a waiting job, each idea tried on a copy of the engine before it is told.

`Trial` forks, applies events, decides once, lets those leave that were told to, and decides again. An idea counts when the job holds
a lease then. The number of ideas tried is bounded, so an explanation costs a bounded number of cycles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.book import HOLDING, JobRec, Phase
from heliostat_scheduler.core.decisions import Plan, Preempt, Resize, Stop
from heliostat_scheduler.core.explain import TIME_CODES, Explanation, checks_of, never_fits_tasks
from heliostat_scheduler.core.judge import candidate_flavors
from heliostat_scheduler.core.model import PRIORITY_CLASSES, JobSpec, NodeSpec, SlotSpec
from heliostat_scheduler.core.placement import largest
from heliostat_scheduler.core.reasons import Reason, ReasonCode, Remedy, RemedyKind, amount, decimal
from heliostat_scheduler.core.tree import QueueNode

if TYPE_CHECKING:
    from heliostat_scheduler.core.engine import Engine

MAX_SIZES = 4
MAX_QUEUES = 6
MAX_OTHERS = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an idea led to: whether the job started, and who lost GPUs."""

    started: bool
    evicts: tuple[str, ...] = ()


def attempt(engine: Engine, job_id: str, changes: Sequence[ev.Event], now_ms: int) -> Outcome:
    """Carry the changes out on a copy and look whether the job starts within one cycle."""
    copy = engine.fork()
    ended = {change.job_id for change in changes if isinstance(change, ev.JobCancelled)}
    for change in changes:
        copy.apply(change, now_ms)
    plan = copy.decide(now_ms)
    losers = set(ended)
    for _ in range(2):
        losers |= _losers(copy, plan)
        if _holds(copy, job_id):
            return Outcome(True, tuple(sorted(losers)))
        rec = copy.state.book.jobs.get(job_id)
        if rec is None or not (rec.claim or ended):
            return Outcome(False)
        _leave(copy, plan, now_ms)
        plan = copy.decide(now_ms)
    return Outcome(_holds(copy, job_id), tuple(sorted(losers)))


def _holds(engine: Engine, job_id: str) -> bool:
    rec = engine.state.book.jobs.get(job_id)
    return rec is not None and rec.phase in HOLDING


def _losers(engine: Engine, plan: Plan) -> set[str]:
    found: set[str] = set()
    for decision in plan.decisions:
        if isinstance(decision, (Preempt, Stop)):
            found.add(decision.job_id)
        elif isinstance(decision, Resize):
            rec = engine.state.book.jobs[decision.job_id]
            if rec.leaving:
                found.add(decision.job_id)
    return found


def _leave(engine: Engine, plan: Plan, now_ms: int) -> None:
    """Everybody who was told to leave has left."""
    for decision in plan.decisions:
        match decision:
            case Preempt():
                engine.apply(ev.JobRequeued(decision.job_id, decision.epoch, "preempted"), now_ms)
            case Stop():
                engine.apply(ev.JobFinished(decision.job_id, decision.epoch, "cancelled"), now_ms)
            case Resize():
                engine.apply(ev.JobResized(decision.job_id, decision.epoch, decision.places), now_ms)
            case _:
                pass
    for job_id in sorted(engine.state.book.leavers):
        rec = engine.state.book.jobs[job_id]
        if rec.phase in (Phase.PREEMPTING, Phase.STOPPING):
            engine.apply(ev.PlacesReleased(job_id, rec.epoch, rec.leaving), now_ms)


def explain(engine: Engine, job_id: str, now_ms: int) -> Explanation:
    """The reason, the constraints and the tried remedies of a waiting job. Raises KeyError for an unknown or running job."""
    rec = engine.state.book.jobs.get(job_id)
    if rec is None or rec.phase in HOLDING:
        raise KeyError(f"job {job_id} does not wait")
    copy = engine.fork()
    copy.decide(now_ms)
    rec = copy.state.book.jobs[job_id]
    why = copy.reason(job_id)
    if why is None:
        why = Reason(ReasonCode.STARTING)
        return Explanation(job_id, why, (), (), None, now_ms, now_ms)
    told = tuple(_Ideas(copy, rec, why, now_ms).remedies())
    return Explanation(job_id, why, checks_of(copy.state, rec), told, copy.position(job_id), why.until_ms, now_ms)


class _Ideas:
    """The ideas for one job, in the order in which they are worth trying."""

    def __init__(self, engine: Engine, rec: JobRec, why: Reason, now_ms: int) -> None:
        self.engine = engine
        self.rec = rec
        self.spec = rec.spec
        self.why = why
        self.now_ms = now_ms

    def remedies(self) -> list[Remedy]:
        code = self.why.code
        if code in TIME_CODES:
            return [self._wait()]
        if code is ReasonCode.HELD:
            return self._release()
        if code is ReasonCode.DEPENDENCY_WAIT:
            return self._dependency()
        if code is ReasonCode.NEVER_FITS:
            found = [*self._never_fits(), *self._queues(), *self._nodes()]
        else:
            found = [*self._sizes(), *self._classes(), *self._queues(), *self._flavors()]
            if not found:
                found = [*self._others(), *self._nodes()]
        found.sort(key=lambda remedy: bool(remedy.evicts))
        if code not in (ReasonCode.NEVER_FITS, ReasonCode.FLAVOR_MISMATCH):
            text = "or wait until running work ends" if found else "wait until running work ends or nodes join"
            found.append(Remedy(RemedyKind.WAIT, "wait", text))
        return found

    # -- one idea each

    def _wait(self) -> Remedy:
        return Remedy(RemedyKind.WAIT, "wait", "time resolves this", at_ms=self.why.until_ms)

    def _try(self, action: str, command: str, text: str, *changes: ev.Event) -> Remedy | None:
        outcome = attempt(self.engine, self.spec.id, changes, self.now_ms)
        if not outcome.started:
            return None
        others = tuple(job_id for job_id in outcome.evicts if job_id != self.spec.id)
        return Remedy(RemedyKind.APPLY, action, text, command, evicts=others)

    def _release(self) -> list[Remedy]:
        command = f"helio release {self.spec.id}"
        done = self._try("release", command, "release it: it starts at once", ev.JobReleased(self.spec.id))
        if done is not None:
            return [done]
        copy = self.engine.fork()
        copy.apply(ev.JobReleased(self.spec.id), self.now_ms)
        copy.decide(self.now_ms)
        rec, why = copy.state.book.jobs[self.spec.id], copy.reason(self.spec.id)
        if why is None:
            return []
        after = _Ideas(copy, rec, why, self.now_ms).remedies()
        return [
            replace(remedy, command=f"{command} && {remedy.command}" if remedy.command else command) for remedy in after
        ]

    def _dependency(self) -> list[Remedy]:
        other = str(self.why.fact("job"))
        if self.why.fact("outcome"):
            text = f"{other} ended as {self.why.fact('outcome')}: cancel this job and submit it again without waiting for it"
            return [Remedy(RemedyKind.APPLY, "resubmit", text, f"helio cancel {self.spec.id}")]
        return [Remedy(RemedyKind.WAIT, "wait", f"it goes on when {other} has succeeded")]

    def _resized(self, low: int, high: int, action: str) -> Remedy | None:
        spec = replace(self.spec, min_tasks=low, max_tasks=high, sizes=_fitting_sizes(self.spec, low, high))
        if not spec.sizes and self.spec.sizes:
            return None
        command, words = _size_words(spec)
        return self._try(action, command, f"ask for {words}", ev.JobChanged(spec))

    def _sizes(self) -> Iterator[Remedy]:
        """The largest smaller gang that starts."""
        if not self.spec.shape.gpu_milli:
            yield from self._smaller_tasks()
            return
        most = self.spec.min_tasks - 1
        fits = max(
            (largest(self.engine.state.book.soon, self.spec.shape, (f,) if f else self.spec.flavors, self.spec.spread)
             for f in candidate_flavors(self.engine.state, self.spec)),
            default=0,
        )  # fmt: skip
        tries = [size for size in dict.fromkeys((min(most, fits), most // 2, 1)) if 0 < size <= most]
        for size in sorted(tries, reverse=True)[:MAX_SIZES]:
            found = self._resized(size, max(size, self.spec.max_tasks) if self.spec.elastic else size, "change_job")
            if found is not None:
                yield found
                return

    def _smaller_tasks(self) -> Iterator[Remedy]:
        """CPU-only work may ask for less per task."""
        shape = self.spec.shape
        if shape.gpu_milli or not shape.cpu_milli:
            return
        for milli in (shape.cpu_milli // 2000 * 1000, 1000):
            if 0 < milli < shape.cpu_milli:
                spec = replace(self.spec, shape=replace(shape, cpu_milli=milli))
                command = f"helio edit {spec.id} --cpus {decimal(milli)}"
                found = self._try("change_job", command, f"ask for {decimal(milli)} CPU per task", ev.JobChanged(spec))
                if found is not None:
                    yield found
                    return

    def _classes(self) -> Iterator[Remedy]:
        for name, value in sorted(PRIORITY_CLASSES.items(), key=lambda item: item[1]):
            if value > self.spec.priority:
                command = f"helio priority {self.spec.id} {name}"
                found = self._try(
                    "raise_priority",
                    command,
                    f"give it class {name}",
                    ev.JobChanged(replace(self.spec, priority=value)),
                )
                if found is not None:
                    yield found
                    return

    def _queues(self) -> Iterator[Remedy]:
        own = self.engine.state.book.leaf_of(self.rec)
        leaves = [leaf for leaf in self.engine.state.book.tree.leaves if leaf is not own]
        leaves.sort(key=lambda leaf: (-self._slack(leaf), leaf.rank))
        for leaf in leaves[:MAX_QUEUES]:
            command = f"helio edit {self.spec.id} --queue {leaf.name}"
            spec = replace(self.spec, queue=leaf.name)
            found = self._try("change_queue", command, f"move it to queue {leaf.name}", ev.JobChanged(spec))
            if found is not None:
                yield found
                return

    def _slack(self, leaf: QueueNode) -> int:
        return sum(
            leaf.entitled.get(k, 0) - leaf.plan.get(k, 0) for k in self.engine.state.book.capacity if k != "memory"
        )

    def _flavors(self) -> Iterator[Remedy]:
        if not self.spec.flavors or not self.spec.shape.gpu_milli:
            return
        for flavor in self.engine.state.flavors:
            if flavor in self.spec.flavors:
                continue
            command = f"helio edit {self.spec.id} --flavor {flavor}"
            spec = replace(self.spec, flavors=(flavor,))
            found = self._try("change_job", command, f"accept {flavor}", ev.JobChanged(spec))
            if found is not None:
                yield found
                return

    def _never_fits(self) -> Iterator[Remedy]:
        most = min(never_fits_tasks(self.engine.state, self.rec), self.spec.min_tasks - 1)
        if most >= 1 and self.spec.shape.gpu_milli:
            found = self._resized(most, most, "resubmit")
            if found is None:
                yield from self._sizes()
                command, words = _size_words(replace(self.spec, min_tasks=most, max_tasks=most))
                yield Remedy(
                    RemedyKind.APPLY,
                    "resubmit",
                    f"the largest request that ever fits is {words}; it would wait",
                    command,
                )
            else:
                yield found
            return
        biggest = self.engine.state.structure.largest_task_milli(self.spec.flavors)
        if self.spec.shape.gpu_milli > biggest > 0:
            spec = replace(self.spec, shape=replace(self.spec.shape, gpu_milli=biggest))
            command = f"helio edit {self.spec.id} --gpus {decimal(biggest)}"
            found = self._try(
                "resubmit", command, f"ask for at most {decimal(biggest)} GPU per task", ev.JobChanged(spec)
            )
            if found is not None:
                yield found
        yield from self._smaller_tasks()

    def _others(self) -> Iterator[Remedy]:
        """The smallest holder whose end would do; then the largest holders together."""
        jobs = self.engine.state.book.jobs
        holders = [jobs[job_id] for job_id in self.why.blockers if job_id in jobs]
        holders.sort(key=lambda rec: (len(rec.places) * rec.spec.shape.gpu_milli, -rec.started_at, rec.id))
        for rec in holders[:MAX_OTHERS]:
            found = self._cancel([rec.id])
            if found is not None:
                yield found
                return
        ids = [rec.id for rec in reversed(holders)]
        for count in range(2, len(ids) + 1):
            found = self._cancel(ids[:count])
            if found is not None:
                yield found
                return

    def _cancel(self, ids: list[str]) -> Remedy | None:
        names = " ".join(ids)
        return self._try(
            "cancel_other", f"helio cancel {names}", f"cancel {names}", *[ev.JobCancelled(job_id) for job_id in ids]
        )

    def _nodes(self) -> Iterator[Remedy]:
        """One more node like the best one that is known (all of it free)."""
        nodes = self.engine.state.book.nodes
        kinds = [
            rec.spec
            for _, rec in sorted(nodes.items())
            if not self.spec.flavors or rec.spec.flavor in self.spec.flavors
        ]
        if not kinds:
            return
        model = max(kinds, key=lambda spec: (len(spec.slots), spec.cpu_milli, spec.id))
        devices = max(1, len(model.slots))
        wanted = (
            -(-self.spec.min_tasks * self.spec.shape.gpu_milli // (devices * 1000)) if self.spec.shape.gpu_milli else 1
        )
        for count in sorted({1, max(1, wanted)}):
            added = [ev.NodeUp(_twin(model, index)) for index in range(count)]
            outcome = attempt(self.engine, self.spec.id, added, self.now_ms)
            if outcome.started and not outcome.evicts:
                have = (
                    amount(len(model.slots) * 1000, model.flavor) if model.slots else f"{decimal(model.cpu_milli)} CPU"
                )
                text = f"add {count} node{'s' if count > 1 else ''} with {have}"
                yield Remedy(RemedyKind.APPLY, "add_nodes", text)
                return


def _twin(model: NodeSpec, index: int) -> NodeSpec:
    slots = tuple(SlotSpec(f"?{index}/{slot.device}", slot.device) for slot in model.slots)
    return replace(model, id=f"?{index}", slots=slots)


def _fitting_sizes(spec: JobSpec, low: int, high: int) -> tuple[int, ...]:
    sizes = tuple(size for size in spec.sizes if low <= size <= high)
    return sizes if sizes and sizes[0] == low and sizes[-1] == high else ()


def _size_words(spec: JobSpec) -> tuple[str, str]:
    """The command that asks for this size, and the same in words."""
    milli = spec.shape.gpu_milli
    low, high = decimal(spec.min_tasks * milli), decimal(spec.max_tasks * milli)
    size = low if low == high else f"{low}..{high}"
    return f"helio edit {spec.id} --gpus {size}", f"{size} GPU"
