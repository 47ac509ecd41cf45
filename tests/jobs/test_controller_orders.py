"""How the Train controller fulfils an order: a table over what the workers, the clock and the board did. No cluster."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.train import controller as module
from heliostat_jobs.train.controller import SlotController
from heliostat_jobs.train.hold import OrderInfo
from heliostat_jobs.train.places import places_of
from heliostat_jobs.train.ray_train_private import RestartingState, RunningState
from heliostat_scheduler.live.protocol import PREEMPT, RUN, STOP, Lease, SlotRef

SLOTS = tuple(SlotRef(f"n/{i}", "ab" * 14, "n", i) for i in range(4))
RUNNING = Lease("job-1", 1, 1, "ray", RUN, "s", 2, SLOTS[:2])
NOW_S = 1_000.0


class Workers:
    """The worker group: two ranks that note their marks."""

    def __init__(self) -> None:
        self.marks: list[OrderInfo] = []
        self.let_go_calls = 0
        actor = SimpleNamespace(mark_preempt=SimpleNamespace(remote=self.marks.append))
        self.workers = [
            SimpleNamespace(
                actor=actor, metadata=SimpleNamespace(node_id="n"), distributed_context=SimpleNamespace(world_rank=rank)
            )
            for rank in range(2)
        ]

    def get_workers(self) -> list[Any]:
        return self.workers

    def let_go(self) -> None:
        self.let_go_calls += 1


class Link:
    def __init__(self) -> None:
        self.lease = RUNNING
        self.gone = False
        self.acks: list[tuple[int, str, dict[str, Any]]] = []

    def ack(self, epoch: int, what: str, facts: dict[str, Any]) -> None:
        self.acks.append((epoch, what, facts))

    def refresh(self, timeout_s: float) -> Lease:
        return self.lease


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=NOW_S)
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: made.now))
    return made


@pytest.fixture
def running(clock: SimpleNamespace) -> Any:
    """A controller whose group has run on RUNNING's slots for a minute and reported twice, one checkpoint among them."""
    made = SlotController.__new__(SlotController)
    checkpoint = {"checkpoint": "/c/1", "checkpoint_at_ms": 1, "checkpoint_bytes": 10}
    made.__dict__.update(
        _link=Link(), _progress=SimpleNamespace(reports=2, checkpoints=1, checkpoint=checkpoint), _worker_group=Workers(),
        _mark=None, _warm=None, _warms=True, _train_fn_ref=None, _running_on=RUNNING, _started_s=NOW_S - 60,
        _reports_at_start=0, _released_epoch=0, _broken_epoch=0, _calm_poll_s=0.2, _health_check_interval_s=0.2,
        _state=RunningState(), _run_attempt_id="r",
    )  # fmt: skip
    return made


def order(controller: Any, **changes: Any) -> None:
    """An order arrives and the next step sees it."""
    controller._link.lease = replace(controller._link.lease, epoch=controller._link.lease.epoch + 1, **changes)
    if controller._must_move() and not controller._is_warming():
        controller._note_order()


def whats(controller: Any) -> list[tuple[int, str]]:
    return [(epoch, what) for epoch, what, _ in controller._link.acks]


def test_nothing_happens_without_an_order(running: Any) -> None:
    assert not running._must_move() and running._finish_order() is None


def test_a_new_epoch_with_the_same_slots_moves_nobody(running: Any) -> None:
    order(running)
    assert running._worker_group.marks == [] and running._finish_order() is None


@pytest.mark.parametrize("word", [PREEMPT, STOP])
def test_workers_are_marked_and_released_after_their_checkpoint(running: Any, word: str) -> None:
    workers = running._worker_group
    order(running, order=word, deadline_ms=int(NOW_S * 1000) + 30_000)
    assert [(mark.epoch, mark.deadline_ms, mark.preempted_ranks) for mark in workers.marks] == [
        (2, 1_030_000, [0, 1])
    ] * 2
    assert running._finish_order() is None and running._link.acks == []
    running._progress.checkpoints += 1
    outcome = running._finish_order()
    assert isinstance(outcome.next_state, RestartingState) and workers.let_go_calls == 1
    assert whats(running) == [(2, "checkpointed"), (2, "released")]
    assert running._link.acks[-1][2]["how"] == "saved" and running._worker_group is None


def test_a_script_that_ignores_the_mark_is_ended_at_the_deadline(running: Any, clock: SimpleNamespace) -> None:
    order(running, order=PREEMPT, deadline_ms=int(NOW_S * 1000) + 30_000)
    clock.now += 29.9
    assert running._finish_order() is None
    clock.now += 0.2
    assert running._finish_order() is not None
    assert whats(running) == [(2, "released")]
    assert (running._link.acks[-1][2]["how"], running._link.acks[-1][2]["forced"]) == ("deadline", True)


def test_a_group_that_just_started_is_waited_for_only_seconds(running: Any, clock: SimpleNamespace) -> None:
    running._started_s, running._progress.reports = NOW_S - 1, 0
    order(running, order=PREEMPT, deadline_ms=int(NOW_S * 1000) + 30_000)
    assert running._worker_group.marks and running._finish_order() is None
    clock.now += module.YOUNG_PATIENCE_S
    assert running._finish_order() is not None
    assert (running._link.acks[-1][2]["how"], running._link.acks[-1][2]["forced"]) == ("young", False)


def test_a_young_group_that_answers_saves_its_steps(running: Any, clock: SimpleNamespace) -> None:
    running._started_s, running._progress.reports = NOW_S - 1, 0
    order(running, order=PREEMPT)
    running._progress.checkpoints += 1
    assert running._finish_order() is not None and running._link.acks[-1][2]["how"] == "saved"


