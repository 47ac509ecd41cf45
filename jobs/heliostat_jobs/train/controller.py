"""Train's controller inside a lease: it starts workers in the lease's slots and obeys orders.

Theory: the lease board holds one record per job with an epoch. A higher epoch is an order. PREEMPT and STOP: let go of the
slots and wait, without workers and without spinning, for the driver to be stopped or for a later epoch that says RUN. RUN with other
slots (grow, shrink, migrate, resume): let go, then start in the new ones. Both go the same way,

    mark the workers -> the script sees ray.train.get_preemption_info() and reports a checkpoint -> end the workers -> ack

except that the next group may use some of the workers (handover.py). A group that has just started and reported nothing has hardly
anything to save, so it is waited for only seconds. At the deadline it is ended in any case. A group that finishes first has finished.

Always true: workers run only in the slots of the newest lease seen, or are being moved off older ones; an epoch that takes away
slots that workers may have entered is answered by `released`, once and only after they were told to end, and one that lets them be by
`started`; what an order or a lost node breaks is not charged to
`max_failures`; the event loop never waits for the board (lease_link.py does).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from heliostat_scheduler.live.protocol import CHECKPOINTED, PREEMPT, RELEASED, STARTED, STOP, Lease

from heliostat_jobs.errors import LeaseLost
from heliostat_jobs.train.board_client import connect
from heliostat_jobs.train.handover import Handover
from heliostat_jobs.train.hold import OrderInfo
from heliostat_jobs.train.lease_link import LeaseLink
from heliostat_jobs.train.lighter import LatePreemptionCallback
from heliostat_jobs.train.places import may_run, no_more_than, places_of
from heliostat_jobs.train.progress import Progress
from heliostat_jobs.train.ray_train_private import (
    HEALTH_CHECK_INTERVAL_ENV,
    ControllerError,
    InitializingState,
    PreemptingState,
    PreemptionCallback,
    PreemptionError,
    ReschedulingState,
    RestartingState,
    RunningState,
    TrainController,
    TrainControllerLoopIterationResult,
)
from heliostat_jobs.train.slot_policy import LeaseFailurePolicy, SlotScalingPolicy
from heliostat_jobs.train.slot_workers import SlotWorkerGroup, StartGuard

logger = logging.getLogger(__name__)

CALM_POLL_S = 0.2
"""Bounds how much a crash of the driver costs beyond one checkpoint interval: a checkpoint counts once the controller saw it."""
MARKED_POLL_S = 0.05
"""Polling this fast after a mark is what keeps the steps between checkpoint and end from being done twice."""
WAIT_LOOK_S = 1.0
YOUNG_S, YOUNG_PATIENCE_S = 15.0, 4.0
"""A group without a report this soon after its start may still be loading, and then looks for no order for many seconds: there
is hardly anything to save, so it gets this patience instead of the order's deadline. A loop that runs answers well within it."""
DEFAULT_DEADLINE_S = 60.0
REFRESH_S = 2.0
LOST_PATIENCE_S = 120.0
FLUSH_S = 5.0

SAVED, YOUNG, DEADLINE, REVOKED_LEASE = "saved", "young", "deadline", "revoked"
BROKE, IDLE, FINISHED, GROWS = "broke", "idle", "finished", "grows"
"""How an order was fulfilled: a checkpoint came; nothing to save; out of time; hard stop; the workers failed by themselves; there
were none; training was over; it takes no slot away."""


@dataclass
class Mark:
    """The order that the present worker group is obeying. give_up_s: when it is ended although nothing was saved."""

    lease: Lease
    deadline_s: float
    since_s: float
    give_up_s: float


