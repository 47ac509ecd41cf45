"""What would start a waiting job, each idea tried on a copy of the engine before it is told.

An idea counts when the job starts within one cycle (`trial`). Changes of the job itself come first, and of these the ones that take
GPUs from nobody; somebody else's end is offered only when no change of the job, alone or together with others, would do. The number
of ideas is bounded, so an explanation costs a bounded number of cycles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.book import HOLDING, JobRec, core_tasks, task_amounts
from heliostat_scheduler.core.editing import edit_command, sized
from heliostat_scheduler.core.explain import Explanation, checks_of, headroom, holders_of, never_fits_tasks
from heliostat_scheduler.core.judge import candidate_flavors as flavors_to_try
from heliostat_scheduler.core.judge import room_in, rule_reason, structural_reason
from heliostat_scheduler.core.model import PRIORITY_CLASSES, JobSpec, NodeSpec, Preemptibility, SlotSpec
from heliostat_scheduler.core.reasons import Reason, ReasonCode, Remedy, RemedyKind, amount, decimal, sentence
from heliostat_scheduler.core.smaller import fitting_tasks, small_tasks
from heliostat_scheduler.core.tree import QueueNode
from heliostat_scheduler.core.trial import TIME_CODES, Bench, Passed, losers, pass_time

if TYPE_CHECKING:
    from heliostat_scheduler.core.engine import Engine

MAX_QUEUES = 6
MAX_OTHERS = 4
MAX_FLAVORS = 4
MAX_COMBINED = 12
ABOVE_QUOTA = frozenset({ReasonCode.NEVER_FITS, ReasonCode.QUOTA_EXHAUSTED})
STRUCTURAL = frozenset({ReasonCode.NEVER_FITS, ReasonCode.FLAVOR_MISMATCH})


def explain(engine: Engine, job_id: str, now_ms: int, thorough: bool = False) -> Explanation:
    """The reason, the constraints and the tried remedies of a waiting job. Raises KeyError for an unknown or running job.

    thorough: without short cuts (see `Bench`).
    """
    rec = engine.state.book.jobs.get(job_id)
    if rec is None or rec.phase in HOLDING:
        raise KeyError(f"job {job_id} does not wait")
    copy = engine.branch()
    copy.decide(now_ms)
    rec = copy.state.book.jobs[job_id]
    why = copy.reason(job_id)
    if why is None:
        soon = Remedy(RemedyKind.WAIT, "wait", "it starts with the next decision", at_ms=now_ms)
        return Explanation(job_id, Reason(ReasonCode.STARTING), (), (soon,), None, now_ms, now_ms)
    passed = pass_time(copy, job_id, why, now_ms) if why.code in TIME_CODES else None
    told = tuple(_Ideas(copy, rec, why, now_ms, thorough).remedies(passed))
    start = passed.at_ms if passed is not None and passed.still is None else None
    return Explanation(job_id, why, checks_of(copy.state, rec), told, copy.position(job_id), start, now_ms)


class _Ideas:
    """The ideas for one job, in the order in which they are worth trying."""

    def __init__(
        self,
        engine: Engine,
        rec: JobRec,
        why: Reason,
        now_ms: int,
        thorough: bool,
        lost: frozenset[str] = frozenset(),
    ) -> None:
        """lost: who has lost GPUs on the way here."""
        self.engine = engine
        self.lost = lost
        self.thorough = thorough
        self.bench = Bench(engine, rec.id, now_ms, thorough)
        self.rec = rec
        self.spec = rec.spec
        self.why = why
        self.now_ms = now_ms

    def remedies(self, passed: Passed | None = None) -> list[Remedy]:
        code = self.why.code
        if passed is not None:
            return [_wait(passed)]
        if code is ReasonCode.HELD:
            return self._released()
        if code is ReasonCode.DEPENDENCY_WAIT:
            return self._dependency()
        found = list(self._own_changes())
        if self.why.fact("max_nodes"):
            found += self._nodes()
        if not found and code is not ReasonCode.NODE_JOINING:
            found += self._combined_or_ends()
        found = list({remedy.command or remedy.text: remedy for remedy in found}.values())
        found.sort(key=lambda remedy: (not remedy.command, bool(remedy.evicts)))
        if code is ReasonCode.NODE_JOINING:
            again = self.why.fact("again")
            text = "the nodes are asked for again at that time" if again else "it starts when they have joined"
            found.append(Remedy(RemedyKind.WAIT, "wait", text, at_ms=self.why.until_ms))
        elif code not in STRUCTURAL:
            text = "or wait until running work ends" if found else "wait until running work ends or nodes join"
            found.append(Remedy(RemedyKind.WAIT, "wait", text))
        return found

    def _combined_or_ends(self) -> list[Remedy]:
        """No single change starts it: several of them, now or at a known time; else somebody's end, or more nodes."""
        structural = self.why.code in STRUCTURAL
        chained = self._then_more() if structural else []
        found = [remedy for remedy in chained if remedy.action != "cancel_other" and remedy.at_ms is None]
        found = found or [*self._combined()] or chained
        if found and found[0].action != "cancel_other":
            return found
        found = found or self._others()
        if not found and structural:
            found = self._largest_that_waits()
        return [*found, *self._nodes()]

    def _own_changes(self) -> Iterator[Remedy]:
        if self.why.code is ReasonCode.NEVER_FITS:
            yield from self._largest_that_fits()
        yield from self._sizes()
        yield from self._smaller_tasks()
        yield from self._first(self._resubmit(), self._taken_back())
        if self.why.code not in STRUCTURAL:
            yield from self._classes()
        yield from self._queues()
        yield from self._flavors()

    # -- trying

    def _try(self, action: str, command: str, text: str, *changes: ev.Event, harmless: bool = False) -> Remedy | None:
        outcome = self.bench.attempt(changes, harmless)
        if not outcome.started:
            return None
        return Remedy(RemedyKind.APPLY, action, text, command, evicts=outcome.evicts)

    def _try_spec(self, action: str, spec: JobSpec, harmless: bool) -> Remedy | None:
        command, text = edit_command(self.spec, spec)
        return self._try(action, command, text, ev.JobChanged(spec), harmless=harmless)

    def _first(self, action: str, specs: Iterable[JobSpec]) -> Iterator[Remedy]:
        """The first of these that starts the job; if that displaces somebody, the first that displaces nobody as well."""
        told = False
        for spec in specs:
            found = self._try_spec(action, spec, harmless=told)
            if found is not None and not (told and found.evicts):
                yield found
                told = True
                if not found.evicts:
                    return

    def _after(self, action: str, command: str, text: str, *changes: ev.Event) -> Remedy | None:
        """Carry it out; if the job then waits for something else, what helps from there is typed behind it."""
        done = self._try(action, command, text, *changes)
        if done is not None:
            return done
        there = self._there(*changes)
        if there is None or there.why.code is self.why.code:
            return None
        passed = pass_time(there.engine, self.spec.id, there.why, self.now_ms) if there.why.code in TIME_CODES else None
        for more in there.remedies(passed):
            if more.command:
                last = more.action if more.action == "cancel_other" else action
                both = f"{command} && {more.command}"
                lost = there.losing(more.evicts)
                return replace(more, action=last, text=f"{text}, and {more.text}", command=both, evicts=lost)
            if more.at_ms is not None:
                words, lost = f"{text}; then {more.text}", there.losing()
                return Remedy(RemedyKind.APPLY, action, words, command, evicts=lost, at_ms=more.at_ms)
        return None

    def _at_least(self, action: str, command: str, text: str, *changes: ev.Event) -> Remedy:
        """The first step when nothing that was tried starts the job: it says for what the job would wait then."""
        there = self._there(*changes)
        then = "" if there is None else f"; it would then wait: {sentence(there.why)}"
        lost = () if there is None else there.losing()
        return Remedy(RemedyKind.APPLY, action, text + then, command, evicts=lost)

    def losing(self, too: Iterable[str] = ()) -> tuple[str, ...]:
        """Who has lost GPUs on the way here, and these."""
        return tuple(sorted(self.lost.union(too)))

    def _there(self, *changes: ev.Event) -> _Ideas | None:
        """The same job after these changes and a cycle, if it waits then."""
        copy = self.engine.branch()
        for change in changes:
            copy.apply(change, self.now_ms)
        lost = frozenset(losers(copy, copy.decide(self.now_ms)) - {self.spec.id})
        why = copy.reason(self.spec.id)
        rec = copy.state.book.jobs[self.spec.id]
        return None if why is None else _Ideas(copy, rec, why, self.now_ms, self.thorough, lost)

    # -- one idea each

    def _released(self) -> list[Remedy]:
        step = ("release", f"helio release {self.spec.id}", "release it", ev.JobReleased(self.spec.id))
        return [self._after(*step) or self._at_least(*step)]

    def _dependency(self) -> list[Remedy]:
        other, outcome = self.why.fact("job"), self.why.fact("outcome")
        if not outcome:
            return [Remedy(RemedyKind.WAIT, "wait", f"it goes on when {other} has succeeded")]
        spec = replace(self.spec, dependencies=())
        command, text = edit_command(self.spec, spec)
        step = ("resubmit", command, f"{other} ended as {outcome}, so {text}", ev.JobChanged(spec))
        return [self._after(*step) or self._at_least(*step)]

    def _with_size(self, low: int, high: int) -> JobSpec | None:
        low, high = sized(self.spec, low, high)
        sizes = tuple(size for size in self.spec.sizes if low <= size <= high)
        if self.spec.sizes and (not sizes or sizes[0] != low or sizes[-1] != high):
            return None
        return replace(self.spec, min_tasks=low, max_tasks=high, sizes=sizes)

    def _gangs(self) -> Iterator[JobSpec]:
        """Smaller gangs, the largest first: what there is room for, half, and one task."""
        spec = self.spec
        most = spec.min_tasks - 1
        if not spec.shape.gpu_milli or most < 1:
            return
        tries = {min(most, headroom(self.engine.state, self.rec)), most // 2, 1}
        for size in sorted(tries - {0}, reverse=True):
            smaller = self._with_size(size, spec.max_tasks if spec.max_tasks > spec.min_tasks else size)
            if smaller is not None:
                yield smaller

    def _sizes(self) -> Iterator[Remedy]:
        yield from self._first(self._resubmit(), self._gangs())

    def _resubmit(self) -> str:
        return "resubmit" if self.why.code is ReasonCode.NEVER_FITS else "change_job"

    def _smaller_tasks(self) -> Iterator[Remedy]:
        smaller = (*self._fitting_tasks(), *small_tasks(self.engine.state, self.spec))
        yield from self._first(self._resubmit(), dict.fromkeys(smaller))

    def _taken_back(self) -> list[JobSpec]:
        """What is refused because it could not be taken back, as work that can be: it may borrow."""
        if self.spec.preemptibility is Preemptibility.PREEMPTIBLE or self.why.code not in ABOVE_QUOTA:
            return []
        return [replace(self.spec, preemptibility=Preemptibility.PREEMPTIBLE)]

    def _fitting_tasks(self) -> list[JobSpec]:
        return fitting_tasks(self.engine.state, self.spec) if self.why.code is ReasonCode.NEVER_FITS else []

    def _classes(self) -> Iterator[Remedy]:
        higher = sorted(value for value in PRIORITY_CLASSES.values() if value > self.spec.priority)
        yield from self._first("raise_priority", (replace(self.spec, priority=value) for value in higher))

    def _queues(self) -> Iterator[Remedy]:
        yield from self._first("change_queue", (replace(self.spec, queue=leaf.name) for leaf in self._other_queues()))

    def _other_queues(self) -> list[QueueNode]:
        """Queues whose rules allow the job now, the one with the most of its share left first."""
        tree = self.engine.state.book.tree
        leaves = [leaf for leaf in tree.leaves if leaf.name != self.spec.queue and self._allowed(leaf)]
        return sorted(leaves, key=lambda leaf: (-self._slack(leaf), leaf.rank))[:MAX_QUEUES]

    def _allowed(self, leaf: QueueNode) -> bool:
        state, spec = self.engine.state, replace(self.spec, queue=leaf.name)
        if structural_reason(state, spec) is not None:
            return False
        for flavor in flavors_to_try(state, spec):
            need = task_amounts(spec, flavor, spec.min_tasks)
            if (
                rule_reason(state, leaf, spec, need, task_amounts(spec, flavor, core_tasks(spec, spec.min_tasks)))
                is None
            ):
                return True
        return False

    def _slack(self, leaf: QueueNode) -> int:
        keys = [key for key in self.engine.state.book.capacity if key != "memory"]
        return sum(leaf.entitled.get(key, 0) - leaf.plan.get(key, 0) for key in keys)

    def _flavors(self) -> Iterator[Remedy]:
        yield from self._first("change_job", (replace(self.spec, flavors=(name,)) for name in self._other_flavors()))

    def _other_flavors(self) -> list[str]:
        structure = self.engine.state.structure
        known = structure.flavors if self.spec.shape.gpu_milli else structure.node_flavors
        return [name for name in known if self.spec.flavors and name not in self.spec.flavors][:MAX_FLAVORS]

    def _combined(self) -> Iterator[Remedy]:
        """Several changes at once: the smallest gang, in another queue, on other hardware, of the highest class."""
        top = max(self.spec.priority, *PRIORITY_CLASSES.values())
        small = self._with_size(1, 1) if self.spec.shape.gpu_milli else None
        bases = [replace(small or self.spec, priority=value) for value in dict.fromkeys((self.spec.priority, top))]
        queues = [self.spec.queue, *(leaf.name for leaf in self.engine.state.book.tree.leaves)][: MAX_QUEUES + 1]
        flavors = [self.spec.flavors, *((name,) for name in self._other_flavors())]
        specs = [
            replace(base, queue=queue, flavors=flavor)
            for base in bases
            for queue in dict.fromkeys(queues)
            for flavor in flavors
        ]
        yield from self._first("change_job", [spec for spec in specs if spec != self.spec][:MAX_COMBINED])

    def _largest_that_fits(self) -> Iterator[Remedy]:
        """The largest request that ever fits, if it starts now."""
        spec = self._ever_fitting()
        if spec is not None:
            yield from self._first("resubmit", [spec])

    def _ever_fitting(self) -> JobSpec | None:
        most = min(never_fits_tasks(self.engine.state, self.rec), self.spec.min_tasks - 1)
        return self._with_size(most, most) if most >= 1 and self.spec.shape.gpu_milli else None

    def _possible(self) -> list[JobSpec]:
        """What can never run, changed so that it can."""
        fitting = self._ever_fitting() if self.why.code is ReasonCode.NEVER_FITS else None
        specs = [fitting] if fitting is not None else []
        specs += [spec for spec in self._taken_back() if structural_reason(self.engine.state, spec) is None]
        specs += self._fitting_tasks()
        specs += [replace(self.spec, flavors=(name,)) for name in self._other_flavors()]
        return specs + [replace(self.spec, queue=leaf.name) for leaf in self._other_queues()]

    def _then_more(self) -> list[Remedy]:
        """Nothing alone starts it now, so what helps from there follows; somebody else's end only if nothing else does."""
        ends: list[Remedy] = []
        for spec in self._possible():
            found = self._after("resubmit", *edit_command(self.spec, spec), ev.JobChanged(spec))
            if found is not None and found.action != "cancel_other":
                return [found]
            ends += [found] if found is not None else []
        return ends[:1]

    def _largest_that_waits(self) -> list[Remedy]:
        return [
            self._at_least("resubmit", *edit_command(self.spec, spec), ev.JobChanged(spec))
            for spec in self._possible()[:1]
        ]

    def _others(self) -> list[Remedy]:
        """The smallest holder whose end would do; else several of them together."""
        jobs = self.engine.state.book.jobs
        blockers = self.why.blockers or holders_of(self.engine.state, self.rec, self.why)
        holders = [jobs[job_id] for job_id in blockers if job_id in jobs]
        holders.sort(key=lambda rec: (len(rec.places) * rec.spec.shape.gpu_milli, -rec.started_at, rec.id))
        ids = [rec.id for rec in holders]
        groups = [[job_id] for job_id in ids[:MAX_OTHERS]] + [ids[-count:] for count in range(2, len(ids) + 1)]
        top = replace(self.spec, priority=max(self.spec.priority, *PRIORITY_CLASSES.values()))
        for spec in (self.spec, top) if top != self.spec else (self.spec,):
            for group in groups:
                found = self._end(group, spec)
                if found is not None:
                    return [found]
        return []

    def _end(self, ids: list[str], spec: JobSpec) -> Remedy | None:
        """These jobs end, and where that is not enough the job goes first to what they leave."""
        command, text = f"helio cancel {' '.join(ids)}", f"cancel {' '.join(ids)}"
        changes: list[ev.Event] = [ev.JobCancelled(job_id) for job_id in ids]
        if spec != self.spec:
            first, words = edit_command(self.spec, spec)
            command, text = f"{first} && {command}", f"{words}, and {text}"
            changes.insert(0, ev.JobChanged(spec))
        return self._try("cancel_other", command, text, *changes)

    def _nodes(self) -> Iterator[Remedy]:
        """More nodes like the best one that is known (all of them free)."""
        state = self.engine.state
        known = [rec.spec for _, rec in sorted(state.book.nodes.items())] + [
            pool.node for pool in state.node_pools.values()
        ]
        kinds = [spec for spec in known if not self.spec.flavors or spec.flavor in self.spec.flavors]
        if not kinds:
            return
        model = max(kinds, key=lambda spec: (len(spec.slots), spec.cpu_milli, spec.id))
        asked = self.spec.min_tasks * self.spec.shape.gpu_milli
        wanted = -(-asked // (max(1, len(model.slots)) * 1000)) or 1
        for count in sorted({1, wanted}):
            added = [ev.NodeUp(twin(model, index)) for index in range(count)]
            outcome = self.bench.attempt(added, harmless=True)
            if outcome.started and not outcome.evicts:
                have = amount(len(model.slots) * 1000, model.flavor)
                have = have if model.slots else f"{decimal(model.cpu_milli)} CPU"
                pool = state.node_pools.get(model.flavor)
                text = f"add {count} node{'s' if count > 1 else ''} with {have}"
                if pool is not None and not room_in(state, pool):
                    text = f"raise max of {model.flavor} under nodes in queues.yaml to {pool.max_nodes + count}: {text}"
                yield Remedy(RemedyKind.APPLY, "add_nodes", text)
                return


def _wait(passed: Passed) -> Remedy:
    text = "it starts at that time, if nothing else happens"
    if passed.still is not None:
        text = f"it is tried again at that time; as things are it would still wait then: {sentence(passed.still)}"
    return Remedy(RemedyKind.WAIT, "wait", text, at_ms=passed.at_ms)


def twin(model: NodeSpec, index: int) -> NodeSpec:
    """A node like this one, empty, that is not there."""
    slots = tuple(SlotSpec(f"?{index}/{slot.device}", slot.device) for slot in model.slots)
    return replace(model, id=f"?{index}", slots=slots)
