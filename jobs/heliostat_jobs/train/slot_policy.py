"""The two policies of a run inside a lease: its size is the lease's, and the scheduler's orders are nobody's failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heliostat_scheduler.live.protocol import Lease

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.train.places import places_of
from heliostat_jobs.train.ray_train_private import (
    FailureDecision,
    FailurePolicy,
    NoopDecision,
    ResizeDecision,
    ScalingPolicy,
)
from heliostat_jobs.train.request import check_size


class SlotScalingPolicy(ScalingPolicy):  # type: ignore[misc]  # Ray is untyped here
    """As many workers as the lease has places. Made in the driver, used in the controller.

    It never registers with Ray's autoscaling coordinator: demand is the scheduler's business.
    claim: of a trainer inside a trial, which has a part of the job's lease ("" for all of it).
    lease: what the next worker group runs on; the controller writes it before it asks.
    """

    def __init__(self, scaling_config: Any, attempt: Attempt, lease: Lease, claim: str = "") -> None:
        super().__init__(scaling_config)
        self.attempt = attempt
        self.claim = claim
        self.lease = lease

    def make_decision_for_non_running_worker_group(self) -> Any:
        places = places_of(self.lease)
        check_size(self.scaling_config, len(places), self.lease.job)
        return ResizeDecision(len(places), self.scaling_config._resources_per_worker_not_none)

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        return NoopDecision()

    def _get_num_workers_for_resource_request(self) -> int:
        return len(places_of(self.lease))

    def after_controller_start(self, train_run_context: Any) -> None:
        """No resource request."""

    async def before_controller_shutdown(self) -> None:
        """No resource request."""

    def before_controller_abort(self) -> None:
        """No resource request."""


class LeaseFailurePolicy(FailurePolicy):  # type: ignore[misc]
    """The script's own policy, but an error that an order or a lost node caused is retried without being counted.

    is_blameless: set by the controller, which knows the lease.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(inner.failure_config)
        self.inner = inner
        self.is_blameless: Callable[[Exception], bool] = _never

    def make_decision(self, training_failed_error: Exception) -> Any:
        if self.is_blameless(training_failed_error):
            return FailureDecision.RETRY
        return self.inner.make_decision(training_failed_error=training_failed_error)


def _never(error: Exception) -> bool:
    return False
