"""Two of Ray Train's callbacks that start a process with each worker group, made lighter: on a small machine such a start costs seconds.

Without datasets there is nothing that a dataset manager could hand out. And the watcher of drained nodes is started a little later: what
it looks for comes minutes ahead, and its first look sees what it missed.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from heliostat_jobs.train.ray_train_private import DatasetsCallback, PreemptionCallback

WATCH_AFTER_S = 10.0


class NoShards:
    """Ray Train's answer for a dataset that was never given to the trainer."""

    def get_dataset_shard(self, dataset_info: Any) -> NoReturn:  # Any: Ray's DatasetShardMetadata
        raise KeyError(
            f"Dataset shard for '{dataset_info.dataset_name}' not found. "
            "Please ensure that the dataset is passed through the Trainer `datasets` argument."
        )


class WithoutDatasets(DatasetsCallback):  # type: ignore[misc]  # Ray is untyped here
    """Stock for a trainer without datasets, less the manager's process."""

    def __init__(self, stock: Any) -> None:
        self.__dict__.update(stock.__dict__)

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        return {"dataset_shard_provider": [NoShards()] * len(workers)}


def lighter(callback: Any) -> Any:  # Any: one of Ray's callbacks
    """The callback, or its lighter form."""
    if type(callback) is DatasetsCallback and not callback._datasets:
        return WithoutDatasets(callback)
    return callback


class LatePreemptionCallback(PreemptionCallback):  # type: ignore[misc]
    """Stock, but the watcher starts when the group has run for a while."""

    def __init__(self) -> None:
        super().__init__()
        self._timer: asyncio.TimerHandle | None = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._stop_watcher()
        start = super().after_worker_group_start
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, start, worker_group)

    def _stop_watcher(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super()._stop_watcher()
