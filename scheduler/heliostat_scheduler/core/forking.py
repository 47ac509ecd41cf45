"""A copy of a state, for simulation: what can be shared (frozen records) is shared.

A *fork* is independent. A *branch* copies the record of a job, and a group of waiting jobs, when somebody first looks at it, so it costs
little however many jobs there are, and is good only as long as nobody changes the state that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from heliostat_scheduler.core.book import Book, JobRec
from heliostat_scheduler.core.copies import Copies
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.tree import QueueTree
from heliostat_scheduler.core.waiting import Waiting

_values: Callable[[JobRec], tuple[Any, ...]] = attrgetter(*(field.name for field in fields(JobRec)))  # Any: its fields


def copy_of(rec: JobRec) -> JobRec:
    """Equal and independent; copy.copy costs five times as much."""
    return JobRec(*_values(rec))


def fork_state(state: State) -> State:
    return _twin(state, {job_id: copy_of(rec) for job_id, rec in _all(state.book.jobs)}, state.waiting.copy())


def branch_state(state: State) -> State:
    twin = _twin(state, Copies(state.book.jobs, copy_of), state.waiting.branch())
    # what was looked up about leases stays true until one of them changes
    twin.book.version, twin.book.leaf_version = state.book.version, state.book.leaf_version.copy()
    twin.book.changes = {queue: changes.copy() for queue, changes in state.book.changes.items()}
    twin.book.forgotten = state.book.forgotten.copy()
    twin.pools, twin.largest_holders = state.pools.copy(), state.largest_holders.copy()
    return twin


def _all(jobs: dict[str, JobRec]) -> Iterator[tuple[str, JobRec]]:
    return jobs.everything() if isinstance(jobs, Copies) else iter(jobs.items())


def _twin(state: State, jobs: dict[str, JobRec], waiting: Waiting) -> State:
    twin = State(state.policy, ())
    twin.book = _twin_of_book(state.book, jobs)
    twin.waiting = waiting
    twin.cycle, twin.now_ms = state.cycle, state.now_ms
    twin.stale, twin.recheck_at = state.stale, state.recheck_at
    twin.timers = state.timers.copy()
    twin.attention, twin.elastic = state.attention.copy(), state.elastic.copy()
    twin.dependents = {job_id: members.copy() for job_id, members in state.dependents.items()}
    twin.failed = state.failed.copy()
    twin.flavors, twin.structure, twin.restructure = state.flavors, state.structure, state.restructure
    twin.mix, twin.searched = state.mix, state.searched.copy()
    twin.node_pools = state.node_pools.copy()
    twin.set_coming(state.coming)
    twin.watch_book()
    twin.clock = state.clock
    twin.usage_at = state.usage_at
    twin.user_usage, twin.user_steps = state.user_usage.copy(), state.user_steps.copy()
    twin.revocable = {job_id: members.copy() for job_id, members in state.revocable.items()}
    twin.idle, twin.losses = state.idle.copy(), state.losses.copy()
    twin.entitled_before = state.entitled_before
    return twin


def _twin_of_book(book: Book, jobs: dict[str, JobRec]) -> Book:
    twin = Book(_twin_of_tree(book.tree))
    twin.jobs = jobs
    twin.nodes = {node_id: replace(rec) for node_id, rec in book.nodes.items()}
    twin.blocked, twin.slot_home = book.blocked.copy(), book.slot_home.copy()
    twin.now, twin.soon = book.now.copy(), book.soon.copy()
    twin.capacity, twin.unmeasured = book.capacity.copy(), book.unmeasured
    twin.on_node = {node_id: members.copy() for node_id, members in book.on_node.items()}
    twin.holding = {queue: members.copy() for queue, members in book.holding.items()}
    twin.claimants, twin.leavers = book.claimants.copy(), book.leavers.copy()
    twin.user_plan, twin.user_used = book.user_plan.copy(), book.user_used.copy()
    twin.nodes_touched = set(book.nodes)  # of the jobs a digest of another state begins with all
    return twin


def _twin_of_tree(tree: QueueTree) -> QueueTree:
    twin = QueueTree(tree.specs)
    for old, new in ((tree.root, twin.root), *((node, twin.by_name[name]) for name, node in tree.by_name.items())):
        new.used, new.plan, new.core, new.want = old.used.copy(), old.plan.copy(), old.core.copy(), old.want.copy()
        new.entitled, new.usage, new.pull = old.entitled.copy(), old.usage.copy(), old.pull.copy()
    return twin
