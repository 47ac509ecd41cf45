"""Bookkeeping: what the engine knows about nodes and jobs, kept consistent by a few verbs.

A job that holds a lease has `places` (what its current order says) and `leaving` (places it was told to give up and that are
not verified free yet). A job that waits for others to leave, or a running one that waits to grow, has a `claim`.
`hold, leave, release, promise, withdraw` are the only ways in which capacity moves; each keeps both spaces and all queue
accounts in step. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import takewhile

from heliostat_scheduler.core.model import CPU, MEMORY, Amounts, JobSpec, NodeSpec, Preemptibility, TaskPlace
from heliostat_scheduler.core.reasons import Reason, ReasonCode
from heliostat_scheduler.core.space import NodeSpace, Space
from heliostat_scheduler.core.tree import QueueNode, QueueTree


class Phase(StrEnum):
    """Where a job is, as the engine sees it. The first three wait; the others hold a lease."""

    WAITING = "waiting"
    HELD = "held"
    STARTING = "starting"
    RUNNING = "running"
    RESIZING = "resizing"
    PREEMPTING = "preempting"
    STOPPING = "stopping"


HOLDING = frozenset({Phase.STARTING, Phase.RUNNING, Phase.RESIZING, Phase.PREEMPTING, Phase.STOPPING})
CHANGES_KEPT = 256
ACTIVE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.RESIZING})


@dataclass(slots=True)
class JobRec:
    """A live job. Times are milliseconds; 0 means never."""

    spec: JobSpec
    phase: Phase = Phase.WAITING
    epoch: int = 0
    attempt: int = 0
    flavor: str = ""
    places: tuple[TaskPlace, ...] = ()
    leaving: tuple[TaskPlace, ...] = ()
    claim: tuple[TaskPlace, ...] = ()
    claim_on: tuple[str, ...] = ()
    claim_flavor: str = ""
    last_nodes: tuple[str, ...] = ()
    at_nodes: frozenset[str] = frozenset()
    started_at: int = 0
    running_at: int = 0
    leave_by: int = 0
    checkpoint_at: int = 0
    resized_at: int = 0
    stale_since: int = 0
    retry_at: int = 0
    retry_code: str = ""
    cancel: str = ""
    lost: bool = False
    evictions: int = 0
    attained: int = 0
    attained_at: int = 0
    remaining_ms: int | None = None
    ends_at: int = 0
    goodput: tuple[tuple[int, int], ...] = ()
    idle_state: str = ""
    idle_since: int = 0
    idle_until: int = 0
    low_since: int = 0
    user_step: int = 0
    redeemed: bool = False
    behind: str = ""
    behind_until: int = 0
    rank: int = 0
    done_milli: int = 0
    counted: tuple[Amounts, Amounts, Amounts, Amounts] = field(default=((), (), (), ()))

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def tasks(self) -> int:
        return len(self.places)


def task_amounts(spec: JobSpec, flavor: str, tasks: int) -> Amounts:
    """What `tasks` tasks take out of a queue's resources."""
    if tasks == 0:
        return ()
    shape = spec.shape
    if shape.gpu_milli:
        return ((flavor, shape.gpu_milli * tasks),)
    pairs = ((CPU, shape.cpu_milli * tasks), (MEMORY, shape.memory_bytes * tasks))
    return tuple(pair for pair in pairs if pair[1])


def core_tasks(spec: JobSpec, tasks: int) -> int:
    """How many of `tasks` tasks may never be evicted."""
    if spec.preemptibility is Preemptibility.NON_PREEMPTIBLE:
        return tasks
    if spec.preemptibility is Preemptibility.SEMI_PREEMPTIBLE:
        return min(tasks, spec.min_tasks)
    return 0


@dataclass(slots=True)
class NodeRec:
    spec: NodeSpec
    up: bool = True
    cordoned: bool = False
    draining: bool = False
    down_at: int = 0

    @property
    def opened(self) -> bool:
        return self.up and not self.cordoned

    @property
    def let_go(self) -> bool:
        """Nothing of ours is left there: another node may take its place."""
        return not self.up or (self.draining and not self.spec.slots)


