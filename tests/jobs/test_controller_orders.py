"""How the Train controller fulfils an order: a table over what the workers, the clock and the board did. No cluster."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.train import controller as module
from heliostat_jobs.train import handover as handover_module
from heliostat_jobs.train.controller import SlotController
from heliostat_jobs.train.handover import Handover
from heliostat_jobs.train.hold import OrderInfo
from heliostat_jobs.train.places import places_of
from heliostat_jobs.train.ray_train_private import BackendConfig, RestartingState, RunningState
from heliostat_jobs.train.slot_workers import Ready
from heliostat_scheduler.live.protocol import PREEMPT, RUN, STOP, Lease, SlotRef

SLOTS = tuple(SlotRef(f"n/{i}", "ab" * 14, "n", i) for i in range(4))
RUNNING = Lease("job-1", 1, 1, "ray", RUN, "s", 2, SLOTS[:2])
NOW_S = 1_000.0
SYNC_ACTOR = object()


class Strange:
    """Some framework's configuration."""


class Actor:
    """A rank's process: notes its marks, and answers the word to leave (empty: it has)."""

    def __init__(self) -> None:
        self.marks: list[OrderInfo] = []
        self.answer = ""
        self.mark_preempt = SimpleNamespace(remote=self.marks.append)
        self.execute = SimpleNamespace(remote=lambda function, patience_s: self.answer)


class Workers:
    """The worker group: two ranks. held: the report with whose checkpoint they hold, as their status says."""

    def __init__(self) -> None:
        self.held = self.let_go_calls = 0
        self.actors = [Actor(), Actor()]
        self.workers = [
            SimpleNamespace(
                actor=actor, metadata=SimpleNamespace(node_id="n"), distributed_context=SimpleNamespace(world_rank=rank)
            )
            for rank, actor in enumerate(self.actors)
        ]

    @property
    def marks(self) -> list[OrderInfo]:
        return [mark for actor in self.actors for mark in actor.marks]

    def get_workers(self) -> list[Any]:
        return self.workers

    def workers_by_slot(self) -> dict[str, Any]:
        return {slot.slot: actor for slot, actor in zip(SLOTS, self.actors, strict=False)}

    def get_latest_poll_status(self) -> Any:
        info = OrderInfo(0, {}, 2, self.held) if self.held else None
        return SimpleNamespace(worker_statuses={0: SimpleNamespace(preemption_info=info)})

    def let_go(self, kept: dict[str, Any]) -> Ready:
        self.let_go_calls += 1
        return Ready(kept, SYNC_ACTOR if kept else None)


def saved(controller: Any) -> None:
    """The script reports the checkpoint that the order asked for, and its ranks hold."""
    controller._progress.reports += 1
    controller._worker_group.held = controller._progress.reports


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
    killed: list[Any] = []
    answered = SimpleNamespace(get=lambda answers, timeout: answers, kill=killed.append)
    monkeypatch.setattr(handover_module, "ray", answered)
    made.killed = killed
    return made


@pytest.fixture
def running(clock: SimpleNamespace) -> Any:
    """A controller whose group has run on RUNNING's slots for a minute and reported twice, one checkpoint among them."""
    made = SlotController.__new__(SlotController)
    checkpoint = {"checkpoint": "/c/1", "checkpoint_at_ms": 1, "checkpoint_bytes": 10}
    made.__dict__.update(
        _link=Link(), _progress=SimpleNamespace(reports=2, checkpoint=checkpoint), _worker_group=Workers(),
        _mark=None, _handover=Handover(True, BackendConfig()), _train_fn_ref=None, _running_on=RUNNING, _started_s=NOW_S - 60,
        _entered=places_of(RUNNING), _started_epoch=1, _scaling_policy=SimpleNamespace(lease=RUNNING),
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


def test_an_epoch_that_lets_the_workers_be_is_answered_once(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the lease leaves slots that this run never used: the scheduler waits for a word."""
    monkeypatch.setattr(running, "_ranks", list, raising=False)
    running._worker_group = [object()] * 2
    running._link.lease = replace(RUNNING, epoch=2)
    running._say_started()
    running._say_started()
    assert whats(running) == [(2, "started")]


def starting(controller: Any) -> None:
    """Its workers are on their way into RUNNING's slots; nothing runs yet."""
    controller._running_on = controller._worker_group = None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"slots": SLOTS[:1]}, ["released"], id="a shrink"),
        pytest.param({"slots": SLOTS[2:]}, ["released"], id="a move"),
        pytest.param({"order": PREEMPT}, ["released"], id="a pause"),
        pytest.param({"slots": SLOTS}, [], id="a growth takes nothing away"),
        pytest.param({}, [], id="the same again"),
    ],
)
def test_an_order_that_comes_while_workers_start_is_answered(
    running: Any, changes: dict[str, Any], said: list[str]
) -> None:
    starting(running)
    running._link.lease = replace(RUNNING, epoch=2, **changes)
    running._say_released("idle")
    running._say_released("idle")
    assert whats(running) == [(2, what) for what in said]