def test_other_slots_move_the_group_the_same_way(running: Any) -> None:
    order(running, slots=SLOTS[1:4])
    running._progress.checkpoints += 1
    assert running._finish_order() is not None
    assert whats(running) == [(2, "checkpointed"), (2, "released")]


def test_a_revoked_lease_ends_the_group_without_a_word(running: Any) -> None:
    workers = running._worker_group
    running._link.gone = True
    running._note_order()
    assert running._finish_order() is not None
    assert (workers.let_go_calls, workers.marks, running._link.acks) == (1, [], [])


def test_a_later_order_replaces_the_deadline_and_the_epoch(running: Any, clock: SimpleNamespace) -> None:
    order(running, order=PREEMPT, deadline_ms=int(NOW_S * 1000) + 60_000)
    running._progress.checkpoints += 1
    order(running, order=STOP, deadline_ms=int(NOW_S * 1000) + 5_000)
    assert running._finish_order() is not None, "the checkpoint of the first order counts"
    assert whats(running) == [(2 + 1, "checkpointed"), (3, "released")]


def test_an_order_that_was_taken_back_is_still_finished(running: Any) -> None:
    order(running, order=PREEMPT)
    order(running, order=RUN)
    running._progress.checkpoints += 1
    assert running._finish_order() is not None
    assert whats(running) == [(2, "checkpointed"), (2, "released")]


def test_released_is_said_once_per_epoch(running: Any) -> None:
    order(running, order=PREEMPT)
    running._progress.checkpoints += 1
    running._finish_order()
    running._say_released("idle")
    assert [what for _, what in whats(running)].count("released") == 1


@pytest.mark.parametrize(
    ("prepare", "blameless"),
    [
        pytest.param({}, False, id="an error in peace is the script's own"),
        pytest.param({"order": PREEMPT}, True, id="an error after an order is not"),
        pytest.param({"gone": True}, True, id="an error after a revocation is not"),
        pytest.param({"dead": "n"}, True, id="an error with a lost node is not"),
        pytest.param({"dead": "other"}, False, id="another node's loss explains nothing"),
    ],
)
def test_whose_error_it_is(
    running: Any, monkeypatch: pytest.MonkeyPatch, prepare: dict[str, Any], blameless: bool
) -> None:
    nodes = [
        {"NodeID": "n", "Alive": prepare.get("dead") != "n"},
        {"NodeID": "other", "Alive": prepare.get("dead") != "other"},
    ]
    monkeypatch.setattr(module, "ray", SimpleNamespace(nodes=lambda: nodes))
    if "order" in prepare:
        running._link.lease = replace(RUNNING, epoch=2, order=prepare["order"])
    running._link.gone = prepare.get("gone", False)
    assert running._is_blameless(RuntimeError("x")) is blameless
    assert (running._broken_epoch == 1) is (prepare.get("dead") == "n")


def test_places_are_compared_not_epochs() -> None:
    assert places_of(replace(RUNNING, epoch=9)) == places_of(RUNNING)


class Warm:
    """Stands for WarmGroup: `up` says whether its workers are."""

    def __init__(self, lease: Lease, group: Any, train_fn_ref: Any) -> None:
        self.lease, self.up, self.failed, self.dropped = lease, False, False, False

    def starting(self) -> bool:
        return not self.up and not self.failed

    def fits(self, lease: Lease) -> bool:
        return not self.failed and places_of(self.lease) == places_of(lease)

    def drop(self) -> None:
        self.failed = self.dropped = True


@pytest.mark.usefixtures("warm")
def test_without_warm_handover_growth_is_a_plain_restart(running: Any) -> None:
    running._warms = False
    order(running, slots=SLOTS)
    assert running._warm is None and len(running._worker_group.marks) == 2


def look(controller: Any) -> None:
    if controller._must_move() and not controller._is_warming():
        controller._note_order()


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WarmGroup", Warm)


@pytest.mark.usefixtures("warm")
def test_growth_waits_for_the_new_workers_before_it_marks_the_old_ones(running: Any) -> None:
    workers = running._worker_group
    order(running, slots=SLOTS)
    assert running._warm.lease.slots == SLOTS and workers.marks == []
    running._warm.up = True
    look(running)
    assert len(workers.marks) == 2


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("slots", [SLOTS[:1], SLOTS[1:3], SLOTS[1:]], ids=["shrink", "migrate", "grow and move"])
def test_an_order_that_takes_a_slot_away_does_not_wait(running: Any, slots: tuple[SlotRef, ...]) -> None:
    order(running, slots=slots)
    assert running._warm is None and len(running._worker_group.marks) == 2


@pytest.mark.usefixtures("warm")
def test_an_order_that_comes_meanwhile_ends_the_new_workers(running: Any) -> None:
    order(running, slots=SLOTS)
    new = running._warm
    order(running, order=PREEMPT)
    assert new.dropped and running._warm is None and len(running._worker_group.marks) == 2


@pytest.mark.usefixtures("warm")
def test_new_workers_that_fail_make_the_restart_a_plain_one(running: Any) -> None:
    order(running, slots=SLOTS)
    running._warm.failed = True
    look(running)
    assert len(running._worker_group.marks) == 2


@pytest.mark.usefixtures("warm")
def test_a_larger_lease_while_growing_starts_over(running: Any) -> None:
    order(running, slots=SLOTS[:3])
    first = running._warm
    order(running, slots=SLOTS)
    assert first.dropped and running._warm.lease.slots == SLOTS and running._worker_group.marks == []


@pytest.mark.usefixtures("warm")
def test_a_group_that_just_started_has_nothing_to_train_on_for(running: Any) -> None:
    running._started_s, running._progress.reports = NOW_S - 1, 0
    order(running, slots=SLOTS)
    assert running._warm is None and len(running._worker_group.marks) == 2
