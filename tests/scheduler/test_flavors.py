"""Work that accepts several flavors: a guarantee on one of them counts, whichever the others are, full or down."""

from __future__ import annotations

import pytest
from heliostat_scheduler.core import Preempt, QueueSpec, ReasonCode, Start
from heliostat_scheduler.core import events as ev

from tests.scheduler.world import FIXED, World, job, node, queue


def _owner(name: str, flavor: str) -> QueueSpec:
    return QueueSpec(name, quota=((flavor, 1_000),))


@pytest.mark.parametrize("first", ["full", "down"])
@pytest.mark.parametrize(
    "borrowers", [_owner("two", "a"), queue("two")], ids=["a quota on the other flavor", "no quota"]
)
def test_who_is_guaranteed_the_only_free_flavor_goes_first(first: str, borrowers: QueueSpec) -> None:
    made = World(
        [node("na", 1, "a"), node("nh", 1, "h")], [_owner("one", "h"), borrowers, _owner("own", "a")], at=1_000
    )
    if first == "full":
        made.submit(job("full", 1, "own", at=1_000, flavors=("a",), preemptibility=FIXED))
        made.settle()
    else:
        made.apply(ev.NodeDown("na"))
    made.submit(job("borrower", 1, "two", at=1_001), job("guaranteed", 1, "one", at=1_002))
    made.now = 3_000
    made.settle()
    assert made.runs("guaranteed") and not made.runs("borrower")
    orders = [order for plan in made.plans for order in plan.decisions if isinstance(order, (Start, Preempt))]
    assert not [order for order in orders if order.job_id == "borrower"], "it was not started only to be stopped again"


def test_a_node_that_is_down_is_forgotten_once_its_last_job_has_left() -> None:
    made = World([node("n0", 4), node("n1", 1)], at=1_000)
    policy = made.engine.state.policy
    made.submit(job("slow", 4))
    made.settle()
    made.apply(ev.NodeDown("n0"))
    made.submit(job("wide", 4, at=made.now))
    made.decide()
    made.now += policy.forget_down_ms + 1
    made.decide()
    assert "n0" in made.engine.state.book.nodes, "somebody is still there"
    made.answer("slow")
    made.settle()
    made.now += policy.stale_gang_ms
    wakeup = made.engine.next_wakeup_ms()
    assert wakeup is not None and wakeup <= made.now
    made.settle()
    why = made.engine.reason("wide")
    assert "n0" not in made.engine.state.book.nodes and why is not None and why.code is ReasonCode.NEVER_FITS
