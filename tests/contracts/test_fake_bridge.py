"""The fake bridge passes the suite of the real one."""

from __future__ import annotations

from typing import Any

import pytest
from heliostat_scheduler.live.fake_bridge import FakeBridge
from heliostat_scheduler.live.fake_cluster import FakeCluster, FakeNode, Program
from heliostat_scheduler.live.protocol import Command, CommandSpec, Fact, Hello, Lease, NodeJoined, SlotRef

from tests.contracts.bridge_conformance import BridgeConformance

PROGRAMS = {
    "wait": Program(),
    "ignore TERM": Program(term_ms=None),
    "exit 0": Program(runs_ms=10),
    "exit 3": Program(runs_ms=10, rc=3),
}


class FakeRig:
    def __init__(self) -> None:
        self.term = 7
        self.cluster = FakeCluster(FakeNode("n" * 20, gpus=2, is_head=True))
        self.bridge = FakeBridge(self.cluster)
        self._facts: list[Fact] = []
        self.bridge.send(Hello(1, self.term))

    def send(self, command: Command) -> None:
        self.bridge.send(command)

    def facts(self) -> list[Fact]:
        self._facts += self.bridge.take()
        return self._facts

    def until(self, kind: type[Any], *, since: int = 0, **match: Any) -> Any:
        for _ in range(300):
            for fact in self.facts()[since:]:
                if isinstance(fact, kind) and all(getattr(fact, key) == value for key, value in match.items()):
                    return fact
            self.cluster.advance(100)
        raise AssertionError(f"no {kind.__name__} {match} within 30 virtual seconds; heard {self._facts[since:]}")

    def sleep(self, ms: int) -> None:
        self.cluster.advance(ms)

    def slots(self) -> list[SlotRef]:
        return list(next(f for f in reversed(self.facts()) if isinstance(f, NodeJoined)).slots)

    def joined(self) -> NodeJoined:
        return next(f for f in reversed(self.facts()) if isinstance(f, NodeJoined))

    def wanted(self) -> dict[str, int]:
        return self.cluster.wanted

    def node(self) -> str:
        return "n" * 20

    def command(self, job: str, does: str) -> CommandSpec:
        self.cluster.programs[job] = PROGRAMS[does]
        return CommandSpec(("true",))

    def lease(self, job: str, secret: str) -> Lease:
        return self.cluster.lease(job, secret)

    def ack(self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any]) -> None:
        self.cluster.ack(job, secret, epoch, what, facts)

    def report(self, job: str, secret: str, facts: dict[str, Any]) -> None:
        self.cluster.report(job, secret, facts)

    def occupy(self, slot: SlotRef, name: str, *, job: str, attempt: int) -> None:
        self.cluster.occupy(slot.slot, name, job=job, attempt=attempt)

    def vacate(self, name: str) -> None:
        self.cluster.vacate(name)

    def alive(self, name: str) -> bool:
        return name in self.cluster.occupants

    def restart_bridge(self) -> None:
        self.facts()
        self.bridge.close()
        self.bridge = FakeBridge(self.cluster)

    def kill_board(self) -> None:
        self.cluster.kill_board()

    def crash_command(self, job: str, attempt: int) -> None:
        self.cluster.crash_child(job, attempt)


@pytest.fixture
def rig() -> FakeRig:
    return FakeRig()


class TestFakeBridge(BridgeConformance):
    pass


def test_a_runner_that_will_not_die_is_slot_trouble_until_it_does(rig: FakeRig) -> None:
    from heliostat_scheduler.live.protocol import HardStop, PutLease, SlotTrouble

    slot = rig.slots()[0]
    rig.send(PutLease(2, 7, Lease("j", 1, 1, "ray", "run", "s", 1, (slot,))))
    rig.cluster.occupy(slot.slot, "zombie", job="j", attempt=1, stubborn=True)
    rig.send(HardStop(3, 7, "j", 2))
    assert not rig.until(SlotTrouble, slot=slot.slot).ok
    rig.vacate("zombie")
    assert rig.until(SlotTrouble, slot=slot.slot, ok=True)
