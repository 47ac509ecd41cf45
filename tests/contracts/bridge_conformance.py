"""What every bridge does, the real one and the fake: one suite, run over both with one fixture `rig`.

A rig hides how time passes and how processes are made; the cases speak of commands and facts only. Each case uses job names of
its own and leaves no lease behind, so that the real bridge can run all of them on one cluster.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Protocol

import pytest
from heliostat_scheduler.live import protocol as p
from heliostat_scheduler.live.protocol import Command, CommandSpec, Fact, Lease, LeaseGone, NodeJoined, SlotRef

_ids = itertools.count(1000)


class Rig(Protocol):
    """A bridge with at least two GPU slots on one node, and the world around it."""

    term: int

    def send(self, command: Command) -> None: ...
    def facts(self) -> list[Fact]: ...
    def until(self, kind: type[Any], *, since: int = 0, **match: Any) -> Any: ...
    def sleep(self, ms: int) -> None: ...
    def slots(self) -> list[SlotRef]: ...
    def node(self) -> str: ...
    def joined(self) -> NodeJoined: ...
    def command(self, job: str, does: str) -> CommandSpec: ...
    def lease(self, job: str, secret: str) -> Lease: ...
    def ack(self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any]) -> None: ...
    def report(self, job: str, secret: str, facts: dict[str, Any]) -> None: ...
    def occupy(self, slot: SlotRef, name: str, *, job: str, attempt: int) -> None: ...
    def vacate(self, name: str) -> None: ...
    def alive(self, name: str) -> bool: ...
    def restart_bridge(self) -> None: ...
    def kill_board(self) -> None: ...
    def crash_command(self, job: str, attempt: int) -> None: ...
    def wanted(self) -> dict[str, int]: ...


def lease_of(rig: Rig, job: str, slots: list[SlotRef], *, kind: str = "ray", **fields: Any) -> Lease:
    given = {"attempt": 1, "epoch": 1, "order": p.RUN, "tasks": max(1, len(slots)), "secret": f"secret-{job}", **fields}
    return Lease(job, kind=kind, slots=tuple(slots), **given)


def ask(rig: Rig, cls: type[Any], **fields: Any) -> p.Reply:
    """Send one command of this class and wait for its Reply."""
    ident = next(_ids)
    rig.send(cls(id=ident, **{"term": rig.term, **fields}))
    reply: p.Reply = rig.until(p.Reply, id=ident)
    return reply


def end(rig: Rig, job: str, epoch: int) -> None:
    since = len(rig.facts())
    assert ask(rig, p.DropLease, job=job, epoch=epoch, grace_ms=0).code == ""
    rig.until(p.Freed, since=since, job=job)


def want(rig: Rig, *wants: p.NodeWant, known: tuple[str, ...] = ()) -> None:
    assert ask(rig, p.WantNodes, wants=wants, known=known).code == ""


class BridgeConformance:
    """Subclass it with a fixture `rig`."""

    # ---- hello -------------------------------------------------------------------------------------------------------

    def test_says_ready_and_its_nodes_before_any_command(self, rig: Rig) -> None:
        kinds = [type(fact) for fact in rig.facts() if isinstance(fact, p.Ready | p.NodeJoined)]
        assert kinds[0] is p.Ready
        assert p.NodeJoined in kinds
        slots = rig.slots()
        assert [slot.device for slot in slots] == sorted({slot.device for slot in slots})
        assert all(slot.slot == f"{slot.node[:12]}/{slot.device}" for slot in slots)

    def test_hello_answers_with_nodes_and_occupied_slots(self, rig: Rig) -> None:
        reply = ask(rig, p.Hello)
        assert reply.code == ""
        assert [slot["slot"] for node in reply.data["nodes"] for slot in node["slots"]] == [s.slot for s in rig.slots()]
        assert reply.data["occupied"] == {}

    def test_refuses_an_older_term(self, rig: Rig) -> None:
        assert ask(rig, p.Hello, term=rig.term - 1).code == p.STALE_TERM
        assert ask(rig, p.PutLease, term=rig.term - 1, lease=lease_of(rig, "older-term", [])).code == p.STALE_TERM

    # ---- leases ------------------------------------------------------------------------------------------------------

    def test_a_lease_is_readable_with_its_secret_only(self, rig: Rig) -> None:
        lease = lease_of(rig, "secret", rig.slots()[:1])
        assert ask(rig, p.PutLease, lease=lease).code == ""
        assert rig.lease("secret", "secret-secret") == lease
        with pytest.raises(LeaseGone):
            rig.lease("secret", "another")
        end(rig, "secret", 1)
        with pytest.raises(LeaseGone):
            rig.lease("secret", "secret-secret")

    def test_the_same_lease_again_has_no_effect_and_an_older_epoch_is_refused(self, rig: Rig) -> None:
        lease = lease_of(rig, "again", rig.slots()[:1], epoch=2)
        assert ask(rig, p.PutLease, lease=lease).code == ""
        assert ask(rig, p.PutLease, lease=lease).code == ""
        assert ask(rig, p.PutLease, lease=replace(lease, epoch=1)).code == p.STALE_EPOCH
        assert ask(rig, p.PutLease, lease=replace(lease, why="other words")).code == p.STALE_EPOCH
        end(rig, "again", 2)

    def test_a_freed_lease_does_not_come_back_with_its_old_epoch(self, rig: Rig) -> None:
        lease = lease_of(rig, "late", rig.slots()[:1])
        ask(rig, p.PutLease, lease=lease)
        end(rig, "late", 1)
        assert ask(rig, p.PutLease, lease=lease).code == p.STALE_EPOCH
        end(rig, "late", 1)

    def test_two_leases_never_share_a_slot(self, rig: Rig) -> None:
        ask(rig, p.PutLease, lease=lease_of(rig, "first", rig.slots()[:1]))
        assert ask(rig, p.PutLease, lease=lease_of(rig, "second", rig.slots()[:1])).code == p.SLOT_LEASED
        end(rig, "first", 1)

    def test_an_unknown_slot_is_refused(self, rig: Rig) -> None:
        wrong = replace(rig.slots()[0], group="0" * 36)
        assert ask(rig, p.PutLease, lease=lease_of(rig, "wrong", [wrong])).code == p.UNKNOWN_SLOT

    def test_an_order_is_a_raised_epoch(self, rig: Rig) -> None:
        lease = lease_of(rig, "order", rig.slots()[:1])
        ask(rig, p.PutLease, lease=lease)
        ask(rig, p.PutLease, lease=replace(lease, epoch=2, order=p.PREEMPT, deadline_ms=99))
        seen = rig.lease("order", "secret-order")
        assert (seen.epoch, seen.order, seen.deadline_ms) == (2, p.PREEMPT, 99)
        end(rig, "order", 2)

    # ---- what runners say --------------------------------------------------------------------------------------------

    def test_acks_and_progress_are_passed_on(self, rig: Rig) -> None:
        ask(rig, p.PutLease, lease=lease_of(rig, "talk", rig.slots()[:1]))
        rig.ack("talk", "secret-talk", 1, p.STARTED, {"pid": 7})
        rig.report("talk", "secret-talk", {"step": 3})
        assert rig.until(p.Acked, job="talk", what=p.STARTED).facts == {"pid": 7}
        assert rig.until(p.Progress, job="talk").facts == {"step": 3}
        end(rig, "talk", 1)

    def test_released_is_passed_on_only_when_the_slots_are_free(self, rig: Rig) -> None:
        slot = rig.slots()[0]
        lease = lease_of(rig, "early", [slot])
        ask(rig, p.PutLease, lease=lease)
        rig.occupy(slot, "early-worker", job="early", attempt=1)
        ask(rig, p.PutLease, lease=replace(lease, epoch=2, order=p.PREEMPT, deadline_ms=10**13))
        rig.ack("early", "secret-early", 2, p.RELEASED, {})
        rig.sleep(700)
        assert not [f for f in rig.facts() if isinstance(f, p.Acked) and f.job == "early"]
        rig.vacate("early-worker")
        rig.until(p.Acked, job="early", what=p.RELEASED)
        end(rig, "early", 2)

    # ---- resizes -----------------------------------------------------------------------------------------------------

    def test_a_slot_that_is_left_stays_with_its_lease_until_it_is_free(self, rig: Rig) -> None:
        kept, left = rig.slots()[:2]
        lease, since = lease_of(rig, "shrink", [kept, left]), len(rig.facts())
        ask(rig, p.PutLease, lease=lease)
        for slot in (kept, left):
            rig.occupy(slot, f"shrink-{slot.device}", job="shrink", attempt=1)
        smaller = replace(lease, epoch=2, tasks=1, slots=(kept,), leaving=(left,), deadline_ms=10**13)
        assert ask(rig, p.PutLease, lease=smaller).data == {"left": False}
        assert rig.lease("shrink", "secret-shrink").slots == (kept,)
        assert ask(rig, p.PutLease, lease=lease_of(rig, "next", [left])).code == p.SLOT_LEASED
        rig.ack("shrink", "secret-shrink", 2, p.RELEASED, {})
        rig.sleep(2500)
        assert rig.alive(f"shrink-{left.device}"), "whoever still saves a checkpoint is no intruder"
        assert not [f for f in rig.facts()[since:] if isinstance(f, p.Intruder | p.Acked)]
        rig.vacate(f"shrink-{left.device}")
        rig.until(p.Acked, since=since, job="shrink", what=p.RELEASED, epoch=2)
        assert ask(rig, p.PutLease, lease=smaller).data == {"left": True}
        assert ask(rig, p.PutLease, lease=lease_of(rig, "next", [left])).code == ""
        assert rig.alive(f"shrink-{kept.device}")
        end(rig, "next", 1)
        end(rig, "shrink", 2)

    def test_a_lease_may_grow_and_leave_slots_where_nobody_is(self, rig: Rig) -> None:
        first, second = rig.slots()[:2]
        lease, since = lease_of(rig, "grow", [first]), len(rig.facts())
        ask(rig, p.PutLease, lease=lease)
        larger = replace(lease, epoch=2, tasks=2, slots=(first, second))
        assert ask(rig, p.PutLease, lease=larger).data == {}
        rig.occupy(second, "grow-1", job="grow", attempt=1)
        rig.ack("grow", "secret-grow", 2, p.RELEASED, {})
        rig.until(p.Acked, since=since, job="grow", what=p.RELEASED, epoch=2)
        rig.vacate("grow-1")
        moved = replace(lease, epoch=3, slots=(second,), leaving=(first,))
        assert ask(rig, p.PutLease, lease=moved).data == {"left": True}
        end(rig, "grow", 3)

    def test_freeing_a_lease_empties_the_slots_that_it_was_leaving(self, rig: Rig) -> None:
        kept, left = rig.slots()[:2]
        lease = lease_of(rig, "both", [kept, left])
        ask(rig, p.PutLease, lease=lease)
        rig.occupy(left, "both-1", job="both", attempt=1)
        ask(rig, p.PutLease, lease=replace(lease, epoch=2, slots=(kept,), leaving=(left,), tasks=1))
        assert ask(rig, p.HardStop, job="both", epoch=3).code == ""
        rig.until(p.Freed, job="both", epoch=3)
        assert not rig.alive("both-1")

    # ---- freeing -----------------------------------------------------------------------------------------------------

    def test_dropping_an_unknown_lease_says_freed(self, rig: Rig) -> None:
        end(rig, "never-was", 4)

    def test_a_drop_of_an_older_epoch_is_refused(self, rig: Rig) -> None:
        ask(rig, p.PutLease, lease=lease_of(rig, "newer", rig.slots()[:1], epoch=5))
        assert ask(rig, p.DropLease, job="newer", epoch=4).code == p.STALE_EPOCH
        assert ask(rig, p.HardStop, job="newer", epoch=4).code == p.STALE_EPOCH
        end(rig, "newer", 5)

    def test_hard_stop_revokes_first_and_kills_until_free(self, rig: Rig) -> None:
        slot = rig.slots()[0]
        ask(rig, p.PutLease, lease=lease_of(rig, "hard", [slot]))
        rig.occupy(slot, "hard-worker", job="hard", attempt=1)
        assert ask(rig, p.HardStop, job="hard", epoch=2).code == ""
        with pytest.raises(LeaseGone):
            rig.lease("hard", "secret-hard")
        rig.until(p.Freed, job="hard", epoch=2)
        assert not rig.alive("hard-worker")
        assert ask(rig, p.PutLease, lease=lease_of(rig, "hard", [slot], epoch=2)).code == p.STALE_EPOCH

    def test_drop_waits_for_its_grace_before_it_kills(self, rig: Rig) -> None:
        slot = rig.slots()[0]
        ask(rig, p.PutLease, lease=lease_of(rig, "slow", [slot]))
        rig.occupy(slot, "slow-worker", job="slow", attempt=1)
        assert ask(rig, p.DropLease, job="slow", epoch=1, grace_ms=1500).code == ""
        rig.sleep(400)
        assert rig.alive("slow-worker")
        rig.until(p.Freed, job="slow")
        assert not rig.alive("slow-worker")

    def test_an_intruder_in_an_unleased_slot_is_killed_and_reported(self, rig: Rig) -> None:
        rig.occupy(rig.slots()[0], "intruder", job="", attempt=0)
        report = rig.until(p.Intruder, slot=rig.slots()[0].slot)
        assert report.killed
        assert not rig.alive("intruder")

    def test_an_occupant_of_an_older_attempt_is_an_intruder(self, rig: Rig) -> None:
        slot = rig.slots()[1]
        since = len(rig.facts())
        ask(rig, p.PutLease, lease=lease_of(rig, "older", [slot], attempt=2, epoch=3))
        rig.occupy(slot, "older-worker", job="older", attempt=1)
        assert rig.until(p.Intruder, since=since, slot=slot.slot).owner_job == "older"
        end(rig, "older", 3)

    # ---- commands ----------------------------------------------------------------------------------------------------

    def test_a_command_starts_once_and_reports_its_exit_code(self, rig: Rig) -> None:
        spec = rig.command("echo", "exit 3")
        ask(rig, p.PutLease, lease=lease_of(rig, "echo", rig.slots()[:1], kind="command"))
        for _ in range(2):
            assert ask(rig, p.StartCommand, job="echo", attempt=1, epoch=1, spec=spec).code == ""
        rig.until(p.Acked, job="echo", what=p.STARTED, attempt=1)
        assert rig.until(p.Acked, job="echo", what=p.EXITED).facts["rc"] == 3
        end(rig, "echo", 1)
        assert len([f for f in rig.facts() if isinstance(f, p.Acked) and f.job == "echo" and f.what == p.EXITED]) == 1

    def test_a_command_needs_a_lease_that_runs(self, rig: Rig) -> None:
        spec = rig.command("no-lease", "exit 0")
        assert ask(rig, p.StartCommand, job="no-lease", attempt=1, epoch=1, spec=spec).code == p.NO_LEASE
        ask(rig, p.PutLease, lease=lease_of(rig, "no-lease", rig.slots()[:1], epoch=2, kind="command", order=p.PREEMPT))
        assert ask(rig, p.StartCommand, job="no-lease", attempt=1, epoch=2, spec=spec).code == p.STALE_EPOCH
        end(rig, "no-lease", 2)

    @pytest.mark.parametrize(("does", "rc"), [("wait", 143), ("ignore TERM", 137)])
    def test_a_signal_ends_a_command_politely_then_firmly(self, rig: Rig, does: str, rc: int) -> None:
        job = f"signal-{rc}"
        ask(rig, p.PutLease, lease=lease_of(rig, job, rig.slots()[:1], kind="command"))
        ask(rig, p.StartCommand, job=job, attempt=1, epoch=1, spec=rig.command(job, does))
        rig.until(p.Acked, job=job, what=p.STARTED)
        rig.sleep(500)
        assert ask(rig, p.SignalCommand, job=job, attempt=1, grace_ms=600).code == ""
        facts = rig.until(p.Acked, job=job, what=p.EXITED).facts
        assert (facts["rc"], facts["signal"], facts["lost"]) == (rc, rc - 128, False)
        end(rig, job, 1)

    def test_the_death_of_a_holder_is_an_exit(self, rig: Rig) -> None:
        ask(rig, p.PutLease, lease=lease_of(rig, "holder", rig.slots()[:1], kind="command"))
        ask(rig, p.StartCommand, job="holder", attempt=1, epoch=1, spec=rig.command("holder", "wait"))
        rig.until(p.Acked, job="holder", what=p.STARTED)
        rig.crash_command("holder", 1)
        assert rig.until(p.Acked, job="holder", what=p.EXITED).facts["lost"]
        end(rig, "holder", 1)

    def test_a_cpu_lease_gets_its_group_or_cpu_busy(self, rig: Rig) -> None:
        cpu = lease_of(rig, "cpu", [], node=rig.node(), cpu_milli=1000, kind="command")
        reply = ask(rig, p.PutLease, lease=cpu)
        assert (reply.code, bool(reply.data["cpu_group"])) == ("", True)
        assert rig.lease("cpu", "secret-cpu").cpu_group == reply.data["cpu_group"]
        ask(rig, p.StartCommand, job="cpu", attempt=1, epoch=1, spec=rig.command("cpu", "exit 0"))
        assert rig.until(p.Acked, job="cpu", what=p.EXITED).facts["rc"] == 0
        end(rig, "cpu", 1)
        huge = lease_of(rig, "huge", [], node=rig.node(), cpu_milli=999_000)
        assert ask(rig, p.PutLease, lease=huge).code == p.CPU_BUSY
        with pytest.raises(LeaseGone):
            rig.lease("huge", "secret-huge")

    # ---- deaths ------------------------------------------------------------------------------------------------------

    def test_a_rebuilt_board_still_knows_leases_and_acks(self, rig: Rig) -> None:
        ask(rig, p.PutLease, lease=lease_of(rig, "board", rig.slots()[:1]))
        since = len(rig.facts())
        rig.kill_board()
        assert rig.until(p.BoardRebuilt, since=since).leases == 1
        assert rig.lease("board", "secret-board").epoch == 1
        rig.ack("board", "secret-board", 1, p.STARTED, {})
        rig.until(p.Acked, since=since, job="board", what=p.STARTED)
        end(rig, "board", 1)

    def test_a_command_outlives_its_bridge(self, rig: Rig) -> None:
        lease = lease_of(rig, "bridge", rig.slots()[:1], kind="command")
        spec = rig.command("bridge", "wait")
        ask(rig, p.PutLease, lease=lease)
        ask(rig, p.StartCommand, job="bridge", attempt=1, epoch=1, spec=spec)
        rig.until(p.Acked, job="bridge", what=p.STARTED)
        since = len(rig.facts())
        rig.restart_bridge()
        reply = ask(rig, p.Hello, leases=(lease,))
        assert list(reply.data["occupied"]) == [rig.slots()[0].slot]
        rig.until(p.Acked, since=since, job="bridge", what=p.STARTED)
        assert ask(rig, p.StartCommand, job="bridge", attempt=1, epoch=1, spec=spec).code == ""
        ask(rig, p.SignalCommand, job="bridge", attempt=1, grace_ms=5000)
        assert rig.until(p.Acked, since=since, job="bridge", what=p.EXITED).facts["rc"] == 143
        end(rig, "bridge", 1)

    def test_what_no_lease_covers_after_hello_is_ended(self, rig: Rig) -> None:
        ask(rig, p.PutLease, lease=lease_of(rig, "orphan", rig.slots()[:1], kind="command"))
        ask(rig, p.StartCommand, job="orphan", attempt=1, epoch=1, spec=rig.command("orphan", "wait"))
        rig.until(p.Acked, job="orphan", what=p.STARTED)
        rig.restart_bridge()
        ask(rig, p.Hello)
        rig.sleep(3000)
        assert ask(rig, p.Hello).data["occupied"] == {}

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def test_a_dropped_node_has_no_slots_until_it_is_restored(self, rig: Rig) -> None:
        ask(rig, p.PutLease, lease=lease_of(rig, "on-node", rig.slots()[:1]))
        assert ask(rig, p.DropNode, node=rig.node()).code == p.NODE_LEASED
        end(rig, "on-node", 1)
        before = rig.slots()
        since = len(rig.facts())
        assert ask(rig, p.DropNode, node=rig.node()).code == ""
        assert rig.until(p.NodeJoined, since=since, node=rig.node()).slots == ()
        since = len(rig.facts())
        assert ask(rig, p.RestoreNode, node=rig.node()).code == ""
        after = rig.until(p.NodeJoined, since=since, node=rig.node()).slots
        assert [slot.slot for slot in after] == [slot.slot for slot in before]
        assert {slot.group for slot in after}.isdisjoint(slot.group for slot in before)

    def test_wanted_nodes_are_one_pending_group_each_and_go_when_they_are_not(self, rig: Rig) -> None:
        big, small = p.NodeWant("big", 2, 4, gpus=8), p.NodeWant("small", 1, 4, cpu_milli=64_000)
        want(rig, big, small)
        assert rig.wanted() == {"big": 2, "small": 1}
        want(rig, big, small)
        assert rig.wanted() == {"big": 2, "small": 1}, "said twice, asked for once"
        want(rig, replace(big, count=1))
        assert rig.wanted() == {"big": 1}
        assert ask(rig, p.WantNodes, term=1, wants=()).code == p.STALE_TERM
        want(rig)
        assert rig.wanted() == {}

    def test_no_more_nodes_are_asked_for_than_may_be_there(self, rig: Rig) -> None:
        flavor = rig.joined().flavor
        want(rig, p.NodeWant(flavor, 3, 3, gpus=8), known=(rig.node(),))
        assert rig.wanted() == {flavor: 2}
        want(rig, p.NodeWant(flavor, 3, 9, gpus=8))
        assert rig.wanted() == {flavor: 2}, "a node that the sender does not know yet is one of those"
        want(rig, p.NodeWant(flavor, 1, 9, gpus=8))
        assert rig.wanted() == {}

    def test_what_a_dead_bridge_wanted_is_not_wanted_any_more(self, rig: Rig) -> None:
        want(rig, p.NodeWant("big", 2, 4, gpus=8))
        rig.restart_bridge()
        assert ask(rig, p.Hello).code == ""
        for _ in range(20):
            if not rig.wanted():
                break
            rig.sleep(500)
        assert rig.wanted() == {}
