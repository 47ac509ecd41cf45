"""Where Ray Data is entered: a pipeline is told that it has as many GPUs as the lease, not as many as the cluster.

Its GPU stages are actors and tasks with `num_gpus`, which `heliostat_jobs.slots.placing` puts into the lease's slots. But Data sizes its
actor pools by the cluster's GPUs and would start more actors than there are slots; those would wait for ever and never work. The CPU
stages stay outside: they run on the CPUs that no slot holds.
"""

from __future__ import annotations

import functools
import logging
from types import ModuleType
from typing import Any

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.boot.ray_version import check_version

logger = logging.getLogger(__name__)


def patch_streaming_executor(module: ModuleType) -> None:
    """ray.data._internal.execution.streaming_executor: limit the GPUs of each pipeline."""
    check_version("stages of Ray Data")
    cls = module.StreamingExecutor
    original = cls.execute

    @functools.wraps(original)
    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = Attempt.from_environment()
        if attempt is not None:
            from heliostat_jobs.train.board_client import current_lease

            limit_gpus(self._options, len(current_lease(attempt).slots))
        return original(self, *args, **kwargs)

    cls.execute = execute


def limit_gpus(options: Any, held: int) -> None:  # Any: ray.data.ExecutionOptions
    """No more GPUs than the lease holds; a script's own smaller limit stays. A lease without GPUs limits nothing: asking raises."""
    limits = options.resource_limits
    if held > 0 and (limits.gpu is None or limits.gpu > held):
        options.resource_limits = limits.copy(gpu=held)
