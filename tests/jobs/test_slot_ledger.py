"""The book of a job's slots: where a task goes, which claim gets what, and who is told when the lease changes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from heliostat_jobs.slots.ledger import SlotLedger, Wish, allocate
from heliostat_scheduler.live.protocol import PREEMPT, RUN, Lease, SlotRef

A, B, C, D = "n/0", "n/1", "n/2", "n/3"


def lease(*slots: str, epoch: int = 1, order: str = RUN, deadline_ms: int = 0) -> Lease:
    refs = tuple(SlotRef(slot, f"group-{slot}", "node", n) for n, slot in enumerate(slots))
    return Lease("job", 1, epoch, "ray", order, "secret", len(refs), refs, deadline_ms)


def book(*slots: str) -> SlotLedger:
    return SlotLedger(lease(*slots))


def slot_of(ledger: SlotLedger, amount: int = 1000, stays: bool = False) -> str:
    found = ledger.pick(amount, "", stays, 0.0)
    assert found is not None
    return found[1]


ONE, TWO, ANY, HALF = Wish(1, 1), Wish(2, 2), Wish(1, 4), Wish(1, 1, 500)


@pytest.mark.parametrize(
    ("slots", "claims", "grow", "expected"),
    [
        pytest.param([A, B], [ONE, ONE, ONE], False, [(A,), (B,), ()], id="first come, first served"),
        pytest.param([A, B], [TWO, ONE], False, [(A, B), ()], id="a fixed claim keeps its size"),
        pytest.param([A, B, C, D], [ANY], False, [(A, B, C, D)], id="a range alone takes everything"),
        pytest.param([A, B, C, D], [ANY, ANY], False, [(A, C), (B, D)], id="two ranges share evenly"),
        pytest.param([A], [HALF, HALF, HALF], False, [(A,), (A,), ()], id="two halves share a slot"),
        pytest.param([A, B], [HALF, ONE, HALF], False, [(A,), (B,), (A,)], id="a half goes where a half is"),
        pytest.param([A], [TWO, ONE], False, [(), (A,)], id="who cannot fit does not block the others"),
        pytest.param([A, B, C], [(ANY, (A,)), ONE], False, [(A,), (B,)], id="a holder does not grow by itself"),
        pytest.param([A, B, C], [(ANY, (A,)), ONE], True, [(A, C), (B,)], id="a grown lease goes to the holder that can use it"),
        pytest.param([A, B], [(ANY, (A, B)), ONE], False, [(A,), (B,)], id="a newcomer shrinks who has more than its minimum"),
        pytest.param([B], [(ONE, (A,)), (ONE, (B,))], False, [(B,), ()], id="the better trial moves, the worse one pauses"),
        pytest.param([B, C], [(ONE, (B,)), (ONE, (A,))], False, [(B,), (C,)], id="held slots are kept"),
        pytest.param([], [(ONE, (A,))], False, [()], id="no slots, nothing"),
    ],
)  # fmt: skip
def test_allocate(slots: list[str], claims: list[object], grow: bool, expected: list[tuple[str, ...]]) -> None:
    rows: Any = [(str(n), *(c if isinstance(c, tuple) else (c, ()))) for n, c in enumerate(claims)]
    given = allocate(slots, rows, grow)
    assert [given[str(n)] for n in range(len(claims))] == expected


def test_a_task_goes_where_the_fewest_wait() -> None:
    ledger = book(A, B)
    assert [slot_of(ledger) for _ in range(4)] == [A, B, A, B]
    ledger.done([1, 3])
    assert [slot_of(ledger), slot_of(ledger)] == [A, A]


def test_halves_are_spread_before_they_share() -> None:
    ledger = book(A, B)
    assert [slot_of(ledger, 500) for _ in range(4)] == [A, B, A, B]


def test_nobody_queues_behind_an_actor_while_there_is_another_slot() -> None:
    ledger = book(A, B)
    assert slot_of(ledger, stays=True) == A
    assert [slot_of(ledger) for _ in range(3)] == [B, B, B]
    assert slot_of(ledger, stays=True) == B


def test_halves_of_actors_fill_the_slots_whatever_tasks_are_counted() -> None:
    ledger = book(A, B)
    slot_of(ledger)
    assert sorted(slot_of(ledger, 500, stays=True) for _ in range(4)) == [A, A, B, B]


def test_a_task_avoids_the_slots_of_claims() -> None:
    ledger = book(A, B)
    ledger.claim("c", "trial", "", ONE)
    assert [slot_of(ledger), slot_of(ledger)] == [B, B]


def test_only_the_slots_of_the_node() -> None:
    ledger = book(A)
    assert ledger.pick(1000, "another", False, 0.0) is None
    assert ledger.pick(1000, "node", False, 0.0) == (1, A)


def test_an_actor_counts_until_it_is_dead() -> None:
    ledger = book(A, B)
    slot_of(ledger, stays=True)
    ledger.bind(1, "actor-1")
    ledger.bury({"actor-1"}, before_s=1.0)
    ledger.bury(set(), before_s=0.0)
    assert ledger.pending() == {A: 1000, B: 0}, "alive, or too young to be in the table"
    ledger.bury(set(), before_s=1.0)
    assert ledger.pending() == {A: 0, B: 0}


def test_tasks_of_another_process_are_over_when_ray_shows_their_slot_unused() -> None:
    ledger = book(A, B)
    for now_s in (1.0, 2.0, 9.0):
        ledger.pick(1000, "", False, now_s)
    ledger.are_free([A], before_s=5.0)
    assert ledger.pending() == {A: 1000, B: 1000}, "the one placed just now may not be seen by Ray yet"
    ledger.are_free([A, B], before_s=10.0)
    assert ledger.pending() == {A: 0, B: 0}


def test_a_shrunk_lease_pauses_the_worst_trial_and_growth_resumes_it() -> None:
    ledger = book(A, B)
    ledger.claim("c1", "bad", "", ONE)
    ledger.claim("c2", "good", "", ONE)
    ledger.rank(["good", "bad"])
    ledger.resize(lease(A, epoch=2, deadline_ms=99))
    bad, good = ledger.lease_of("c1"), ledger.lease_of("c2")
    assert bad is not None
    assert good is not None
    assert (bad.order, bad.epoch, bad.deadline_ms) == (PREEMPT, 2, 99)
    assert (good.order, [ref.slot for ref in good.slots]) == (RUN, [A])
    assert ledger.outside() == {B: ["good"]}
    ledger.released("c2", 2)
    ledger.released("c1", 2)
    assert ledger.outside() == {}
    ledger.resize(lease(A, B, epoch=3))
    bad = ledger.lease_of("c1")
    assert bad is not None
    assert (bad.order, bad.epoch, [ref.slot for ref in bad.slots]) == (RUN, 3, [B])


def test_a_preempted_job_pauses_every_claim() -> None:
    ledger = book(A)
    ledger.claim("c", "trial", "", ONE)
    ledger.resize(replace(lease(A, epoch=2), order=PREEMPT))
    assert ledger.outside() == {A: ["trial"]}
    ledger.released("c", 2)
    assert ledger.outside() == {}


def test_an_ack_of_an_older_order_frees_nothing() -> None:
    ledger = book(A, B)
    ledger.claim("c", "trial", "", ONE)
    ledger.resize(lease(B, epoch=2))
    ledger.released("c", 1)
    assert ledger.outside() == {A: ["trial"]}


def test_the_end_of_a_claim_lets_the_next_one_in() -> None:
    ledger = book(A)
    ledger.claim("c1", "one", "actor-1", ONE)
    ledger.claim("c2", "two", "actor-2", ONE)
    assert [claim.wanted for claim in ledger.claims.values()] == [(A,), ()]
    ledger.bury({"actor-2"}, before_s=1.0)
    assert [claim.wanted for claim in ledger.claims.values()] == [(A,)]
    assert ledger.lease_of("c1") is None


def test_a_claim_ends_with_its_process_but_not_before_that_can_be_in_the_table() -> None:
    """A search in a remote function that died and is tried again finds its slots free."""
    ledger = book(A)
    ledger.claim("trial-1", "t1", "worker-1", ONE, 5.0)
    ledger.claim("trial-2", "", "worker-2", ONE, 6.0)
    ledger.bury({"worker-2"}, before_s=5.0)
    assert ledger.claims["trial-1"].wanted == (A,)
    ledger.bury({"worker-2"}, before_s=8.0)
    assert [(claim.id, claim.wanted) for claim in ledger.claims.values()] == [("trial-2", (A,))]


@pytest.mark.parametrize(
    ("slots", "holding", "waiting", "expected"),
    [
        pytest.param([A], ["t1"], [("t1", ONE)], True, id="it holds itself what it waits for"),
        pytest.param([A, B], ["t1"], [("t1", TWO)], True, id="one is free, and it never gets the other"),
        pytest.param([A, B], ["t1", "t2"], [("t1", ONE), ("t2", ONE)], True, id="both hold one and wait for one"),
        pytest.param([A, B], ["t1", "t2"], [("t1", ONE)], False, id="the other one comes to its end"),
        pytest.param([A, B], ["t1", ""], [("t1", ONE)], False, id="of a trial that just starts nothing is known"),
        pytest.param([A], ["t1"], [("t1", TWO)], False, id="the lease is too small, and may grow"),
        pytest.param([A, B], ["t1"], [("t1", ONE)], False, id="it has what it asked for"),
    ],
)
def test_whether_a_trainer_waits_for_ever(
    slots: list[str], holding: list[str], waiting: list[tuple[str, Wish]], expected: bool
) -> None:
    ledger = book(*slots)
    for n, owner in enumerate(holding):
        ledger.claim(f"trial-{n}", owner, "", ONE)
    for owner, wish in waiting:
        ledger.claim(f"fit-{owner}", owner, "", wish)
    assert ledger.is_stuck("fit-t1") is expected


def test_an_older_lease_changes_nothing() -> None:
    ledger = book(A, B)
    ledger.resize(lease(A, epoch=1))
    assert len(ledger.lease.slots) == 2


def test_what_the_scheduler_is_told_about_plain_work() -> None:
    ledger = book(A, B)
    for _ in range(3):
        slot_of(ledger)
    ledger.done([1, 1, 99])
    assert ledger.told() == {"step": 1, "gpu_requests_open": 2, "slots_in_use": 2}


def test_a_change_between_claims_has_no_deadline_of_an_older_order() -> None:
    """The lease's deadline is that of its last resize: minutes ago, when a new trial comes and a trainer gives up slots for it."""
    ledger = book(A, B, C, D)
    ledger.claim("c1", "one", "", ANY)
    ledger.resize(lease(A, B, C, epoch=2, deadline_ms=99))
    ledger.released("c1", 2)
    ledger.claim("c2", "two", "", ONE)
    shrunk = ledger.lease_of("c1")
    assert shrunk is not None
    assert (len(shrunk.slots), shrunk.epoch, shrunk.deadline_ms) == (2, 3, 0)


