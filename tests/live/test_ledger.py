"""Which lease commands are still valid: one line per case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from heliostat_scheduler.live import protocol as p
from heliostat_scheduler.live.ledger import Ledger, Refused
from heliostat_scheduler.live.protocol import Lease, SlotRef

SLOTS = {name: SlotRef(name, "g" + name, "n", int(name)) for name in "012"}
LEASE = Lease("job", 1, 3, "ray", p.RUN, "s", 1, (SLOTS["0"],))


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.greet(1, ())
    ledger.put(LEASE, SLOTS)
    return ledger


@pytest.mark.parametrize(
    ("lease", "code"),
    [
        pytest.param(LEASE, "", id="the same again"),
        pytest.param(replace(LEASE, epoch=4, order=p.PREEMPT), "", id="an order under a raised epoch"),
        pytest.param(replace(LEASE, epoch=4, slots=(SLOTS["0"], SLOTS["1"])), "", id="more slots under a raised epoch"),
        pytest.param(replace(LEASE, epoch=2), p.STALE_EPOCH, id="an older epoch"),
        pytest.param(replace(LEASE, order=p.STOP), p.STALE_EPOCH, id="other content under the same epoch"),
        pytest.param(
            replace(LEASE, epoch=4, attempt=2), p.SLOT_LEASED, id="the next attempt before this one was freed"
        ),
        pytest.param(replace(LEASE, job="b"), p.SLOT_LEASED, id="a slot of another lease"),
        pytest.param(replace(LEASE, job="b", slots=(SlotRef("9", "g", "n", 9),)), p.UNKNOWN_SLOT, id="no such slot"),
        pytest.param(
            replace(LEASE, job="b", slots=(replace(SLOTS["1"], group="old"),)),
            p.UNKNOWN_SLOT,
            id="a slot made anew since",
        ),
    ],
)
def test_put(ledger: Ledger, lease: Lease, code: str) -> None:
    if not code:
        ledger.put(lease, SLOTS)
        assert ledger.leases[lease.job] == lease
        return
    with pytest.raises(Refused) as refused:
        ledger.put(lease, SLOTS)
    assert refused.value.code == code
    assert ledger.leases == {"job": LEASE}


def test_a_revoked_lease_can_not_be_granted_again_until_it_is_freed(ledger: Ledger) -> None:
    ledger.revoke("job", 5)
    with pytest.raises(Refused):
        ledger.put(replace(LEASE, epoch=6), SLOTS)
    ledger.forget("job", 5)
    with pytest.raises(Refused):
        ledger.put(replace(LEASE, epoch=5, attempt=2), SLOTS)
    assert ledger.put(replace(LEASE, epoch=6, attempt=2), SLOTS)


def test_freeing_an_older_epoch_leaves_the_newer_lease(ledger: Ledger) -> None:
    ledger.forget("job", 2)
    assert ledger.leases["job"] == LEASE


def test_commands_before_hello_and_of_other_terms_are_refused(ledger: Ledger) -> None:
    with pytest.raises(Refused) as refused:
        Ledger().check_term(1)
    assert refused.value.code == p.NO_HELLO
    for term in (0, 2):
        with pytest.raises(Refused) as refused:
            ledger.check_term(term)
        assert refused.value.code == p.STALE_TERM


def test_a_cpu_group_is_kept_when_an_order_does_not_name_it(ledger: Ledger) -> None:
    cpu = Lease("cpu", 1, 1, "command", p.RUN, "s", 1, node="n", cpu_milli=1000)
    ledger.put(cpu, SLOTS)
    ledger.set_cpu_group("cpu", "group")
    assert not ledger.put(cpu, SLOTS)
    ledger.put(replace(cpu, epoch=2, order=p.STOP), SLOTS)
    assert ledger.leases["cpu"].cpu_group == "group"
