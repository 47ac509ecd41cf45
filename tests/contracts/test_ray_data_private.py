"""The one private method of Ray Data that jobs replace, held against the installed Ray, and that the limit reaches it."""

from __future__ import annotations

import importlib
import inspect

import pytest
import ray
from heliostat_jobs.boot import hook
from heliostat_jobs.data.inject import limit_gpus

MODULE = "ray.data._internal.execution.streaming_executor"


def test_the_executor_is_entered_by_execute_and_keeps_its_options() -> None:
    where = f"Ray {ray.__version__} changed Ray Data's StreamingExecutor; see heliostat_jobs.data.inject (written for Ray 2.60)."
    assert MODULE in hook.PATCHES
    module = importlib.import_module(MODULE)
    assert list(inspect.signature(module.StreamingExecutor.execute).parameters)[:2] == ["self", "dag"], where
    assert "self._options" in inspect.getsource(module.StreamingExecutor.execute), where


@pytest.mark.parametrize(
    ("chosen", "held", "expected"),
    [
        pytest.param(None, 2, 2.0, id="no limit: the lease's"),
        pytest.param(8.0, 2, 2.0, id="a larger limit shrinks to the lease"),
        pytest.param(1.0, 2, 1.0, id="a smaller one stays"),
        pytest.param(8.0, 0, 8.0, id="a lease without GPUs limits nothing"),
    ],
)
def test_a_pipeline_has_as_many_gpus_as_the_lease(chosen: float | None, held: int, expected: float) -> None:
    from ray.data import ExecutionOptions, ExecutionResources

    options = ExecutionOptions(resource_limits=ExecutionResources.for_limits(gpu=chosen, cpu=3))
    limit_gpus(options, held)
    assert (options.resource_limits.gpu, options.resource_limits.cpu) == (expected, 3)
