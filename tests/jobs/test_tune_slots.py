"""Tune's resource manager inside a lease: a trial's GPU is a claim at the slot broker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from heliostat_jobs.errors import UndeclaredGPU
from heliostat_jobs.slots.access import SlotAccess
from heliostat_jobs.slots.ledger import SlotLedger, Wish
from heliostat_jobs.tune import slot_resources
from heliostat_jobs.tune.slot_resources import AcquiredSlot, LeaseResourceManager
from heliostat_jobs.tune.tune_private import ResourceRequest
from heliostat_scheduler.live.protocol import RUN, Lease, SlotRef

WHOLE, HALF = ResourceRequest([{"CPU": 1, "GPU": 1}]), ResourceRequest([{"GPU": 0.5}])
GROUP = "ab" * 18


class Broker:
    """The broker's ledger without its actor."""

    def __init__(self, slots: int) -> None:
        refs = tuple(SlotRef(f"n/{n}", GROUP, "n", n) for n in range(slots))
        self.book = SlotLedger(Lease("job", 1, 1, "ray", RUN, "secret", slots, refs))

    def lease(self) -> Lease:
        return self.book.lease

    def keep(self, *numbers: int) -> None:
        """The next lease, of these slots only."""
        old = self.book.lease
        self.book.resize(replace(old, epoch=old.epoch + 1, slots=tuple(old.slots[n] for n in numbers)))

    def ask(self, method: str, *args: Any) -> Any:
        if method == "release":
            return self.book.release(args[0])
        if method == "move":
            moved = self.book.move(args[0])
            return tuple(ref for ref in self.book.lease.slots if ref.slot in moved)
        raise AssertionError(method)

    def try_claim(self, claim_id: str, share: int) -> Any:
        claim = self.book.claim(claim_id, "", "", Wish(1, 1, share))
        if not claim.wanted:
            self.book.release(claim.id)
        return tuple(ref for ref in self.book.lease.slots if ref.slot in claim.wanted) or None


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_resources, "ASK_EVERY_S", 0.0)


def manager(slots: int, asked: list[str] | None = None, broker: Broker | None = None) -> LeaseResourceManager:
    told = asked if asked is not None else []
    return LeaseResourceManager(cast(SlotAccess, broker or Broker(slots)), lambda gpus: told.append("demand"))


def acquire(resources: LeaseResourceManager, request: Any) -> AcquiredSlot | None:
    resources.request_resources(request)
    return resources.acquire_resources(request) if resources.has_resources_ready(request) else None


def test_trials_get_different_slots_and_the_third_waits() -> None:
    resources = manager(2)
    first, second, third = (acquire(resources, WHOLE) for _ in range(3))
    assert first is not None
    assert second is not None
    assert (first.slot.slot, second.slot.slot, third) == ("n/0", "n/1", None)
    resources.free_resources(first)
    assert resources.has_resources_ready(WHOLE)
    assert resources.acquire_resources(WHOLE).slot.slot == "n/0"


def test_two_halves_share_a_slot() -> None:
    resources = manager(1)
    halves = [acquire(resources, HALF) for _ in range(3)]
    assert [half is not None for half in halves] == [True, True, False]


def test_a_slot_that_was_ready_but_not_used_is_given_back() -> None:
    resources = manager(1)
    resources.request_resources(WHOLE)
    assert resources.has_resources_ready(WHOLE)
    resources.give_up_ready()
    assert resources.held == {}
    assert resources.has_resources_ready(WHOLE)
    resources.cancel_resource_request(WHOLE)
    assert resources.held == {}
    assert not resources.has_resources_ready(WHOLE)


def test_the_better_trial_keeps_its_place_while_it_moves() -> None:
    """The worse trial sits in the one slot that is left; nobody else gets that place between the end of the one process and the next."""
    broker = Broker(2)
    resources = manager(2, broker=broker)
    worse, better = acquire(resources, WHOLE), acquire(resources, WHOLE)
    assert worse is not None and better is not None
    broker.book.claims[worse.claim].owner, broker.book.claims[better.claim].owner = "worse", "better"
    broker.book.rank(["better", "worse"])
    broker.keep(0)
    resources.request_resources(WHOLE)
    assert not resources.has_resources_ready(WHOLE)
    resources.free_resources(better)
    assert broker.book.outside() == {} and not broker.book.claims[worse.claim].wanted
    moved = resources.acquire_resources(WHOLE)
    assert (moved.claim, moved.slot.slot) == (better.claim, "n/0")
    resources.request_resources(WHOLE)
    resources.free_resources(worse)
    assert not resources.has_resources_ready(WHOLE)
    resources.free_resources(moved)
    assert resources.acquire_resources(WHOLE).slot.slot == "n/0"


def test_a_trial_that_moves_but_is_over_leaves_its_place_to_nobody_when_nobody_waits() -> None:
    broker = Broker(2)
    resources = manager(2, broker=broker)
    acquire(resources, WHOLE)
    second = acquire(resources, WHOLE)
    assert second is not None
    broker.keep(0)
    resources.free_resources(second)
    assert len(resources.held) == len(broker.book.claims) == 1


def test_the_end_of_a_search_frees_everything() -> None:
    resources = manager(2)
    acquire(resources, WHOLE)
    acquire(resources, WHOLE)
    resources.clear()
    assert resources.held == {}


def test_the_demand_is_told_once_before_the_first_trial() -> None:
    asked: list[str] = []
    resources = manager(2, asked)
    acquire(resources, WHOLE)
    acquire(resources, WHOLE)
    assert asked == ["demand"]


def test_a_lease_without_gpus_is_an_error_not_a_wait() -> None:
    with pytest.raises(UndeclaredGPU):
        manager(0).request_resources(WHOLE)
