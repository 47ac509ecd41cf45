"""Where Ray Tune is entered: `run` makes our controller, and `Tuner` finds the search that an earlier attempt began.

Nothing of Ray is imported here before the program itself runs a search: every Train worker imports `ray.tune` too.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
from types import ModuleType
from typing import Any

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.train.sigterm import ended_at_once

_searches = itertools.count(1)
mode_of_search: contextvars.ContextVar[str | None] = contextvars.ContextVar("mode_of_search", default=None)
"""`max` or `min`, as given to `run`: the controller itself is only told the metric."""


def patch_tune_run(module: ModuleType) -> None:
    """ray.tune.tune: trials in the lease's slots, orders obeyed."""
    original = module.run

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        if Attempt.from_environment() is None:
            return original(*args, **kwargs)
        _use_our_controller(module)
        token = mode_of_search.set(kwargs.get("mode"))
        try:
            with ended_at_once():
                return original(*args, **kwargs)
        finally:
            mode_of_search.reset(token)

    module.run = run  # type: ignore[attr-defined]


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