def test_slots_that_were_left_are_not_left_again(running: Any) -> None:
    starting(running)
    running._link.lease = replace(RUNNING, epoch=2, order=PREEMPT)
    running._say_released("idle")
    running._link.lease = replace(RUNNING, epoch=3, slots=SLOTS[2:])
    running._say_released("idle")
    assert whats(running) == [(2, "released")], "the lease of epoch 3 is a new one"


@pytest.mark.parametrize("word", [PREEMPT, STOP])
def test_workers_are_marked_and_released_after_their_checkpoint(running: Any, word: str) -> None:
    workers = running._worker_group
    order(running, order=word, deadline_ms=int(NOW_S * 1000) + 30_000)
    assert [(mark.epoch, mark.deadline_ms, mark.preempted_ranks) for mark in workers.marks] == [
        (2, 1_030_000, [0, 1])
    ] * 2
    assert running._finish_order() is None and running._link.acks == []
    saved(running)
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
    saved(running)
    assert running._finish_order() is not None and running._link.acks[-1][2]["how"] == "saved"


def test_other_slots_move_the_group_the_same_way(running: Any) -> None:
    order(running, slots=SLOTS[1:4])
    saved(running)
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
    saved(running)
    order(running, order=STOP, deadline_ms=int(NOW_S * 1000) + 5_000)
    assert running._finish_order() is not None, "the checkpoint of the first order counts"
    assert whats(running) == [(2 + 1, "checkpointed"), (3, "released")]


def test_an_order_that_was_taken_back_is_still_finished(running: Any) -> None:
    order(running, order=PREEMPT)
    order(running, order=RUN)
    saved(running)
    assert running._finish_order() is not None
    assert whats(running) == [(2, "checkpointed"), (2, "released")]


def test_released_is_said_once_per_epoch(running: Any) -> None:
    order(running, order=PREEMPT)
    saved(running)
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

    def __init__(self, before: Lease, lease: Lease, group: Any, train_fn_ref: Any) -> None:
        self.lease, self.up, self.failed, self.dropped = lease, False, False, False
        self.actors = {slot.slot: Actor() for slot in lease.slots if slot not in before.slots}

    def starting(self) -> bool:
        return not self.up and not self.failed

    def fits(self, lease: Lease) -> bool:
        return places_of(self.lease) == places_of(lease)

    def drop(self) -> None:
        self.failed = self.dropped = True


@pytest.mark.usefixtures("warm")
def test_without_warm_handover_growth_is_a_plain_restart(running: Any) -> None:
    running._handover = Handover(False, BackendConfig())
    order(running, slots=SLOTS)
    assert running._handover._warm is None and len(running._worker_group.marks) == 2


def look(controller: Any) -> None:
    if controller._must_move() and not controller._is_warming():
        controller._note_order()


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover_module, "WarmGroup", Warm)


@pytest.mark.usefixtures("warm")
def test_growth_waits_for_the_new_workers_before_it_marks_the_old_ones(running: Any) -> None:
    workers = running._worker_group
    order(running, slots=SLOTS)
    assert running._handover._warm.lease.slots == SLOTS and workers.marks == []
    running._handover._warm.up = True
    look(running)
    assert len(workers.marks) == 2


@pytest.mark.usefixtures("warm")
def test_new_workers_that_took_all_the_time_leave_the_script_its_own(running: Any, clock: SimpleNamespace) -> None:
    order(running, slots=SLOTS, deadline_ms=int(NOW_S * 1000) + 30_000)
    clock.now += 100
    running._handover._warm.up = True
    look(running)
    assert running._worker_group.marks and running._finish_order() is None, "the deadline has not passed for it"
    clock.now += module.DEFAULT_DEADLINE_S
    assert running._finish_order() is not None


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("slots", [SLOTS[:1], SLOTS[1:3], SLOTS[1:]], ids=["shrink", "migrate", "grow and move"])
def test_an_order_that_takes_a_slot_away_does_not_wait(running: Any, slots: tuple[SlotRef, ...]) -> None:
    order(running, slots=slots)
    assert running._handover._warm is None and len(running._worker_group.marks) == 2


@pytest.mark.usefixtures("warm")
def test_an_order_that_comes_meanwhile_ends_the_new_workers(running: Any) -> None:
    order(running, slots=SLOTS)
    new = running._handover._warm
    order(running, order=PREEMPT)
    assert new.dropped and running._handover._warm is None and len(running._worker_group.marks) == 2


@pytest.mark.usefixtures("warm")
def test_new_workers_that_fail_make_the_restart_a_plain_one(running: Any) -> None:
    order(running, slots=SLOTS)
    running._handover._warm.failed = True
    look(running)
    assert len(running._worker_group.marks) == 2


@pytest.mark.usefixtures("warm")
def test_a_larger_lease_while_growing_starts_over(running: Any) -> None:
    order(running, slots=SLOTS[:3])
    first = running._handover._warm
    order(running, slots=SLOTS)
    assert first.dropped and running._handover._warm.lease.slots == SLOTS and running._worker_group.marks == []


# ---- which processes stay --------------------------------------------------------------------------------------------


def at_hand(controller: Any) -> tuple[list[str], Any]:
    """What the group that starts next finds: slots with a worker, and whether the ranks meet where they met before."""
    ready = controller._handover.take(controller._link.lease)
    return sorted(ready.workers), ready.sync_actor