class Book:
    """All live jobs and known nodes."""

    def __init__(self, tree: QueueTree) -> None:
        self.tree = tree
        self.jobs: dict[str, JobRec] = {}
        self.nodes: dict[str, NodeRec] = {}
        self.blocked: dict[str, str] = {}
        self.slot_home: dict[str, str] = {}
        self.now = Space()
        self.soon = Space()
        self.capacity: dict[str, int] = {}
        self.unmeasured = True
        self.on_node: dict[str, set[str]] = {}
        self.holding: dict[str, set[str]] = {}
        self.claimants: set[str] = set()
        self.leavers: set[str] = set()
        self.user_plan: dict[tuple[str, str, str], int] = {}
        self.user_used: dict[tuple[str, str], int] = {}
        self.before_change: Callable[[], None] = _nothing
        """Called before what is occupied changes: whoever integrates it over time does so now."""
        self.version = 0
        self.leaf_version: dict[str, int] = {}
        self.changes: dict[str, dict[str, int]] = {}
        """By queue, the version at which each job changed last, in that order: of the last so many jobs."""
        self.forgotten: dict[str, int] = {}
        """By queue, the last change that is no longer among them."""
        self.touched: set[str] = set()
        self.nodes_touched: set[str] = set()
        self.node_hashes: dict[str, int] = {}

    # -- nodes

    def put_node(self, spec: NodeSpec) -> None:
        old = self.nodes.get(spec.id)
        self._home(spec.id, spec)
        self.nodes[spec.id] = NodeRec(spec) if old is None else replace(old, spec=spec, up=True, down_at=0)
        self.refresh_node(spec.id)

    def drop_node(self, node_id: str) -> None:
        self._home(node_id, None)
        del self.nodes[node_id]
        self.refresh_node(node_id)

    def _home(self, node_id: str, spec: NodeSpec | None) -> None:
        """Remember which node each slot belongs to."""
        old = self.nodes.get(node_id)
        for slot in old.spec.slots if old is not None else ():
            self.slot_home.pop(slot.id, None)
        for slot in spec.slots if spec is not None else ():
            self.slot_home[slot.id] = node_id

    def refresh_node(self, node_id: str) -> None:
        """Build the node's free amounts again from who holds what."""
        rec = self.nodes.get(node_id)
        self.nodes_touched.add(node_id)
        if rec is None or not rec.up:
            self.now.drop_node(node_id)
            self.soon.drop_node(node_id)
        else:
            blocked = frozenset(slot.id for slot in rec.spec.slots if slot.id in self.blocked)
            for space in (self.now, self.soon):
                space.put_node(NodeSpace(rec.spec, blocked, rec.opened))
            for job_id in sorted(self.on_node.get(node_id, ())):
                self._retake(self.jobs[job_id], node_id)
        self.unmeasured = True

    def _retake(self, rec: JobRec, node_id: str) -> None:
        shape = rec.spec.shape
        kept = [p for p in (*rec.places, *rec.claim) if p.node == node_id]
        self.now.take(kept, shape)
        self.soon.take(kept, shape)
        self.now.take([p for p in rec.leaving if p.node == node_id], shape)

    def measure(self) -> None:
        """Capacity: usable devices by flavor; floating CPU and memory. What a closed node still runs counts while it runs."""
        if not self.unmeasured:
            return
        self.unmeasured = False
        total: dict[str, int] = {}
        for rec in self.nodes.values():
            if not rec.up:
                continue
            self.unmeasured |= not rec.opened  # what a closed node still runs changes from cycle to cycle
            for key, amount in self._node_amounts(rec):
                total[key] = total.get(key, 0) + amount
        self.capacity = total

    def _node_amounts(self, rec: NodeRec) -> list[tuple[str, int]]:
        spec = rec.spec
        if rec.opened:
            free = sum(1000 for slot in spec.slots if slot.id not in self.blocked)
            return [(spec.flavor, free), (CPU, spec.cpu_milli), (MEMORY, spec.memory_bytes)]
        node = self.soon.nodes[spec.id]
        held = sum(1000 - left for left in node.free if 0 <= left < 1000)
        return [(spec.flavor, held), (CPU, spec.cpu_milli - node.cpu), (MEMORY, spec.memory_bytes - node.memory)]

    def slot_node(self, slot_id: str) -> str | None:
        return self.slot_home.get(slot_id)

    # -- capacity verbs

    def hold(self, rec: JobRec, places: tuple[TaskPlace, ...], flavor: str) -> None:
        """The job occupies these places from now on (beside those it has)."""
        self.now.take(places, rec.spec.shape)
        self.soon.take(places, rec.spec.shape)
        rec.places = rec.places + places
        rec.flavor = flavor
        self.account(rec)

    def leave(self, rec: JobRec, places: tuple[TaskPlace, ...]) -> None:
        """The job is told to give these up; they stay occupied until `release`."""
        rec.places = without(rec.places, places)
        rec.leaving = rec.leaving + places
        self.soon.give(places, rec.spec.shape)
        self.account(rec)

    def release(self, rec: JobRec, places: tuple[TaskPlace, ...]) -> None:
        """Leaving places are verified free."""
        rec.leaving = without(rec.leaving, places)
        self.now.give(places, rec.spec.shape)
        self.account(rec)

    def release_all(self, rec: JobRec) -> None:
        self.leave(rec, rec.places)
        self.release(rec, rec.leaving)

    def settle_lease(self, rec: JobRec, places: tuple[TaskPlace, ...]) -> None:
        """The executor says which of the job's old and new places the lease has now; everything else is free."""
        shape = rec.spec.shape
        self.soon.give(rec.places, shape)
        self.now.give((*rec.places, *rec.leaving), shape)
        rec.places, rec.leaving = places, ()
        self.now.take(places, shape)
        self.soon.take(places, shape)
        self.account(rec)

    def promise(self, rec: JobRec, places: tuple[TaskPlace, ...], flavor: str, on: Iterable[str]) -> None:
        """These places will be the job's once everybody in `on` has left."""
        rec.claim, rec.claim_flavor, rec.claim_on = places, flavor, tuple(on)
        self.now.take(places, rec.spec.shape)
        self.soon.take(places, rec.spec.shape)
        self.account(rec)

    def withdraw(self, rec: JobRec) -> None:
        places = rec.claim
        rec.claim, rec.claim_flavor, rec.claim_on = (), "", ()
        self.now.give(places, rec.spec.shape)
        self.soon.give(places, rec.spec.shape)
        self.account(rec)

    # -- accounts

    def wanted_tasks(self, rec: JobRec) -> int:
        """What a holding job asks for: its maximum while it may grow."""
        planned = len(rec.places) + len(rec.claim)
        if rec.phase in ACTIVE and planned and (rec.spec.elastic or planned < rec.spec.min_tasks):
            return max(planned, rec.spec.max_tasks if rec.spec.elastic else rec.spec.min_tasks)
        return planned

    def account(self, rec: JobRec) -> None:
        """Bring every sum that depends on this job up to date."""
        flavor = rec.flavor or rec.claim_flavor
        spec = rec.spec
        planned = len(rec.places) + len(rec.claim)
        counted = (
            task_amounts(spec, flavor, len(rec.places) + len(rec.leaving)),
            task_amounts(spec, flavor, planned),
            task_amounts(spec, flavor, core_tasks(spec, planned)),
            task_amounts(spec, flavor, self.wanted_tasks(rec)),
        )
        if counted != rec.counted:
            self._count(rec, -1)
            rec.counted = counted
            self._count(rec, 1)
        self._index(rec)
        self.bump(rec)

    def bump(self, rec: JobRec) -> None:
        """Something about this job changed that others may have looked up."""
        queue, job_id = rec.spec.queue, rec.spec.id
        self.version += 1
        self.leaf_version[queue] = self.version
        self.touched.add(job_id)
        changes = self.changes.setdefault(queue, {})
        changes.pop(job_id, None)
        changes[job_id] = self.version
        if len(changes) > CHANGES_KEPT:
            self.forgotten[queue] = changes.pop(next(iter(changes)))

    def changed_since(self, queue: str, version: int) -> list[str] | None:
        """Which jobs of the queue have changed after this version; None where that is too long ago."""
        if version < self.forgotten.get(queue, 0):
            return None
        latest = reversed(self.changes.get(queue, {}).items())
        return [job_id for job_id, _ in takewhile(lambda change: change[1] > version, latest)]

    def _count(self, rec: JobRec, sign: int) -> None:
        self.before_change()
        leaf = self.tree.by_name[rec.spec.queue]
        for account, amounts in zip(("used", "plan", "core", "want"), rec.counted, strict=True):
            if amounts:
                self.tree.add(leaf, account, amounts, sign)
        self._count_user(rec, leaf, sign)

    def _count_user(self, rec: JobRec, leaf: QueueNode, sign: int) -> None:
        if rec.spec.user and rec.counted[0]:
            owner = (leaf.name, rec.spec.user)
            self.user_used[owner] = self.user_used.get(owner, 0) + sign * rec.counted[0][0][1]
        if leaf.spec.user_limit:
            for key, amount in rec.counted[1]:
                at = (leaf.name, rec.spec.user, key)
                self.user_plan[at] = self.user_plan.get(at, 0) + sign * amount

    def _index(self, rec: JobRec) -> None:
        job_id = rec.spec.id
        for index, member in ((self.claimants, bool(rec.claim)), (self.leavers, bool(rec.leaving))):
            (index.add if member else index.discard)(job_id)
        members = self.holding.setdefault(rec.spec.queue, set())
        (members.add if rec.places or rec.leaving else members.discard)(job_id)
        nodes = frozenset(place.node for place in (*rec.places, *rec.leaving, *rec.claim))
        if nodes != rec.at_nodes:
            for node_id in rec.at_nodes - nodes:
                self.on_node[node_id].discard(job_id)
            for node_id in nodes - rec.at_nodes:
                self.on_node.setdefault(node_id, set()).add(job_id)
            rec.at_nodes = nodes

    def forget(self, rec: JobRec) -> None:
        """The job is over: nothing of it is held or promised any more."""
        if rec.claim:
            self.withdraw(rec)
        if rec.places or rec.leaving:
            self.release_all(rec)
        del self.jobs[rec.spec.id]
        self.touched.add(rec.spec.id)

    def recount(self, tree: QueueTree) -> None:
        """The queues changed: count everything again."""
        self.tree = tree
        self.user_plan, self.user_used = {}, {}
        for rec in self.jobs.values():
            self._count(rec, 1)

    def recount_wants(self) -> None:
        """What all want who hold something, and what users hold; shares of what there was are void."""
        self.user_plan, self.user_used = {}, {}
        for node in (self.tree.root, *self.tree.by_name.values()):
            node.want, node.entitled, node.secured = {}, {}, {}
        for rec in self.jobs.values():
            leaf = self.tree.by_name[rec.spec.queue]
            self.tree.add(leaf, "want", rec.counted[3], 1)
            self._count_user(rec, leaf, 1)

    def leaf_of(self, rec: JobRec) -> QueueNode:
        return self.tree.by_name[rec.spec.queue]


def _nothing() -> None:
    pass


def without(places: tuple[TaskPlace, ...], gone: Iterable[TaskPlace]) -> tuple[TaskPlace, ...]:
    """`places` minus `gone`, each occurrence once (CPU-only tasks have equal places)."""
    left = list(places)
    for place in gone:
        left.remove(place)
    return tuple(left)


def reason(
    code: ReasonCode, *facts: tuple[str, int | str], blockers: Iterable[str] = (), until: int | None = None
) -> Reason:
    return Reason(code, tuple(sorted(facts)), tuple(blockers)[:8], until)
