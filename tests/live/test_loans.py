"""Who may hold a lent GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_scheduler.live import loans
from heliostat_scheduler.live.occupants import Snapshot
from heliostat_scheduler.live.protocol import Fact, Intruder, Lease, SlotRef
from heliostat_scheduler.live.strays import STRIKES, WITHIN_S, Strays, Strikes, waiting
from heliostat_scheduler.live.tables import ActorRow, NodeRow, WorkerRow
from heliostat_scheduler.live.watchdog import suspects

NODE = "n" * 56
ZERO, ONE = (SlotRef(f"{NODE[:12]}/{device}", f"{device}" * 36, NODE, device) for device in (0, 1))


def loan(*slots: SlotRef, **more: Any) -> Lease:
    fields: dict[str, Any] = {
        "kind": "serve",
        "order": "run",
        "secret": "s",
        "tasks": len(slots),
        "app": "ep-wine-v1",
        **more,
    }
    return Lease("job-1", 1, 1, slots=slots, **fields)


def replica(id: str = "a1", app: str = "ep-wine-v1", device: int = 0, pid: int = 1, **more: Any) -> ActorRow:
    fields: dict[str, Any] = {
        "name": f"SERVE_REPLICA::{app}#Version#x{id}", "namespace": "serve", "class_name": "ServeReplica", "state": "ALIVE",
        "job_id": "01", "node": NODE, "pid": pid, "group": "", "requires": {"GPU": 1.0}, "devices": (device,), **more,
    }  # fmt: skip
    return ActorRow(id, **fields)


def accused(actors: list[ActorRow], *leases: Lease) -> set[str]:
    return {suspect.id for suspect in suspects(actors, [], {}, leases, {})}


GUILTY: list[Any] = [
    pytest.param(replica(), set(), id="a replica of the loan's application"),
    pytest.param(replica(app="ep-other-v1"), {"a1"}, id="a replica of another application"),
    pytest.param(
        replica(name="SERVE_REPLICA::ep-wine-v1#V#x", namespace="mine"), {"a1"}, id="one that only has the name"
    ),
    pytest.param(replica(name="stray"), {"a1"}, id="a stray actor"),
    pytest.param(replica(state="PENDING_CREATION", devices=()), set(), id="waiting is no offence"),
]


@pytest.mark.parametrize(("actor", "guilty"), GUILTY)
def test_who_has_a_right_to_a_lent_gpu(actor: ActorRow, guilty: set[str]) -> None:
    assert accused([actor], loan(ZERO)) == guilty


def test_not_more_replicas_than_were_granted() -> None:
    actors = [replica("a2", device=1, pid=20), replica("a1", pid=10)]
    assert accused(actors, loan(ZERO)) == {"a2"}
    assert accused(actors, loan(ZERO, ONE)) == set()
    assert accused(actors, loan(ZERO, leaving=(ONE,))) == set(), "one that still has time to leave"


def test_without_a_loan_nobody_has_a_right() -> None:
    assert accused([replica()]) == {"a1"}
    assert accused([replica()], loan(ZERO, kind="command")) == {"a1"}


def test_who_sits_on_a_device() -> None:
    actors = [replica("a1", device=0), replica("a2", device=1), replica("a3", device=0, node="m" * 56)]
    assert [actor.id for actor in loans.sitting_on(actors, [ONE])] == ["a2"]
    assert [actor.id for actor in loans.sitting_on(actors, [ZERO])] == ["a1"]


PENDING: dict[str, Any] = {"state": "PENDING_CREATION", "devices": (), "pid": 0}
WAITING: list[Any] = [
    pytest.param(replica(**PENDING), set(), id="a replica of the loan's application waits by right"),
    pytest.param(replica(app="ep-other-v1", **PENDING), {"a1"}, id="a replica without a loan"),
    pytest.param(replica(name="stray", namespace="x", **PENDING), {"a1"}, id="a stray"),
    pytest.param(replica(name="stray", **{**PENDING, "state": "ALIVE"}), set(), id="whoever has one is the watchdog's affair"),
    pytest.param(replica(name="w", group="f" * 36, **PENDING), set(), id="a worker that waits for its slot"),
    pytest.param(replica(name="cpu", requires={"CPU": 1.0}, **PENDING), set(), id="an actor without a GPU"),
]  # fmt: skip


@pytest.mark.parametrize(("actor", "refused"), WAITING)
def test_who_may_wait_for_a_gpu_while_one_is_lent(actor: ActorRow, refused: set[str]) -> None:
    assert {row.id for row in waiting([actor], [loan(ZERO)])} == refused


def test_a_program_that_never_stops_asking_runs_out_of_strikes() -> None:
    now = [0.0]
    strikes = Strikes(lambda: now[0])
    for _ in range(STRIKES - 1):
        assert strikes.out(["01", "02"]) == []
        now[0] += 1
    assert strikes.out(["01"]) == ["01"], "the other one has not asked again"
    assert strikes.out(["01"]) == [], "and begins anew"


def test_a_program_that_asks_now_and_then_is_left_alone() -> None:
    now = [0.0]
    strikes = Strikes(lambda: now[0])
    for _ in range(5 * STRIKES):
        assert strikes.out(["01"]) == []
        now[0] += WITHIN_S / (STRIKES - 2)


class Tables:
    """Ray's tables, as far as strays are concerned: who was killed, and one driver."""

    def __init__(self) -> None:
        self.killed: list[str] = []

    async def kill_actor(self, actor_id: str) -> None:
        self.killed.append(actor_id)

    async def workers(self, raylet: str) -> list[WorkerRow]:
        return [WorkerRow(4711, "", "07", (), driver=True), WorkerRow(4712, "", "08", (), driver=True)]


class Reaper:
    def __init__(self) -> None:
        self.ended: list[tuple[str, int]] = []

    async def end_driver(self, node: str, pid: int) -> bool:
        self.ended.append((node, pid))
        return True


async def test_a_stray_is_refused_while_there_is_a_loan_and_its_program_ended_at_last() -> None:
    tables, reaper, ledger, said = Tables(), Reaper(), SimpleNamespace(leases={}), list[Fact]()
    parts: Any = (tables, reaper, ledger, said.append)
    strays = Strays(*parts)
    nodes = {NODE: NodeRow(NODE, "10.0.0.1", "10.0.0.1:1", {}, {})}

    def seen(number: int) -> Snapshot:
        stray = replica(f"s{number}", name="stray", namespace="x", job_id="07", **PENDING)
        return Snapshot(0.0, nodes, (stray, replica("mine", **PENDING)), {})

    assert not await strays.refuse(seen(0)) and tables.killed == [], "waiting is harmless while nothing is lent"
    ledger.leases["job-1"] = loan(ZERO)
    for number in range(STRIKES):
        assert await strays.refuse(seen(number))
    assert tables.killed == [f"s{number}" for number in range(STRIKES)], "never the loan's own replica"
    assert reaper.ended == [(NODE, 4711)], "the program of its Ray job, once"
    whats = [fact.what for fact in said if isinstance(fact, Intruder)]
    assert whats == ["request"] * STRIKES + ["driver"]
