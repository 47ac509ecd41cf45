"""Every private name of Ray Train that Heliostat subclasses or calls, in one place, with the version they belong to.

tests/contracts/test_ray_train_private.py holds each of them: existence, signature and the assumption made about it. On
another Ray `check_version` raises before anything is touched. The two names that the import hook needs earlier (while
ray.train.torch is still being imported) are strings here as well: `TORCH_BACKEND`, `DEVICE_MANAGER`.
"""

from __future__ import annotations

import ray
from ray.train.backend import BackendConfig
from ray.train.v2._internal.callbacks.backend_setup import BackendSetupCallback
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.preemption_callback import PreemptionCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ReportCallback, WorkerCallback
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller.controller import TrainController, TrainControllerLoopIterationResult
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    PreemptingState,
    ReschedulingState,
    RestartingState,
    RunningState,
    TrainControllerState,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision, ScalingPolicy
from ray.train.v2._internal.execution.train_fn_utils import (
    DistributedTrainFnUtils,
    get_train_fn_utils,
    set_train_fn_utils,
)
from ray.train.v2._internal.execution.worker_group import worker_group as worker_group_module
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker import Worker
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2._internal.util import bundle_to_remote_args
from ray.train.v2.api.exceptions import ControllerError, PreemptionError
from ray.train.v2.api.preemption import PreemptionInfo

from heliostat_jobs.errors import UnsupportedRay

SUPPORTED_RAY = "2.60."
TRAINER_CLASS = "DataParallelTrainer"
START_METHOD = "_initialize_and_run_controller"
CONTROLLER_NAME = "TrainController"
"""The name in the trainer's module that START_METHOD turns into the controller actor."""
UNNAMED_RUN_PREFIX = "ray_train_run-"
"""What RunConfig calls a run whose script gave no name."""
FAILURE_LOGGER = "ray.train.v2._internal.util"
"""Where a worker logs what ended its training thread."""
HEALTH_CHECK_INTERVAL_ENV = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"


def check_version() -> None:
    """Raise UnsupportedRay on any Ray but the one whose internals are held by the contract test."""
    if not ray.__version__.startswith(SUPPORTED_RAY):
        raise UnsupportedRay(
            f"This is Ray {ray.__version__}, and Heliostat places Ray Train's workers by internals of Ray {SUPPORTED_RAY}x.",
            "Install ray==2.60.0 on every node, or the Heliostat release that names your Ray.",
        )


__all__ = [
    "CONTROLLER_NAME",
    "FAILURE_LOGGER",
    "HEALTH_CHECK_INTERVAL_ENV",
    "START_METHOD",
    "SUPPORTED_RAY",
    "TRAINER_CLASS",
    "UNNAMED_RUN_PREFIX",
    "BackendConfig",
    "BackendSetupCallback",
    "ControllerError",
    "DatasetsCallback",
    "DistributedTrainFnUtils",
    "FailureDecision",
    "FailurePolicy",
    "InitializingState",
    "NoopDecision",
    "PlacementGroupCleanerCallback",
    "PlacementGroupHandle",
    "PreemptingState",
    "PreemptionCallback",
    "PreemptionError",
    "PreemptionInfo",
    "ReportCallback",
    "ReschedulingState",
    "ResizeDecision",
    "RestartingState",
    "RunningState",
    "ScalingPolicy",
    "TrainController",
    "TrainControllerLoopIterationResult",
    "TrainControllerState",
    "Worker",
    "WorkerCallback",
    "WorkerGroup",
    "WorkerGroupStartupFailedError",
    "WorkerGroupStartupTimeoutError",
    "bundle_to_remote_args",
    "check_version",
    "get_train_context",
    "get_train_fn_utils",
    "set_train_fn_utils",
    "worker_group_module",
]
