"""The waiting jobs of every queue: in order, and grouped so that identical jobs are judged once.

A *group* is all waiting jobs of one queue whose answer must be the same: equal shape, sizes, class, preemptibility, flavors and
spread. Only the first of a group is tried; if it cannot start, the whole group shares its reason. Jobs that may not be tried now
(held, backing off, waiting for another job, or already holding a promise) are in the queue's order but in no group.

The order inside a queue is a key of plain integers: effective class (class plus aging in steps, bounded below one class), the
user's decayed usage in steps, rank among equals, submission time, id.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from heliostat_scheduler.core.book import JobRec, task_amounts
from heliostat_scheduler.core.copies import Copies
from heliostat_scheduler.core.lack import Lack
from heliostat_scheduler.core.model import CPU, MEMORY, Amounts, JobSpec, Policy, Preemptibility, TaskShape
from heliostat_scheduler.core.reasons import Reason


class OrderKey(NamedTuple):
    """Smaller goes first."""

    minus_priority: int
    user_usage: int
    rank: int
    submitted_at_ms: int
    job_id: str


class Signature(NamedTuple):
    """What makes two waiting jobs of a queue alike."""

    queue: str
    priority: int
    preemptibility: Preemptibility
    shape: TaskShape
    min_tasks: int
    max_tasks: int
    sizes: tuple[int, ...]
    flavors: tuple[str, ...]
    spread: str
    elastic: bool
    user: str
    delay_ms: int
    length_ms: int
    starved: bool


STARVED = 1 << 20
"""The class of starved jobs in the order: above every other."""


class Footprint(NamedTuple):
    """What decides whether a gang fits anywhere at all."""

    shape: TaskShape
    min_tasks: int
    flavors: tuple[str, ...]
    spread: str


class Choice(NamedTuple):
    """One flavor that a group may run on. needed: milli-GPU; alike: the shape that stands for all which fit wherever this one does; usable:
    enough nodes are up for it."""

    flavor: str
    needed: int
    alike: TaskShape
    usable: bool


@dataclass(slots=True)
class Group:
    """Identical waiting jobs, in order. `reason` is why the first (hence each) does not start; `answer` is what it is made of.

    shared: another copy of the state has the same list of members, so whoever changes it takes one of his own.
    structural, choices, asks, core: what follows from its shape and the nodes there are (`judged_for`); asks: what a head takes out of its
    queue on its first flavor; core: whether some of it may never be evicted.
    """

    signature: Signature
    spec: JobSpec
    members: list[OrderKey] = field(default_factory=list)
    answer: Reason | Lack | None = None
    fresh: bool = True
    feasible: bool = True
    structural: Reason | None = None
    judged_for: object = None
    choices: tuple[Choice, ...] = ()
    asks: Amounts = ()
    core: bool = False
    shared: bool = False

    def twin(self) -> Group:
        self.shared = True
        return Group(
            self.signature, self.spec, self.members, self.answer, self.fresh, self.feasible, self.structural,
            self.judged_for, self.choices, self.asks, self.core, True,
        )  # fmt: skip

    def add(self, key: OrderKey) -> None:
        self._own()
        insort(self.members, key)

    def discard(self, key: OrderKey) -> None:
        self._own()
        _discard(self.members, key)

    def _own(self) -> None:
        if self.shared:
            self.members, self.shared = self.members.copy(), False

    @property
    def head(self) -> OrderKey:
        return self.members[0]

    @property
    def reason(self) -> Reason | None:
        if isinstance(self.answer, Lack):
            self.answer = self.answer.reason()
        return self.answer


@dataclass(slots=True)
class QueueLine:
    """One leaf queue: all waiting jobs in order, and the groups that may be tried. shared: the order is somebody else's."""

    order: list[OrderKey] = field(default_factory=list)
    groups: dict[Signature, Group] = field(default_factory=dict)
    fresh: set[Signature] = field(default_factory=set)
    shared: bool = False

    def insert(self, key: OrderKey) -> None:
        self._own()
        insort(self.order, key)

    def remove(self, key: OrderKey) -> None:
        self._own()
        _discard(self.order, key)

    def _own(self) -> None:
        if self.shared:
            self.order, self.shared = self.order.copy(), False


def age_steps(spec: JobSpec, policy: Policy, now_ms: int) -> int:
    if not policy.aging_step_ms or not policy.aging_step_priority:
        return 0
    steps = max(0, now_ms - spec.submitted_at_ms) // policy.aging_step_ms
    return min(policy.aging_max_priority, steps * policy.aging_step_priority)