def test_who_is_still_in_a_slot_that_an_order_took_keeps_its_deadline() -> None:
    ledger = book(A, B, C, D)
    ledger.claim("c1", "one", "", ANY)
    ledger.resize(lease(A, B, C, epoch=2, deadline_ms=99))
    ledger.claim("c2", "two", "", ONE)
    shrunk = ledger.lease_of("c1")
    assert shrunk is not None
    assert (len(shrunk.slots), shrunk.deadline_ms) == (2, 99)


def scanned(ledger: SlotLedger, only_staying: bool) -> dict[str, int]:
    """`pending` as a scan of everything, as it was before the sums were kept."""
    pending = {ref.slot: 0 for ref in ledger.lease.slots}
    for load in ledger.loads.values():
        if load.stays or not only_staying:
            pending[load.slot] = pending.get(load.slot, 0) + load.amount
    for claim in ledger.claims.values():
        for slot in {*claim.occupied, *claim.wanted}:
            pending[slot] = pending.get(slot, 0) + claim.wish.share
    return pending


@pytest.mark.parametrize("seed", range(20))
def test_kept_sums_are_what_a_scan_finds(seed: int) -> None:
    dice, ledger, now_s = random.Random(seed), book(A, B, C, D), 0.0
    for step in range(200):
        now_s += 1.0
        match dice.randrange(7):
            case 0 | 1 | 2:
                ledger.pick(dice.choice((250, 500, 1000)), "", dice.random() < 0.3, now_s)
            case 3:
                ledger.done(dice.sample(range(ledger._tokens + 2), min(3, ledger._tokens + 2)))
            case 4:
                ledger.are_free(dice.sample((A, B, C, D), 2), now_s - 3.0)
            case 5:
                ledger.claim(f"c{step}", "", "", ONE) if dice.random() < 0.5 else ledger.release(f"c{step - 9}")
            case 6:
                kept = dice.sample((A, B, C, D), dice.randint(1, 4))
                ledger.resize(lease(*kept, epoch=ledger.lease.epoch + 1))
        for only_staying in (False, True):
            assert ledger.pending(only_staying) == scanned(ledger, only_staying), f"seed {seed}, step {step}"
