"""The private parts of Ray core and Ray Data that jobs replace: on another Ray each says so in one sentence, before it is touched."""

from __future__ import annotations

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import ray
import ray.actor
import ray.remote_function
from heliostat_jobs.boot import refusals
from heliostat_jobs.data import inject as data
from heliostat_jobs.errors import UnsupportedRay
from heliostat_jobs.slots import placing

PATCHES = [
    pytest.param(placing.patch_remote_function, "tasks", id="tasks"),
    pytest.param(placing.patch_actor, "actors", id="actors"),
    pytest.param(data.patch_streaming_executor, "stages of Ray Data", id="Data"),
    pytest.param(refusals.patch_placement_group, "groups", id="groups"),
]


@pytest.mark.parametrize(("patch", "what"), PATCHES)
def test_on_another_ray_nothing_is_touched_and_one_sentence_says_why(
    patch: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace(__version__="2.61.0"))
    with pytest.raises(
        UnsupportedRay, match=rf"This is Ray 2\.61\.0, and Heliostat places {what} by internals.*ray==2\.60\.0"
    ):
        patch(ModuleType("not.touched"))


def test_a_task_and_an_actor_say_their_names() -> None:
    """The two names that refusals show."""

    def task() -> None: ...

    class Worker: ...

    work, actor = ray.remote(task), ray.remote(Worker)
    assert placing._task_name(work).endswith("task")
    assert placing._actor_name(actor).startswith("The actor ") and placing._actor_name(actor).endswith("Worker")


def test_group_and_strategy_are_made_from_an_id() -> None:
    """A slot's handle is Ray's PlacementGroup around an id, and a task may keep its children outside of it."""
    from ray.util.placement_group import PlacementGroup
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    where = f"Ray {ray.__version__} changed; see heliostat_jobs.slots.placing (written for Ray 2.60)."
    group = PlacementGroup(ray.PlacementGroupID(bytes.fromhex("ab" * 18)))
    assert group.id.hex() == "ab" * 18, where
    names = list(inspect.signature(PlacementGroupSchedulingStrategy).parameters)
    assert names == ["placement_group", "placement_group_bundle_index", "placement_group_capture_child_tasks"], where
