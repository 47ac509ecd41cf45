"""Tune's controller inside a lease: it starts trials in the lease's slots and obeys orders by pausing trials.

Theory: the job's slot broker plans which claim keeps which slots when the lease changes, best trial first. This controller carries
the plan out for trials that hold a slot themselves: one that has to leave reports once more, its checkpoint is kept, its actor ends,
and it waits for the next slot, before trials that have not begun, the best one first. Trainers inside trials obey the broker by themselves
(`heliostat_jobs.train`): their trials wait in place, without workers. When nobody is left in the slots that were taken away, the
search's own state is saved and the order is acked.

A trial leaves at its next report that carries a checkpoint; a trainable class that can save is asked for one. Who has none to give
runs on, for it may come to its end, and is ended at the order's deadline; it goes on from its last checkpoint, or begins anew.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from heliostat_scheduler.live.board import LeaseClient
from heliostat_scheduler.live.protocol import CHECKPOINTED, DEMAND, RELEASED, RUN, STARTED, Lease

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.slots.access import slot_access
from heliostat_jobs.train.board_client import connect
from heliostat_jobs.train.demand import demand_facts, wait_for_gpus
from heliostat_jobs.train.facts import Facts
from heliostat_jobs.train.lease_link import LeaseLink
from heliostat_jobs.tune.demand import at_once, gpus_for
from heliostat_jobs.tune.inject import mode_of_search
from heliostat_jobs.tune.ranking import Standing, best_first, number_or_none
from heliostat_jobs.tune.slot_resources import AcquiredSlot, LeaseResourceManager
from heliostat_jobs.tune.tune_private import (
    DEFAULT_METRIC,
    TRAINING_ITERATION,
    Trial,
    TrialScheduler,
    TuneController,
    saves_when_asked,
    waiting_actors,
)

logger = logging.getLogger(__name__)

DEFAULT_DEADLINE_S = 60.0
IDLE_S = 0.1
TELL_EVERY_S = 1.0
RANK_EVERY_S = 0.1
LAST_WORDS_S = 5.0
OURS = frozenset(
    (
        "_attempt",
        "_access",
        "_resources",
        "_mode",
        "_leaving",
        "_requeued",
        "_order",
        "_told_at_s",
        "_ranking",
        "_ranked_at_s",
        "_started_epoch",
        "_obeyed",
        "_link",
    )
)
SAVED, DEADLINE, IDLE = "saved", "deadline", "idle"


@dataclass
class Order:
    """A change of the lease that is being obeyed. loses: it takes slots away. forced: some trial was ended at the deadline."""

    lease: Lease
    deadline_s: float
    loses: bool
    forced: bool = False


class SlotTuneController(TuneController):  # type: ignore[misc]  # Ray is untyped here
    """See the module's head."""

    _reuse_actors: bool

    def __init__(self, **kwargs: Any) -> None:
        attempt = Attempt.from_environment()
        assert attempt is not None, "patched in only inside a job"
        self._attempt = attempt
        self._access = slot_access()
        self._resources = LeaseResourceManager(self._access, self._ask_for_gpus)
        self._mode = mode_of_search.get() or getattr(kwargs.get("scheduler"), "_mode", None)
        self._leaving: set[Trial] = set()
        self._requeued: set[Trial] = set()
        self._order: Order | None = None
        self._told_at_s = 0.0
        self._ranking: list[str] = []
        self._ranked_at_s = 0.0
        self._started_epoch = -1
        lease = self._access.lease()
        self._obeyed = lease
        self._link = LeaseLink(lambda: connect(attempt), lease, _nothing)
        self._link.start()
        super().__init__(resource_manager_factory=lambda: self._resources, **kwargs)

    # ---- orders ------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        if not self._link.gone:
            self._notice()
            self._obey()
        super().step()
        self._tell_ranking()
        self._tell_now_and_then()
        if not self._actor_manager.num_live_actors:
            time.sleep(IDLE_S)  # with nothing to wait for, the base class does not wait

    def _notice(self) -> None:
        """A newer lease is an order."""
        lease = self._link.lease
        if lease.epoch <= self._obeyed.epoch:
            return
        deadline_s = lease.deadline_ms / 1000 if lease.deadline_ms else time.time() + DEFAULT_DEADLINE_S
        loses = lease.order != RUN or not {ref.slot for ref in self._obeyed.slots} <= {ref.slot for ref in lease.slots}
        before, self._order = self._order, Order(lease, deadline_s, loses)
        if before is not None:
            self._order.loses |= before.loses
            self._order.forced = before.forced
        self._obeyed = lease
        self._resources.give_up_ready()
        self._access.ask("resize", lease)
        logger.info("order %s at epoch %d: %d slots", lease.order, lease.epoch, len(lease.slots))

    def _obey(self) -> None:
        """Move trials out of slots that they may not keep; ack once everybody is out."""
        order = self._order
        if order is None:
            return
        wanted = self._access.ask("wanted")
        self._leaving = {
            trial
            for trial, slot in self._placed()
            if wanted.get(slot.claim, ()) != (slot.slot.slot,) and self._is_live(trial)
        }
        if order.loses:
            self._cleanup_cached_actors(
                force_all=True
            )  # with reuse_actors one stays idle in its slot for the next trial
        if time.time() >= order.deadline_s:
            self._force(order)
        if not self._access.ask("outside"):
            self._finish(order)

    def _force(self, order: Order) -> None:
        """Out of time: whoever has not left is ended."""
        for trial in list(self._leaving):
            order.forced = True
            self._requeue(trial)
        for actor in list(self._stopping_actors):
            if self._actor_manager.is_actor_started(actor):
                self._actor_manager.remove_actor(actor, kill=True)

    def _finish(self, order: Order) -> None:
        self._order = None
        lease = order.lease
        how = DEADLINE if order.forced else SAVED if order.loses else IDLE
        self.checkpoint(force=True, wait=True)
        now_ms = int(time.time() * 1000)
        self._link.ack(lease.epoch, CHECKPOINTED, {"checkpoint": self.experiment_path, "at_ms": now_ms})
        facts = {"how": how, "forced": order.forced, "checkpoint": self.experiment_path, "at_ms": now_ms}
        if order.loses:
            self._link.ack(lease.epoch, RELEASED, facts)
        if lease.order == RUN and self._running_trials:
            self._say_started()

    def _execute_action(self, trial: Trial, decision: str, after_save: bool = False) -> None:
        """A trial that has to leave does so here, between two of its results."""
        if trial not in self._leaving or decision != TrialScheduler.CONTINUE:
            super()._execute_action(trial, decision, after_save)
        elif after_save:
            self._requeue(trial)
        elif not saves_when_asked(trial.get_trainable_cls()):
            super()._execute_action(trial, decision, after_save)  # it may still report a checkpoint, or come to its end
        else:
            self._cached_trial_decisions[trial.trial_id] = TrialScheduler.CONTINUE
            self._schedule_trial_save(trial)

    def _requeue(self, trial: Trial) -> None:
        """End the trial's actor and put it first in the queue: it goes on from its last checkpoint in the next free slot."""
        self._leaving.discard(trial)
        self._resetting_trials.discard(trial)
        if trial in self._staged_trials:
            self._unstage_trial_with_resources(trial)
        reuse, self._reuse_actors = self._reuse_actors, False
        self._schedule_trial_stop(trial)
        self._reuse_actors = reuse
        self._cached_trial_decisions.pop(trial.trial_id, None)
        self._queued_trial_decisions.pop(trial.trial_id, None)
        self._set_trial_status(trial, Trial.PENDING)
        self._requeued.add(trial)
        logger.info("trial %s leaves its slot and waits for the next", trial.trial_id)

    def _maybe_add_actors(self) -> None:
        """Trials that had to leave wait for slots before all others, whatever waited when they came."""
        self._requeued = {trial for trial in self._requeued if trial.status == Trial.PENDING}
        for trial in self._requeued:
            if trial not in self._staged_trials and trial not in self._trial_to_actor:
                self._staged_trials.add(trial)
                self._actor_cache.increase_max(trial.placement_group_factory)
                self._schedule_trial_actor(trial)
        super()._maybe_add_actors()
        if not self._requeued:
            return
        place = {name: n for n, name in enumerate(self._standings())}
        first = {self._trial_to_actor.get(trial): place[trial.trial_id] for trial in self._requeued}
        for actors in waiting_actors(self._actor_manager):
            actors.sort(key=lambda actor: first.get(actor, len(place)))

    def _ask_for_gpus(self, gpus: float) -> None:
        """Before the first trial with a GPU: say how many are of use; a job that declared nothing waits for its lease."""
        lease = self._link.lease
        trials = at_once(self._search_alg.total_samples, _concurrency(self._search_alg))
        most = gpus_for(trials, gpus)
        board = LeaseClient(self._attempt.job, self._attempt.secret)
        if lease.slots:
            board.ack(lease.epoch, DEMAND, demand_facts(1, most, "ray.tune"))
        elif self._attempt.discovers:
            self._obeyed = wait_for_gpus(board, lease, 1, most, "ray.tune")
            self._access.ask("resize", self._obeyed)

    # ---- who is where ------------------------------------------------------------------------------------------------

    def _placed(self) -> list[tuple[Trial, AcquiredSlot]]:
        """Trials whose own process holds a slot."""
        found = []
        for trial, actor in self._trial_to_actor.items():
            held = (
                self._actor_manager.get_actor_resources(actor) if self._actor_manager.is_actor_started(actor) else None
            )
            if isinstance(held, AcquiredSlot):
                found.append((trial, held))
        return found

    def _is_live(self, trial: Trial) -> bool:
        return trial.status == Trial.RUNNING or trial in self._staged_trials

    def _standings(self) -> list[str]:
        """Ids of all trials, best first."""
        metric = self._metric or self._scheduler_alg.metric
        mode = self._mode if metric and metric != DEFAULT_METRIC else None
        rows = []
        for trial in self._trials:
            result = trial.last_result or {}
            value = number_or_none(result.get(metric)) if metric else None
            rows.append(Standing(trial.trial_id, value, int(result.get(TRAINING_ITERATION, 0))))
        return best_first(rows, mode)

    def _actor_started(self, tracked_actor: Any, log: str = "STARTED") -> None:
        super()._actor_started(tracked_actor, log)
        trial = self._actor_to_trial[tracked_actor]
        held = self._actor_manager.get_actor_resources(tracked_actor)
        if isinstance(held, AcquiredSlot):
            self._access.tell("rename", held.claim, trial.trial_id)
        if self._order is None:
            self._say_started()

    # ---- what the scheduler is told ----------------------------------------------------------------------------------

    def _say_started(self) -> None:
        """Once per epoch: somebody runs."""
        if self._started_epoch < self._obeyed.epoch:
            self._started_epoch = self._obeyed.epoch
            self._link.ack(
                self._obeyed.epoch, STARTED, {"world_size": len(self._running_trials), "ranks": self._ranks()}
            )

    def _ranks(self) -> list[Facts]:
        rows = [(held.slot, trial.trial_id) for trial, held in self._placed()]
        rows.sort(key=lambda row: row[0].slot)
        return [
            {"rank": rank, "slot": slot.slot, "node": slot.node, "gpus": [str(slot.device)], "trial": trial}
            for rank, (slot, trial) in enumerate(rows)
        ]

    def _tell_ranking(self) -> None:
        """The broker hears of a changed order soon: it may see the next lease before this controller does."""
        now_s = time.monotonic()
        if now_s - self._ranked_at_s < RANK_EVERY_S:
            return
        self._ranked_at_s = now_s
        order = self._standings()
        if order != self._ranking:
            self._ranking = order
            self._access.tell("rank", order)

    def _tell_now_and_then(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_at_s < TELL_EVERY_S:
            return
        self._told_at_s = now_s
        order = self._ranking
        facts: Facts = {
            "training": True,
            "trials": len(self._trials),
            "trials_running": len(self._running_trials),
            "trials_done": len(self._stopped_trials),
            "trials_failed": len(self._failed_trials),
            "step": sum(int((trial.last_result or {}).get(TRAINING_ITERATION, 0)) for trial in self._trials),
            "ranks": self._ranks(),
        }
        metric = self._metric or self._scheduler_alg.metric
        best = next((trial for trial in self._trials if order and trial.trial_id == order[0]), None)
        value = number_or_none((best.last_result or {}).get(metric)) if best is not None and metric else None
        if value is not None and metric is not None and best is not None:
            facts |= {metric: value, "best_trial": best.trial_id}
        self._link.report(facts)

    def __getstate__(self) -> dict[str, Any]:
        """What Ray keeps of a search: nothing of ours belongs to the next attempt."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name not in OURS}

    def cleanup(self) -> None:
        super().cleanup()
        if self._link.is_running():
            self._link.report({"training": False})
            self._link.wait_said(LAST_WORDS_S)
            self._link.stop()


def _concurrency(search: Any) -> int:  # Any: a SearchAlgorithm, or the searcher inside one
    """`max_concurrent_trials`, wherever the search keeps it; 0 for no limit."""
    while search is not None:
        if limit := getattr(search, "max_concurrent", 0) or 0:
            return int(limit)
        search = getattr(search, "searcher", None)
    return 0


def _nothing() -> None:
    """The controller looks at the lease in every step."""
