"""Where Ray Train is entered: the trainer's one method that starts its controller gets our controller and policies instead.

Everything else of `fit()` stays stock: the label selector that keeps the controller on the driver's node, the SIGINT
handler, the result. Outside a job the stock method runs untouched.
"""

from __future__ import annotations

import functools
import itertools
import logging
from types import ModuleType
from typing import Any

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.train.ray_train_private import (
    CONTROLLER_NAME,
    START_METHOD,
    TRAINER_CLASS,
    UNNAMED_RUN_PREFIX,
    PlacementGroupCleanerCallback,
    check_version,
)
from heliostat_jobs.train.sigterm import ended_at_once

logger = logging.getLogger(__name__)

_unnamed_runs = itertools.count(1)


def patch_trainer(module: ModuleType) -> None:
    """ray.train.v2.api.data_parallel_trainer: lease a run's GPUs from the job instead of from Ray."""
    check_version()
    trainer = getattr(module, TRAINER_CLASS)
    original = getattr(trainer, START_METHOD)

    @functools.wraps(original)
    def start(self: Any, **kwargs: Any) -> Any:
        attempt = Attempt.from_environment()
        if attempt is None:
            return original(self, **kwargs)
        if _lease_run(attempt, kwargs):
            _use_our_controller(module)
        with ended_at_once():
            return original(self, **kwargs)

    setattr(trainer, START_METHOD, start)


def _use_our_controller(module: ModuleType) -> None:
    from heliostat_jobs.train.controller import SlotController

    setattr(module, CONTROLLER_NAME, SlotController)


def _lease_run(attempt: Attempt, kwargs: dict[str, Any]) -> bool:
    """Change the controller's arguments in place; False for a run on CPUs that no lease holds."""
    import ray

    from heliostat_jobs.train.board_client import current_lease
    from heliostat_jobs.train.hold import HoldAfterCheckpoint
    from heliostat_jobs.train.progress import Progress
    from heliostat_jobs.train.request import Request, check, floats
    from heliostat_jobs.train.slot_policy import LeaseFailurePolicy, SlotScalingPolicy

    if not ray.is_initialized():
        ray.init()
    lease = current_lease(attempt)
    context = kwargs["train_run_context"]
    request = Request.of(context.scaling_config)
    _default_run_config(context.run_config, attempt)
    if floats(request, lease):
        return False
    check(request, lease)
    kwargs["scaling_policy"] = SlotScalingPolicy(context.scaling_config, attempt, lease)
    kwargs["failure_policy"] = LeaseFailurePolicy(kwargs["failure_policy"])
    stock = [callback for callback in kwargs["callbacks"] if not isinstance(callback, PlacementGroupCleanerCallback)]
    kwargs["callbacks"] = [*stock, HoldAfterCheckpoint(), Progress()]
    return True


def _default_run_config(run_config: Any, attempt: Attempt) -> None:
    """Name and storage that a new attempt finds again, unless the script chose its own; preemptions without a limit.

    The n-th unnamed run of a program is `<job>`, `<job>-2`, ...: the same in each attempt as long as the program is.
    """
    from ray.train.constants import DEFAULT_STORAGE_PATH

    if run_config.name.startswith(UNNAMED_RUN_PREFIX):
        nth = next(_unnamed_runs)
        run_config.name = attempt.job if nth == 1 else f"{attempt.job}-{nth}"
    if str(run_config.storage_path) == str(DEFAULT_STORAGE_PATH):
        run_config.storage_path = str(attempt.run_dir / "train")
    run_config.failure_config.max_preemption_failures = -1
    run_config.__dict__.pop("storage_context", None)  # cached from the old path if the script looked at it
    logger.info("run %s keeps its checkpoints in %s", run_config.name, run_config.storage_path)
