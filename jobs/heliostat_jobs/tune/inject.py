"""Where Ray Tune is entered: `run` makes our controller, and `Tuner` finds the search that an earlier attempt began.

Nothing of Ray is imported here before the program itself runs a search: every Train worker imports `ray.tune` too.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.train.sigterm import ended_at_once

RESUME = "AUTO+ERRORED"
"""What `Tuner.restore` does in the other path: unfinished trials go on, failed ones are tried again from their checkpoints."""
_searches = itertools.count(1)
mode_of_search: contextvars.ContextVar[str | None] = contextvars.ContextVar("mode_of_search", default=None)
"""`max` or `min`, as given to `run`: the controller itself is only told the metric."""


def patch_tune_run(module: ModuleType) -> None:
    """ray.tune.tune: trials in the lease's slots, orders obeyed."""
    original = module.run

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        attempt = Attempt.from_environment()
        if attempt is None:
            return original(*args, **kwargs)
        if is_direct(args, kwargs):
            kwargs |= _resumable(kwargs, attempt)
        _use_our_controller(module)
        token = mode_of_search.set(kwargs.get("mode"))
        try:
            with ended_at_once():
                return original(*args, **kwargs)
        finally:
            mode_of_search.reset(token)

    module.run = run  # type: ignore[attr-defined]


def is_direct(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:  # Any: arguments of Ray's `run`
    """Whether a script called `run` itself, with a trainable: a Tuner has seen to name and storage; an Experiment has its own already."""
    from heliostat_jobs.tune.tune_private import AirEntrypoint, Experiment

    given = args[0] if args else kwargs.get("run_or_experiment")
    made = any(isinstance(each, Experiment) for each in (given if isinstance(given, list) else [given]))
    return not made and kwargs.get("_entrypoint", AirEntrypoint.TUNE_RUN) is AirEntrypoint.TUNE_RUN


def _resumable(kwargs: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:  # Any: as above
    """Name and storage that the next attempt finds again; resumption when an earlier one began the search and the script says nothing."""
    from ray.tune import RunConfig

    from heliostat_jobs.tune.resume import begun, default_run_config, remember

    names = ("name", "storage_path", "storage_filesystem")
    config = default_run_config(RunConfig(**{name: kwargs.get(name) for name in names}), attempt, next(_searches))
    changed = {"name": config.name, "storage_path": config.storage_path}
    if not begun(config, attempt):
        remember(config, attempt)
    elif kwargs.get("resume") is None and kwargs.get("resume_config") is None:
        changed["resume"] = RESUME
    return changed


def _use_our_controller(module: ModuleType) -> None:
    from heliostat_jobs.train.ray_train_private import check_version
    from heliostat_jobs.tune.controller import SlotTuneController
    from heliostat_jobs.tune.tune_private import CONTROLLER_NAME

    check_version()
    setattr(module, CONTROLLER_NAME, SlotTuneController)


def patch_tuner(module: ModuleType) -> None:
    """ray.tune.tuner: a search's name and storage are the same in every attempt, and a later attempt goes on with it."""
    original = module.Tuner.__init__

    @functools.wraps(original)
    def __init__(self: Any, trainable: Any = None, **kwargs: Any) -> None:
        attempt = Attempt.from_environment()
        if attempt is None or kwargs.get("_tuner_internal") is not None:
            original(self, trainable, **kwargs)
            return
        from heliostat_jobs.tune.resume import begun, default_run_config, remember

        kwargs["run_config"] = default_run_config(kwargs.get("run_config"), attempt, next(_searches))
        folder = begun(kwargs["run_config"], attempt)
        if folder:
            resumed = module.Tuner.restore(
                folder, trainable, resume_unfinished=True, resume_errored=True, param_space=kwargs.get("param_space")
            )
            self.__dict__.update(resumed.__dict__)
            return
        original(self, trainable, **kwargs)
        remember(kwargs["run_config"], attempt)

    module.Tuner.__init__ = __init__
