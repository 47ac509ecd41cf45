"""What would change if: the same future twice, once as things are and once with an edit, and the difference between the two.

Both futures get the same lengths and the same arrivals, so whatever differs is the edit's doing. Nothing live is touched: both run on
forks. An edit is a list of the engine's own events, made by the functions below from what people say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import HOLDING
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import Event, JobCancelled, JobSubmitted, NodeUp, PolicyChanged, QueuesChanged
from heliostat_scheduler.core.model import JobSpec, NodeSpec, Policy, QueueSpec, SlotSpec
from heliostat_scheduler.forecast.future import Arrival, Course, Future, Grid, Rest

if TYPE_CHECKING:
    from heliostat_scheduler.estimate.expectation import Expectations

EXACT_BELOW = 100
"""Waiting jobs up to which every event gets its own cycle."""
CYCLES = 60
"""Steps that a coarse future of any length may take, about."""
FIRST_STEP_MS = 10_000


class BadEdit(ValueError):
    """The edit names something that does not exist, or is impossible."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A job that starts at another time; None: not before the horizon (or, before the edit, not at all)."""

    job_id: str
    queue: str
    before_ms: int | None
    after_ms: int | None

    @property
    def by_ms(self) -> int | None:
        """Negative: earlier."""
        return None if self.before_ms is None or self.after_ms is None else self.after_ms - self.before_ms

    @property
    def earlier(self) -> bool:
        return (math.inf if self.after_ms is None else self.after_ms) < (
            math.inf if self.before_ms is None else self.before_ms
        )


@dataclass(frozen=True, slots=True)
class Loser:
    """A running job that is evicted more often (or, times negative, less often) than without the edit."""

    job_id: str
    queue: str
    times: int
    first_ms: int
    code: str
    beneficiary: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The difference. GPU amounts in milli-GPU milliseconds.

    restart_cost: work that the additional evictions throw away. delivered: work done more (or less) until the horizon.
    running: those of the shifts that hold GPUs at the beginning: they start again after an eviction.
    """

    from_ms: int
    until_ms: int
    shifts: tuple[Shift, ...]
    evicted: tuple[Loser, ...]
    spared: tuple[Loser, ...]
    new_job: str
    restart_cost: int
    delivered: int
    coarse: bool
    running: frozenset[str] = frozenset()

    @property
    def earlier(self) -> tuple[Shift, ...]:
        return tuple(shift for shift in self.shifts if shift.earlier)

    @property
    def later(self) -> tuple[Shift, ...]:
        return tuple(shift for shift in self.shifts if not shift.earlier)


def grid_for(engine: Engine, horizon_ms: int) -> Grid:
    """Exact while few jobs wait; else steps that grow with the distance, about CYCLES of them."""
    if len(engine.state.waiting.keys) <= EXACT_BELOW:
        return Grid()
    growth = math.log(max(2.0, horizon_ms / FIRST_STEP_MS)) / (CYCLES / 2)
    return Grid(FIRST_STEP_MS, max(1, math.ceil(1000 * (math.exp(growth) - 1))))


def course_of(
    engine: Engine,
    now_ms: int,
    rest: Rest,
    arrivals: Sequence[Arrival],
    horizon_ms: int,
    edit: Sequence[Event] = (),
    grid: Grid | None = None,
    expected: Expectations | None = None,
) -> Course:
    """One future on a copy of `engine`, with the edit applied at its beginning."""
    copy = engine.branch()
    chosen = grid if grid is not None else grid_for(engine, horizon_ms)
    for event in edit:
        copy.apply(event, now_ms)
    return Future(copy, now_ms, rest, arrivals, grid=chosen, expected=expected).run(now_ms + horizon_ms)


def compare(base: Course, edited: Course, engine: Engine, edit: Sequence[Event] = (), coarse: bool = False) -> Verdict:
    """Who starts at another time, who is evicted, what it costs."""
    new = next((event.job.id for event in edit if isinstance(event, JobSubmitted)), "")
    gone = {event.job_id for event in edit if isinstance(event, JobCancelled)}
    shifts = []
    for job_id in sorted(base.starts.keys() | edited.starts.keys()):
        before, after = base.starts.get(job_id), edited.starts.get(job_id)
        if before != after and job_id not in gone:
            queue = edited.queue_of.get(job_id) or base.queue_of.get(job_id, "")
            shifts.append(Shift(job_id, queue, before, after))
    shifts.sort(key=lambda shift: (shift.after_ms is None, shift.after_ms or 0, shift.job_id))
    more, fewer = _evictions(base, edited), _evictions(edited, base)
    cost = sum(_restart_cost(engine, edited, loser) for loser in more)
    cost -= sum(_restart_cost(engine, base, loser) for loser in fewer)
    delivered = _delivered(edited) - _delivered(base)
    running = frozenset(
        shift.job_id
        for shift in shifts
        if (rec := engine.state.book.jobs.get(shift.job_id)) is not None and rec.phase in HOLDING
    )
    return Verdict(base.from_ms, base.until_ms, tuple(shifts), more, fewer, new, cost, delivered, coarse, running)


def _evictions(base: Course, edited: Course) -> tuple[Loser, ...]:
    """Jobs that `edited` evicts more often than `base`."""
    before = Counter(eviction.job_id for eviction in base.evictions)
    after = Counter(eviction.job_id for eviction in edited.evictions)
    losers = []
    for job_id in sorted(after):
        times = after[job_id] - before[job_id]
        if times > 0:
            first = next(eviction for eviction in edited.evictions if eviction.job_id == job_id)
            queue = edited.queue_of.get(job_id, "")
            losers.append(Loser(job_id, queue, times, first.at_ms, first.code, first.beneficiary))
    return tuple(sorted(losers, key=lambda loser: (loser.first_ms, loser.job_id)))


def _restart_cost(engine: Engine, course: Course, loser: Loser) -> int:
    rec = engine.state.book.jobs.get(loser.job_id)
    cost_ms = rec.spec.restart_cost_ms if rec is not None else JobSpec("", "", 0).restart_cost_ms
    return loser.times * cost_ms * course.gpu_milli_of.get(loser.job_id, 0)


def _delivered(course: Course) -> int:
    """Milli-GPU milliseconds of the jobs that started in this future and ended in it, and of those still running at its end."""
    total = 0
    for job_id, start_ms in course.starts.items():
        total += course.gpu_milli_of.get(job_id, 0) * (course.ends.get(job_id, course.until_ms) - start_ms)
    return total


# -- edits in the engine's words


def set_quota(engine: Engine, queue: str, gpus: float, flavor: str = "") -> list[Event]:
    """The queue's guaranteed GPUs become `gpus` (of one flavor, or of the only one that there is)."""
    specs = engine.state.book.tree.specs
    known = {spec.name for spec in specs}
    if queue not in known:
        raise BadEdit(f"there is no queue {queue}; queues: {', '.join(sorted(known))}")
    mine = next(spec for spec in specs if spec.name == queue)
    key = flavor or _only_flavor(engine, mine)
    amounts = {**dict(mine.quota), key: round(1000 * gpus)}
    changed = replace(mine, quota=tuple(sorted(amounts.items())))
    return [QueuesChanged(tuple(changed if spec.name == queue else spec for spec in specs))]


