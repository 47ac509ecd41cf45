"""Where Ray Train is entered: the trainer's one method that starts its controller gets our controller and policies instead.

Everything else of `fit()` stays stock: the label selector that keeps the controller on the driver's node, the SIGINT
handler, the result. Outside a job the stock method runs untouched.
"""

from __future__ import annotations

import functools
import itertools
import logging
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from heliostat_scheduler.live.protocol import Lease

    from heliostat_jobs.train.request import Request

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
        with ended_at_once(), _leased(attempt, kwargs) as leased:
            if leased:
                _use_our_controller(module)
            return original(self, **kwargs)

    setattr(trainer, START_METHOD, start)


def _use_our_controller(module: ModuleType) -> None:
    from heliostat_jobs.train.controller import SlotController

    setattr(module, CONTROLLER_NAME, SlotController)


@contextmanager
def _leased(attempt: Attempt, kwargs: dict[str, Any]) -> Iterator[bool]:
    """Change the controller's arguments in place; False for a run on CPUs that no lease holds. A claim ends with the run."""
    import ray

    from heliostat_jobs.train.board_client import current_lease
    from heliostat_jobs.train.request import Request, check, check_in_trial, floats, has_gpus

    if not ray.is_initialized():
        ray.init()
    context = kwargs["train_run_context"]
    request = Request.of(context.scaling_config)
    trial = trial_id()
    _default_run_config(context.run_config, attempt, trial)
    lease = current_lease(attempt)
    if attempt.discovers and not lease.slots and has_gpus(request):
        lease = _ask_for_gpus(attempt, lease, request)
    if floats(request, lease):
        yield False
        return
    if not trial or not lease.slots:
        check(request, lease)
        if lease.slots:
            _tell_range(attempt, lease, request)
        _use_slots(kwargs, attempt, lease, "")
        yield True
        return
    check_in_trial(request, lease)
    with _claimed(trial, request) as (claim, part):
        _use_slots(kwargs, attempt, part, claim)
        yield True


def _use_slots(kwargs: dict[str, Any], attempt: Attempt, lease: Lease, claim: str) -> None:
    from heliostat_jobs.train.hold import Obedience
    from heliostat_jobs.train.lighter import lighter
    from heliostat_jobs.train.places import no_more_than
    from heliostat_jobs.train.progress import Progress
    from heliostat_jobs.train.slot_policy import LeaseFailurePolicy, SlotScalingPolicy

    scaling = kwargs["train_run_context"].scaling_config
    seen = no_more_than(lease, scaling.max_workers)
    kwargs["scaling_policy"] = SlotScalingPolicy(scaling, attempt, seen, claim)
    kwargs["failure_policy"] = LeaseFailurePolicy(kwargs["failure_policy"])
    stock = [lighter(each) for each in kwargs["callbacks"] if not isinstance(each, PlacementGroupCleanerCallback)]
    kwargs["callbacks"] = [*stock, Obedience(), Progress()]


def _ask_for_gpus(attempt: Attempt, lease: Lease, request: Request) -> Lease:
    from heliostat_scheduler.live.board import LeaseClient

    from heliostat_jobs.train.demand import wait_for_gpus

    board = LeaseClient(attempt.job, attempt.secret)
    return wait_for_gpus(board, lease, request.min_workers, request.max_workers, "ray.train")


def _tell_range(attempt: Attempt, lease: Lease, request: Request) -> None:
    """The scheduler only knows the declared range; the script's own may be narrower."""
    from heliostat_scheduler.live.board import LeaseClient
    from heliostat_scheduler.live.protocol import DEMAND

    from heliostat_jobs.train.demand import demand_facts

    facts = demand_facts(request.min_workers, request.max_workers, "ray.train")
    LeaseClient(attempt.job, attempt.secret).ack(lease.epoch, DEMAND, facts)


@contextmanager
def _claimed(trial: str, request: Request) -> Iterator[tuple[str, Lease]]:
    """A part of the job's slots for a trainer inside a trial: waits until there is one."""
    from heliostat_jobs.slots.access import slot_access

    access = slot_access()
    claim = f"fit-{uuid.uuid4().hex[:12]}"
    try:
        yield claim, access.claim(claim, trial, request.min_workers, request.max_workers)
    finally:
        access.ask("release", claim)


def trial_id() -> str:
    """The Tune trial that this process runs; empty outside of one."""
    if "ray.tune" not in sys.modules:
        return ""
    import ray.tune

    from heliostat_jobs.tune.tune_private import in_tune_session

    return str(ray.tune.get_context().get_trial_id()) if in_tune_session() else ""


def _default_run_config(run_config: Any, attempt: Attempt, trial: str) -> None:
    """Name and storage that a new attempt finds again, unless the script chose its own; preemptions without a limit."""
    from ray.train.constants import DEFAULT_STORAGE_PATH

    if run_config.name.startswith(UNNAMED_RUN_PREFIX):
        run_config.name = _unnamed(attempt, trial)
    if str(run_config.storage_path) == str(DEFAULT_STORAGE_PATH):
        run_config.storage_path = str(attempt.run_dir / "train")
    run_config.failure_config.max_preemption_failures = -1
    run_config.__dict__.pop("storage_context", None)  # cached from the old path if the script looked at it
    logger.info("run %s keeps its checkpoints in %s", run_config.name, run_config.storage_path)


def _unnamed(attempt: Attempt, trial: str) -> str:
    """The n-th unnamed run of a program is `<job>`, `<job>-2`, ...: the same in each attempt as long as the program is.

    Inside a trial it is `<job>-<trial>`; inside a remote function `<job>-<function>`, `<job>-<function>-2`, ...
    """
    import ray

    base, number = attempt.job, next(_unnamed_runs)
    context = ray.get_runtime_context()
    if trial:
        base = f"{attempt.job}-{trial}"
    elif context.worker.mode == ray.WORKER_MODE:
        from heliostat_jobs.slots.access import slot_access

        base = f"{attempt.job}-{context.get_task_name() or 'task'}".replace("/", "_")
        number = slot_access().ask("run_number", base, context.get_task_id())
    return base if number == 1 else f"{base}-{number}"