def next_age_ms(spec: JobSpec, policy: Policy, now_ms: int) -> int | None:
    """When the job's aging rises next, or None when it is at its most."""
    if not policy.aging_step_ms or not policy.aging_step_priority:
        return None
    if age_steps(spec, policy, now_ms) >= policy.aging_max_priority:
        return None
    done = max(0, now_ms - spec.submitted_at_ms) // policy.aging_step_ms
    return spec.submitted_at_ms + (done + 1) * policy.aging_step_ms


def demand_amounts(spec: JobSpec, known_flavors: tuple[str, ...], tasks: int) -> Amounts:
    """What a waiting job asks for. One that accepts several flavors asks for it in each."""
    if spec.shape.gpu_milli == 0:
        return task_amounts(spec, "", tasks)
    return tuple(pair for flavor in spec.flavors or known_flavors for pair in task_amounts(spec, flavor, tasks))


def resource_keys(spec: JobSpec, known_flavors: tuple[str, ...]) -> tuple[str, ...]:
    return (CPU, MEMORY) if spec.shape.gpu_milli == 0 else (spec.flavors or known_flavors)


class Waiting:
    """Every queue's line. Keys are computed here and remembered, so that a job is found again when its key changed."""

    def __init__(self) -> None:
        self.lines: dict[str, QueueLine] = {}
        self.keys: dict[str, OrderKey] = {}
        self.group_of: dict[str, Group] = {}

    def copy(self) -> Waiting:
        twin = Waiting()
        twin.keys = self.keys.copy()
        of = twin.group_of
        for name, line in self.lines.items():
            groups = {signature: group.twin() for signature, group in line.groups.items()}
            twin.lines[name] = QueueLine(line.order.copy(), groups, line.fresh.copy())
            for group in groups.values():
                for member in group.members:
                    of[member.job_id] = group
        return twin

    def branch(self) -> Waiting:
        """A copy that takes its own of a group when somebody first looks at it; good while this one is left alone."""
        twin = Waiting()
        twin.keys = Copies(self.keys, _same)
        for name, line in self.lines.items():
            twin.lines[name] = QueueLine(line.order, Copies(line.groups, Group.twin), line.fresh.copy(), True)
        lines = twin.lines
        twin.group_of = Copies(self.group_of, lambda group: lines[group.signature.queue].groups[group.signature])
        return twin

    def line(self, queue: str) -> QueueLine:
        found = self.lines.get(queue)
        if found is None:
            found = self.lines[queue] = QueueLine()
        return found

    def enter(self, rec: JobRec, key: OrderKey) -> None:
        """The job takes its place in its queue's order."""
        self.keys[rec.id] = key
        self.line(rec.spec.queue).insert(key)

    def join(self, rec: JobRec, signature: Signature) -> Group:
        """The job may be tried from now on."""
        line = self.line(rec.spec.queue)
        group = line.groups.get(signature)
        if group is None:
            group = line.groups[signature] = Group(signature, rec.spec)
        if group.fresh or group.answer is None:
            line.fresh.add(signature)
        group.add(self.keys[rec.id])
        group.spec = rec.spec
        self.group_of[rec.id] = group
        return group

    def part(self, rec: JobRec) -> Group | None:
        """The job may not be tried any more (it keeps its place in the order)."""
        group = self.group_of.pop(rec.id, None)
        if group is None:
            return None
        group.discard(self.keys[rec.id])
        if not group.members:
            line = self.line(group.signature.queue)
            line.groups.pop(group.signature, None)
            line.fresh.discard(group.signature)
        return group

    def quit(self, rec: JobRec) -> None:
        """The job waits no longer."""
        key = self.keys.pop(rec.id, None)
        if key is not None:
            self.line(rec.spec.queue).remove(key)

    def rekey(self, rec: JobRec, key: OrderKey) -> None:
        old = self.keys[rec.id]
        if old == key:
            return
        line = self.line(rec.spec.queue)
        line.remove(old)
        line.insert(key)
        self.keys[rec.id] = key
        group = self.group_of.get(rec.id)
        if group is not None:
            group.discard(old)
            group.add(key)

    def waits(self, queue: str) -> bool:
        """Whether some job of the queue could be tried."""
        line = self.lines.get(queue)
        return line is not None and bool(line.groups)

    def every_group(self) -> Iterator[Group]:
        """To look at, not to change: none of them is copied for it."""
        for line in self.lines.values():
            for _, group in line.groups.everything() if isinstance(line.groups, Copies) else line.groups.items():
                yield group

    def position(self, rec: JobRec) -> int | None:
        key = self.keys.get(rec.id)
        return None if key is None else bisect_left(self.line(rec.spec.queue).order, key) + 1


def _same(key: OrderKey) -> OrderKey:
    return key


def _discard(rows: list[OrderKey], key: OrderKey) -> None:
    index = bisect_left(rows, key)
    if index >= len(rows) or rows[index] != key:
        raise AssertionError(f"the queue order lost {key.job_id}")
    del rows[index]