def _only_flavor(engine: Engine, queue: QueueSpec) -> str:
    named = [key for key, _ in queue.quota if key not in ("cpu", "memory")]
    flavors = (
        named or list(engine.state.flavors) or sorted({rec.spec.flavor for rec in engine.state.book.nodes.values()})
    )
    if len(flavors) != 1:
        raise BadEdit(f"say of which flavor: {', '.join(flavors) or 'the cluster has no GPUs'}")
    return flavors[0]


def add_nodes(engine: Engine, count: int, flavor: str, gpus: int) -> list[Event]:
    """`count` more nodes with `gpus` GPUs each, otherwise like a known node of the flavor."""
    if count < 1 or gpus < 0:
        raise BadEdit("at least one node, and no negative number of GPUs")
    known = [rec.spec for _, rec in sorted(engine.state.book.nodes.items())]
    model = next((spec for spec in known if spec.flavor == flavor), known[0] if known else NodeSpec("", flavor))
    per_slot = model.cpu_milli // max(1, len(model.slots))
    nodes = []
    for index in range(count):
        name = f"~new{index}"
        slots = tuple(SlotSpec(f"{name}/{device}", device) for device in range(gpus))
        nodes.append(NodeUp(replace(model, id=name, flavor=flavor, slots=slots, cpu_milli=per_slot * max(1, gpus))))
    return list(nodes)


def cancel(engine: Engine, job_id: str) -> list[Event]:
    if job_id not in engine.state.book.jobs:
        raise BadEdit(f"job {job_id} neither waits nor runs")
    return [JobCancelled(job_id)]


def submit(engine: Engine, spec: JobSpec) -> list[Event]:
    if spec.queue not in engine.state.book.tree.by_name:
        raise BadEdit(f"there is no queue {spec.queue}")
    return [JobSubmitted(spec)]


def set_policy(policy: Policy) -> list[Event]:
    return [PolicyChanged(policy)]


def set_queues(queues: tuple[QueueSpec, ...]) -> list[Event]:
    return [QueuesChanged(queues)]