def finish(controller: Any) -> Any:
    """The workers save, and the order is carried out; the group as it was."""
    group = controller._worker_group
    saved(controller)
    assert controller._finish_order() is not None
    return group


def test_a_shrink_keeps_the_processes_that_stay_and_starts_none(running: Any) -> None:
    order(running, slots=SLOTS[:1])
    finish(running)
    assert whats(running) == [(2, "checkpointed"), (2, "released")]
    assert at_hand(running) == (["n/0"], SYNC_ACTOR)
    assert running._handover.facts() == {"kept": 1, "warm": 0}


@pytest.mark.usefixtures("warm")
def test_growth_keeps_all_and_adds_those_that_started_beside_them(running: Any) -> None:
    order(running, slots=SLOTS)
    assert whats(running) == [(2, "released")], "nothing is taken away"
    running._handover._warm.up = True
    look(running)
    look(running)
    finish(running)
    assert whats(running) == [(2, "released"), (2, "checkpointed")]
    assert at_hand(running) == (["n/0", "n/1", "n/2", "n/3"], SYNC_ACTOR)
    assert running._handover.facts() == {"kept": 2, "warm": 2}


def test_a_swap_keeps_what_stays(running: Any) -> None:
    order(running, slots=SLOTS[1:3])
    finish(running)
    assert at_hand(running) == (["n/1"], SYNC_ACTOR)


@pytest.mark.parametrize("slots", [SLOTS[2:], SLOTS[:2]], ids=["a migration", "a pause"])
def test_nothing_is_kept_of(running: Any, slots: tuple[SlotRef, ...]) -> None:
    order(running, slots=slots, order=RUN if slots == SLOTS[2:] else PREEMPT)
    finish(running)
    assert at_hand(running) == ([], None)


@pytest.mark.parametrize(
    ("wanted", "backend", "why"),
    [(False, BackendConfig(), "the job chose plain restarts"), (True, Strange(), "Strange cannot begin again in the same process")],
    ids=["a job that opted out", "a framework that we do not know"],
)  # fmt: skip
def test_plain_is_the_restart_of(running: Any, wanted: bool, backend: Any, why: str) -> None:
    running._handover = Handover(wanted, backend)
    order(running, slots=SLOTS[:1])
    finish(running)
    assert at_hand(running) == ([], None)
    assert running._handover.facts() == {"kept": 0, "warm": 0, "plain_because": why}


def test_a_script_that_swallows_the_exception_is_started_anew(running: Any, clock: SimpleNamespace) -> None:
    why = "the script caught the exception that ends its loop"
    order(running, slots=SLOTS[:1])
    running._worker_group.actors[0].answer = why
    group = finish(running)
    assert clock.killed == [group.actors[0], SYNC_ACTOR] and at_hand(running) == ([], None)
    assert running._handover.facts()["plain_because"] == why


@pytest.mark.parametrize("word", ["the deadline", "youth"])
def test_a_group_that_did_not_answer_its_order_is_started_anew(running: Any, clock: SimpleNamespace, word: str) -> None:
    if word == "youth":
        running._started_s, running._progress.reports = NOW_S - 1, 0
    order(running, slots=SLOTS[:1], deadline_ms=int(NOW_S * 1000) + 30_000)
    clock.now += 31
    assert running._finish_order() is not None
    assert at_hand(running) == ([], None)


def test_kept_processes_end_when_the_next_order_has_no_slot_for_them(running: Any, clock: SimpleNamespace) -> None:
    order(running, slots=SLOTS[:2], order=RUN, deadline_ms=0)
    order(running, slots=SLOTS[:1])
    group = finish(running)
    running._link.lease = replace(running._link.lease, epoch=9, order=PREEMPT)
    running._handover.only_in(running._link.lease)
    assert clock.killed == [group.actors[0], SYNC_ACTOR]


@pytest.mark.usefixtures("warm")
def test_a_kept_process_that_fails_is_not_the_script_s_failure_but_the_last_one_kept(
    running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ray", SimpleNamespace(nodes=list))
    order(running, slots=SLOTS[:1])
    finish(running)
    at_hand(running)
    running._worker_group, running._running_on, running._reports_at_start = Workers(), running._link.lease, 3
    assert running._is_blameless(RuntimeError("cannot be set twice")) is True
    assert running._handover.facts()["plain_because"] == "a kept worker failed: cannot be set twice"
    assert running._is_blameless(RuntimeError("again")) is False, "without kept processes it is"
    running._running_on, running._reports_at_start = RUNNING, 0
    order(running, slots=SLOTS[1:2])
    finish(running)
    assert at_hand(running) == ([], None)


def test_a_checkpoint_from_before_the_mark_does_not_count(running: Any) -> None:
    order(running, order=PREEMPT)
    running._progress.reports += 1
    assert running._finish_order() is None, "its ranks train on"
    running._worker_group.held = running._progress.reports + 1
    assert running._finish_order() is None, "held, but not committed yet"
    running._progress.reports += 1
    assert running._finish_order() is not None