class SlotController(TrainController):  # type: ignore[misc]  # Ray is untyped here
    """See the module's head. `scaling_policy` is a SlotScalingPolicy, `failure_policy` a LeaseFailurePolicy."""

    _worker_group: Any  # Any: Ray's attributes, untyped there
    _train_fn_ref: Any
    _health_check_interval_s: float
    _worker_group_callbacks_to_propagate: list[Any]

    def __init__(
        self,
        train_fn_ref: Any,
        train_run_context: Any,
        scaling_policy: SlotScalingPolicy,
        failure_policy: LeaseFailurePolicy,
        callbacks: list[Any] | None = None,
        validation_config: Any = None,
    ) -> None:
        attempt, claim = scaling_policy.attempt, scaling_policy.claim
        see = partial(no_more_than, most=scaling_policy.scaling_config.max_workers)
        self._link = LeaseLink(lambda: connect(attempt, claim), scaling_policy.lease, self._on_lease, see)
        self._progress = next(callback for callback in callbacks or [] if isinstance(callback, Progress))
        self._guard = StartGuard()
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._mark: Mark | None = None
        self._handover = Handover(attempt.warms, train_run_context.backend_config)
        self._running_on: Lease | None = None
        self._entered = places_of(scaling_policy.lease)
        self._started_epoch = 0
        self._starting = False
        self._started_s = 0.0
        self._reports_at_start = 0
        self._released_epoch = 0
        self._broken_epoch = 0
        self._lost_since_s = 0.0
        super().__init__(
            train_fn_ref=train_fn_ref,
            train_run_context=train_run_context,
            scaling_policy=scaling_policy,
            failure_policy=failure_policy,
            callbacks=callbacks,
            validation_config=validation_config,
        )
        self._worker_group_callbacks_to_propagate = [
            LatePreemptionCallback() if type(callback) is PreemptionCallback else callback
            for callback in self._worker_group_callbacks_to_propagate
        ]
        failure_policy.is_blameless = self._is_blameless
        chosen = HEALTH_CHECK_INTERVAL_ENV in os.environ
        self._calm_poll_s = self._health_check_interval_s if chosen else CALM_POLL_S

    async def run(self) -> None:
        self._event_loop = asyncio.get_running_loop()
        self._link.start()
        self._progress.tell = self._link.report
        try:
            await super().run()
        finally:
            self._handover.only_in(None)
            self._say_released(FINISHED)
            self._link.report({"training": False})
            await self._link.flushed(FLUSH_S)
            self._link.stop()

    # ---- the newest lease --------------------------------------------------------------------------------------------

    def _on_lease(self) -> None:
        """In the link's thread: a new epoch, or the lease is gone."""
        if self._starting and not self._is_start_wanted():
            self._guard.kill()
        if self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(self._woken.set)

    def _is_start_wanted(self) -> bool:
        lease = self._link.lease
        return not self._link.gone and may_run(lease) and places_of(lease) == places_of(self._scaling_policy.lease)

    def _must_move(self) -> bool:
        """Whether the running group has to leave its slots."""
        lease = self._link.lease
        if self._link.gone or not may_run(lease):
            return True
        return self._running_on is not None and places_of(lease) != places_of(self._running_on)

    def _is_blameless(self, error: Exception) -> bool:
        """Whether an order or a lost node explains this error. Asks the board and Ray: only errors pay for it."""
        if self._mark is not None or self._link.gone:
            return True
        before = self._link.lease
        lease = self._link.refresh(REFRESH_S)
        if self._link.gone or lease.epoch > before.epoch or not may_run(lease):
            return True
        if self._progress.reports == self._reports_at_start and self._handover.blamed(f"a kept worker failed: {error}"):
            return True
        nodes = {place.node for place in places_of(lease)}
        dead = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        if any(node_id.startswith(node) for node_id in dead for node in nodes if node):
            self._broken_epoch = lease.epoch
            return True
        return False

    # ---- one step of the control loop --------------------------------------------------------------------------------

    async def _step(self) -> Any:
        state = self.get_state()
        if isinstance(state, InitializingState | RestartingState | ReschedulingState):
            return await self._step_without_workers(state)
        if isinstance(state, RunningState | PreemptingState):
            return await self._step_with_workers()
        return await super()._step()

    async def _step_without_workers(self, state: Any) -> Any:
        how = IDLE
        if self._worker_group is not None:  # stock keeps a broken group, and its GPUs, until it starts the next
            how = (self._how_fulfilled(self._mark) if self._mark else "") or BROKE
            self._let_go()
        lease = self._link.lease
        self._handover.only_in(None if self._link.gone else lease)
        self._say_released(how)
        if self._link.gone or not may_run(lease) or lease.epoch <= self._broken_epoch or not places_of(lease):
            self._give_up_in_time()
            await self._sleep(WAIT_LOOK_S)
            return self._result(state, state)
        self._scaling_policy.lease = lease
        return self._make_and_handle_scaling_decision_for_non_running_worker_group(state)

    async def _step_with_workers(self) -> Any:
        if not self._must_move():
            self._handover.drop_warm()
            self._say_started()
        elif not self._is_warming():
            self._note_order()
        outcome = self._finish_order()
        if outcome is not None:
            return outcome
        result = await super()._step()
        if isinstance(result.next_state, RunningState | PreemptingState):
            return self._finish_order() or result
        return result

    def _is_warming(self) -> bool:
        """Whether the order waits for new workers to be up. It takes nothing away then, which can be said at once."""
        lease = self._link.lease
        if self._mark is not None or self._link.gone:
            self._handover.only_in(None if self._link.gone else lease)
            return False
        if not self._handover.is_warming(self._running_on, lease, self._worker_group, self._train_fn_ref):
            return False
        self._ack_released(lease, GROWS)
        return True

    def _note_order(self) -> None:
        """Mark the workers for the newest order, once per epoch."""
        lease = self._link.lease
        if self._mark is not None and self._mark.lease.epoch >= lease.epoch:
            return
        now_s = time.time()
        deadline_s = lease.deadline_ms / 1000 if lease.deadline_ms else now_s + DEFAULT_DEADLINE_S
        if (
            lease.epoch == self._released_epoch
        ):  # it takes nothing away, and its time may have gone into the new workers' start
            deadline_s = max(deadline_s, now_s + DEFAULT_DEADLINE_S)
        give_up_s = min(deadline_s, now_s + YOUNG_PATIENCE_S) if self._is_young() else deadline_s
        self._mark = Mark(lease, deadline_s, now_s, give_up_s)
        if self._link.gone:
            return
        ranks: dict[str, list[int]] = {}
        for worker in self._worker_group.get_workers():
            ranks.setdefault(worker.metadata.node_id, []).append(worker.distributed_context.world_rank)
        info = OrderInfo(int(deadline_s * 1000), ranks, lease.epoch)
        for worker in self._worker_group.get_workers():
            worker.actor.mark_preempt.remote(info)
        logger.info("order %s at epoch %d: workers marked", lease.order, lease.epoch)

    def _is_young(self) -> bool:
        silent = self._progress.reports == self._reports_at_start
        return silent and time.time() - self._started_s < YOUNG_S

    def _finish_order(self) -> Any:
        """The step's outcome once the order is fulfilled or out of time; None while the group may go on."""
        mark = self._mark
        if mark is None:
            return None
        how = self._how_fulfilled(mark)
        if not how:
            return None
        if how == SAVED and not self._link.gone:
            seconds = round(time.time() - mark.since_s, 3)
            at_ms = self._progress.checkpoint["checkpoint_at_ms"]
            facts = {**self._progress.checkpoint, "at_ms": at_ms, "checkpoint_s": seconds}
            self._link.ack(mark.lease.epoch, CHECKPOINTED, facts)
        info = OrderInfo(int(mark.deadline_s * 1000), {}, mark.lease.epoch)
        self._let_go(mark.lease if how == SAVED and not self._link.gone else None)
        self._say_released(how)
        if self._handover.settle():
            self._running_on = mark.lease  # where the kept workers are
            self._entered = places_of(mark.lease)
        error = PreemptionError(info, drain_timed_out=how == DEADLINE)
        return self._result(self.get_state(), RestartingState(training_failed_error=error))

    def _how_fulfilled(self, mark: Mark) -> str:
        """Why the marked group may be ended now; empty while it should go on."""
        if 0 < self._held_report() <= self._progress.reports - self._reports_at_start:
            return SAVED
        if self._link.gone:
            return REVOKED_LEASE
        now_s = time.time()
        if now_s >= mark.deadline_s:
            return DEADLINE
        return YOUNG if now_s >= mark.give_up_s else ""

    def _held_report(self) -> int:
        """The report, counted in this group, with whose checkpoint the workers hold; 0 when they do not. Committed once it is counted here."""
        status = self._worker_group.get_latest_poll_status()
        infos = [worker.preemption_info for worker in status.worker_statuses.values()] if status is not None else []
        return max((info.held for info in infos if isinstance(info, OrderInfo)), default=0)

    def _let_go(self, next_lease: Lease | None = None) -> None:
        """End the workers, except what the next lease's group can use of them, and forget the group."""
        group, self._worker_group = self._worker_group, None
        self._health_check_interval_s = self._calm_poll_s
        self._handover.keep(group, next_lease)

    def _say_released(self, how: str) -> None:
        """Ack, once per epoch, that no worker of ours is in the slots that the order takes away.

        `_entered` counts, not what runs: workers may have been on their way in, or have died a moment ago.
        """
        order = self._mark.lease if self._mark is not None else self._link.lease
        moved = self._running_on is not None and places_of(order) != places_of(self._running_on)
        lost = not set(self._entered) <= set(places_of(order))
        self._mark = self._running_on = None
        if order.order in (PREEMPT, STOP) or moved or lost:
            self._entered = ()
            self._ack_released(order, how)

    def _ack_released(self, order: Lease, how: str) -> None:
        if self._link.gone or order.epoch <= self._released_epoch:
            return
        self._released_epoch = order.epoch
        last = self._progress.checkpoint.get("checkpoint", "")
        facts = {"how": how, "forced": how == DEADLINE, "checkpoint": last, "at_ms": int(time.time() * 1000)}
        self._link.ack(order.epoch, RELEASED, facts)

    def _give_up_in_time(self) -> None:
        """A lease that is gone comes back to nobody: the driver is about to be stopped. If it is not, end the run."""
        if not self._link.gone:
            return
        self._lost_since_s = self._lost_since_s or time.time()
        if time.time() - self._lost_since_s > LOST_PATIENCE_S:
            raise LeaseLost(
                "The scheduler revoked this job's lease and nothing stopped its program.",
                "Nothing is lost: the job resumes from its last checkpoint in its next attempt.",
            )

    # ---- starting and polling ----------------------------------------------------------------------------------------

    def _execute_resize_decision(self, decision: Any) -> Any:
        lease = self._scaling_policy.lease
        self._guard = StartGuard()
        self._reports_at_start = self._progress.reports
        self._starting = True
        try:
            if not self._is_start_wanted():
                return self._result(self.get_state(), InitializingState())
            self._entered = places_of(lease)
            result = super()._execute_resize_decision(decision)
        except Exception as error:
            self._guard.kill()
            self._worker_group = None
            if self._is_start_wanted() and not self._handover.blamed(f"the kept workers did not start: {error}"):
                raise
            logger.info("the start at epoch %d was ended: %s", lease.epoch, error)
            return self._result(self.get_state(), ReschedulingState(training_failed_error=ControllerError(error)))
        finally:
            self._starting = False
        self._running_on = lease
        self._started_s = time.time()
        placed = {"world_size": len(self._worker_group), "ranks": self._ranks(), **self._handover.facts()}
        self._started_epoch = lease.epoch
        self._link.ack(lease.epoch, STARTED, placed)
        self._link.report({"training": True, **placed})
        return result

    def _say_started(self) -> None:
        """A newer epoch that changes nothing for this run, as when it leaves slots that the run never used: it is at work there."""
        lease = self._link.lease
        if lease.epoch > self._started_epoch and self._worker_group is not None and self._mark is None:
            self._started_epoch = lease.epoch
            self._link.ack(lease.epoch, STARTED, {"world_size": len(self._worker_group), "ranks": self._ranks()})

    def _start_worker_group(self, num_workers: int, resources_per_worker: dict[str, float]) -> None:
        lease = self._scaling_policy.lease
        at_hand = self._handover.take(lease)
        self.worker_group_cls = SlotWorkerGroup.bound_to(places_of(lease), self._guard, self._is_start_wanted, at_hand)
        super()._start_worker_group(num_workers, resources_per_worker)

    def _ranks(self) -> list[dict[str, Any]]:  # Any: JSON
        places = places_of(self._scaling_policy.lease)
        return [
            {
                "rank": worker.distributed_context.world_rank,
                "slot": places[worker.placement_group_bundle_index].slot,
                "node": worker.metadata.node_id,
                "pid": worker.metadata.pid,
                "gpus": [str(gpu) for gpu in worker.metadata.gpu_ids],
            }
            for worker in self._worker_group.get_workers()
        ]

    async def _poll_workers(self) -> Any:
        """Stock, but an order ends the pause between two polls, and after a mark the pauses are short."""
        if self._mark is None:
            self._health_check_interval_s = self._calm_poll_s
            await self._sleep(self._calm_poll_s)
        if self._mark is not None or (not self._handover.has_warm and self._must_move()):
            self._health_check_interval_s = MARKED_POLL_S
        return await super()._poll_workers()

    async def _sleep(self, seconds: float) -> None:
        """Until `seconds` are over or the lease changed."""
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            return
        self._woken.clear()

    def _result(self, previous_state: Any, next_state: Any) -> Any:
        return TrainControllerLoopIterationResult(
            run_attempt_id=self._get_run_attempt_id(), previous_state=previous_state, next_state=next_state
        )
