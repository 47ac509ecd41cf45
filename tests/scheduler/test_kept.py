"""What the engine keeps from cycle to cycle is what it would find out anew, whatever has happened meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from heliostat_scheduler.core import book
from heliostat_scheduler.core.book import Book, JobRec
from heliostat_scheduler.core.digest import Digest
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.harm import safe_until
from heliostat_scheduler.core.pools import NOBODY, Pool, pool_in, pool_of
from heliostat_scheduler.core.protection import safe_times
from heliostat_scheduler.core.shortage import Shortage
from heliostat_scheduler.core.state import State
from heliostat_scheduler.core.structure import Structure
from heliostat_scheduler.core.victims import LeafVictims, Victim, VictimIndex

from tests.scheduler.storm import ACTIONS, Storm

Faulty = Callable[[pytest.MonkeyPatch], None]
STEPS = 60


def storm(seed: int) -> None:
    rng = random.Random(seed)
    made = Storm(rng.choice, frozenset())
    for _ in range(STEPS):
        made.act(rng.choice(ACTIONS))
        compare(made.world.engine)


def compare(engine: Engine) -> None:
    state = engine.state
    flavors = ("", *sorted(state.book.now.by_whole))
    for leaf in state.book.tree.leaves:
        assert safe_times(state, leaf) == sorted(safe_until(rec, state.policy) for rec in state.holders(leaf.name))
        for flavor in flavors:
            jobs = state.holders(leaf.name)
            mine = [
                rec
                for rec in jobs
                if bool(rec.spec.shape.gpu_milli) == bool(flavor) and rec.flavor == (flavor or rec.flavor)
            ]
            assert told(pool_in(state, leaf, flavor)) == told(pool_of(jobs, flavor)) == counted(mine)
            kept = VictimIndex(state, state.now_ms).of(leaf, flavor)
            state.victims = {key: found for key, found in state.victims.items() if key != (leaf.name, flavor)}
            anew = VictimIndex(state, state.now_ms).of(leaf, flavor)
            assert listed(kept) == listed(anew)
            state.victims[leaf.name, flavor] = kept
    for flavor in flavors:
        assert Shortage(state)._holders_by_size(flavor) == by_size(state, flavor)
    assert engine.digest() == Digest().of(engine.fork().state)
    if not state.restructure:
        structure = Structure(state.book.nodes, state.book.blocked, tuple(state.node_pools.values()))
        for line in state.waiting.lines.values():
            for group in line.groups.values():
                if group.judged_for is state.structure:
                    spec, tried = group.spec, tuple(choice.flavor for choice in group.choices)
                    assert group.choices == structure.choices(spec.shape, spec.min_tasks, spec.spread, tried)


def told(pool: Pool) -> tuple[object, ...]:
    classes = sorted({*pool.whole, *pool.spare})
    sums = [
        (pool.whole.get(p, 0), pool.spare.get(p, 0), pool.rank.get(p, 0), pool.gives(p), pool.beaten(p, 5_000))
        for p in classes
    ]
    return pool.evict, pool.surplus, pool.most, pool.biggest, [row for row in sums if any(row[:2])]


def counted(jobs: list[JobRec]) -> tuple[object, ...]:
    """As `told`, from nothing but the definition."""
    whole = [rec for rec in jobs if evicts(rec)]
    spare = {rec.id: rec.spec.shape.gpu_milli * surplus(rec) for rec in jobs if surplus(rec)}
    held = {rec.id: rec.spec.shape.gpu_milli * len(rec.places) for rec in whole}
    pieces = [*held.values(), *(rec.spec.shape.gpu_milli for rec in jobs if rec.id in spare and rec.id not in held)]
    rows = []
    for priority in sorted({rec.spec.priority for rec in jobs}):
        mine = [rec for rec in jobs if rec.spec.priority == priority]
        row = (
            sum(held.get(rec.id, 0) for rec in mine),
            sum(spare.get(rec.id, 0) for rec in mine),
            max((rec.rank for rec in mine if rec.id in held), default=0),
            sum(held.get(rec.id, 0) for rec in jobs if rec.spec.priority < priority)
            + sum(spare.get(rec.id, 0) for rec in jobs if rec.spec.priority <= priority),
            sum(held.get(rec.id, 0) for rec in mine if rec.rank >= 5_000),
        )
        rows += [row] if any(row[:2]) else []
    return (
        min((rec.spec.priority for rec in whole), default=NOBODY),
        min((rec.spec.priority for rec in jobs if rec.id in spare), default=NOBODY),
        sum(held.values()) + sum(milli for name, milli in spare.items() if name not in held),
        max(pieces, default=0),
        rows,
    )


def evicts(rec: JobRec) -> bool:
    return (
        rec.phase in ("starting", "running", "resizing")
        and bool(rec.places)
        and rec.spec.preemptibility == "preemptible"
    )


def surplus(rec: JobRec) -> int:
    grown = rec.phase == "running" and rec.spec.elastic and not rec.claim
    return max(0, len(rec.places) - rec.spec.min_tasks) if grown else 0


def listed(found: LeafVictims) -> list[tuple[object, ...]]:
    rows = [(victim.rec, victim.safe_until, victim.whole, victim.surplus) for victim in found.jobs]
    everybody = found.in_question(10_000, 0, lower=True, surplus=True)
    assert [victim.rec.id for victim in everybody] == [row[0].id for row in rows] == found.names
    assert found.protected(5_000) == sum(row[1] > 5_000 for row in rows)
    return [(row[0].id, *row[1:]) for row in rows]


def by_size(state: State, flavor: str) -> list[str]:
    jobs = [rec for rec in state.book.jobs.values() if rec.places and bool(rec.spec.shape.gpu_milli) == bool(flavor)]
    jobs = [rec for rec in jobs if rec.flavor == (flavor or rec.flavor)]
    return [
        rec.id for rec in sorted(jobs, key=lambda rec: (-len(rec.places) * max(rec.spec.shape.gpu_milli, 1), rec.id))
    ][:8]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_kept_stays_true(seed: int) -> None:
    storm(seed)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_stays_true_when_few_changes_are_remembered(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "CHANGES_KEPT", 2)
    storm(seed)


def changes_are_missed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "changed_since", lambda *_: [])


def forgotten_changes_are_missed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book, "CHANGES_KEPT", 1)
    known = Book.changed_since

    def all_of_them(self: Book, queue: str, _version: int) -> list[str] | None:
        self.forgotten.clear()
        return known(self, queue, _version)

    patch.setattr(Book, "changed_since", all_of_them)


def some_events_say_nothing(patch: pytest.MonkeyPatch) -> None:
    known = Book.bump

    def sometimes(self: Book, rec: JobRec) -> None:
        if rec.epoch % 3:
            known(self, rec)

    patch.setattr(Book, "bump", sometimes)


def victims_stay(patch: pytest.MonkeyPatch) -> None:
    known = LeafVictims.put

    def adds_only(self: LeafVictims, job_id: str, victim: Victim | None) -> None:
        if victim is not None:
            known(self, job_id, victim)

    patch.setattr(LeafVictims, "put", adds_only)


@pytest.mark.parametrize(
    "fault", [changes_are_missed, forgotten_changes_are_missed, some_events_say_nothing, victims_stay]
)
def test_what_is_no_longer_true_is_found(fault: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail."""
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in range(6):
            storm(seed)
