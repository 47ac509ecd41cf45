"""What Tune's controller does with trials that have to leave: Ray's own bookkeeping, no cluster."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.tune.controller import Order, SlotTuneController
from heliostat_jobs.tune.tune_private import Trainable, Trial, TrialScheduler, TuneController
from heliostat_scheduler.live.protocol import RUN, Lease, SlotRef
from ray.tune.utils.object_cache import _ObjectCache

SLOTS = tuple(SlotRef(f"n/{n}", "ab" * 14, "n", n) for n in range(2))
LEASE = Lease("job-1", 1, 1, "ray", RUN, "s", 2, SLOTS)


class Silent(Trainable):  # type: ignore[misc]  # Ray is untyped here
    """A class that cannot save."""


class Saving(Trainable):  # type: ignore[misc]
    def save_checkpoint(self, checkpoint_dir: str) -> None: ...


class Searched:
    """A trial as far as these methods look at it."""

    trial_id, status, placement_group_factory = "t", Trial.RUNNING, "gpu"

    def __init__(self, cls: Any = Saving) -> None:
        self.get_trainable_cls = lambda: cls


@pytest.fixture
def controller() -> Any:
    made: Any = SlotTuneController.__new__(SlotTuneController)
    made._leaving, made._requeued, made._staged_trials, made._resetting_trials = set(), set(), set(), set()
    made._cached_trial_decisions, made._queued_trial_decisions, made._trial_to_actor = {}, {}, {}
    made._stopping_actors, made._order, made._reuse_actors = {}, None, True
    made._actor_cache = _ObjectCache(may_keep_one=True)
    made._search_alg = SimpleNamespace(is_finished=lambda: False)
    made._actor_manager = SimpleNamespace(is_actor_started=lambda actor: True)
    made._access = SimpleNamespace(ask=lambda method: {"wanted": {}, "outside": {"n/1": [""]}}[method])
    made.saved, made.ended, made.went_on = [], [], []
    made._schedule_trial_save = made.saved.append
    made._schedule_trial_stop = made.ended.append
    made._set_trial_status = lambda trial, status: setattr(trial, "status", status)
    return made


@pytest.fixture(autouse=True)
def stock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TuneController, "_execute_action", lambda self, trial, *rest: self.went_on.append(trial))


def test_a_class_that_saves_is_asked_and_leaves_once_it_has(controller: Any) -> None:
    trial = Searched(Saving)
    controller._leaving = {trial}
    controller._execute_action(trial, TrialScheduler.CONTINUE)
    assert (controller.saved, controller.went_on, controller.ended) == ([trial], [], [])
    controller._execute_action(trial, TrialScheduler.CONTINUE, after_save=True)
    assert (controller.ended, trial.status, controller._requeued) == ([trial], Trial.PENDING, {trial})


def test_a_class_that_cannot_save_is_not_asked_but_goes_on_to_the_deadline(controller: Any) -> None:
    """Asked all the same, it raises NotImplementedError, and Tune gives the trial up for good."""
    trial = Searched(Silent)
    controller._leaving = {trial}
    controller._execute_action(trial, TrialScheduler.CONTINUE)
    assert (controller.saved, controller.went_on) == ([], [trial])
    order = Order(LEASE, deadline_s=time.time(), loses=True)
    controller._force(order)
    assert (controller.ended, trial.status, order.forced) == ([trial], Trial.PENDING, True)


@pytest.mark.parametrize(("loses", "left"), [(True, ["idle"]), (False, [])])
def test_an_idle_actor_leaves_when_an_order_takes_slots(controller: Any, loses: bool, left: list[str]) -> None:
    actor = SimpleNamespace(set_on_stop=lambda _: None, set_on_error=lambda _: None, name="idle")
    removed: list[str] = []
    controller._remove_actor = lambda tracked_actor: removed.append(tracked_actor.name)
    controller._actor_cache.cache_object("gpu", actor)
    controller._order = Order(replace(LEASE, epoch=2), deadline_s=time.time() + 60, loses=loses)
    controller._obey()
    assert removed == left


def test_a_trial_that_is_ended_while_it_takes_over_an_actor_may_get_another(controller: Any) -> None:
    trial = Searched()
    controller._leaving, controller._resetting_trials = {trial}, {trial}
    controller._force(Order(LEASE, deadline_s=time.time(), loses=True))
    assert not controller._maybe_reuse_cached_actor(trial), "Ray would believe for ever that it is being given one"
