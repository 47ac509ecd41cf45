"""Callbacks of Ray Train that start no process, or start it later."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.train import lighter as module
from heliostat_jobs.train.lighter import LatePreemptionCallback, WithoutDatasets, lighter
from heliostat_jobs.train.ray_train_private import DatasetsCallback, PreemptionCallback


def datasets_callback(**datasets: Any) -> Any:
    made = DatasetsCallback.__new__(DatasetsCallback)
    made.__dict__.update(_datasets=datasets, _dataset_shard_provider=None)
    return made


def test_without_datasets_each_rank_gets_the_answer_that_ray_train_gives() -> None:
    callback = lighter(datasets_callback())
    assert isinstance(callback, WithoutDatasets)
    (shards, _) = callback.before_init_train_context([object(), object()])["dataset_shard_provider"]
    with pytest.raises(KeyError, match="Dataset shard for 'train' not found"):
        shards.get_dataset_shard(SimpleNamespace(dataset_name="train"))
    callback.after_worker_group_shutdown(None)


def test_everything_else_is_left_alone() -> None:
    given = datasets_callback(train=object())
    assert lighter(given) is given and lighter(3) == 3


@pytest.mark.parametrize("ends_before", [False, True])
def test_the_watcher_starts_later_and_not_after_the_end(monkeypatch: pytest.MonkeyPatch, ends_before: bool) -> None:
    started: list[object] = []
    monkeypatch.setattr(module, "WATCH_AFTER_S", 0.0)
    monkeypatch.setattr(PreemptionCallback, "after_worker_group_start", lambda self, group: started.append(group))

    async def run() -> None:
        callback = LatePreemptionCallback()
        callback.after_worker_group_start("group")
        assert started == []
        if ends_before:
            callback.before_worker_group_shutdown("group")
        for _ in range(5):  # turns of the loop, not time
            await asyncio.sleep(0)

    asyncio.run(run())
    assert started == ([] if ends_before else ["group"])
