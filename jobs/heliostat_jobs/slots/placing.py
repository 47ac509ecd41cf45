"""Plain tasks and actors: a request with a GPU and no placement group of its own goes into one of the lease's slots.

Without this it would wait for ever: every GPU of the cluster is held by a slot. What is changed is `_remote` of Ray's remote
functions and actor classes, through which every task and actor goes with its merged options; Ray Data's GPU stages too, which are
ordinary tasks and actors. CPU-only ones, detached ones and Ray's own pass untouched: they must outlive or stand beside the lease.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from heliostat_jobs.boot.ray_version import check_version
from heliostat_jobs.slots.asking import Asked, asked, nothing_to_give, options_in_slot
from heliostat_jobs.slots.crash import install

logger = logging.getLogger(__name__)


def patch_remote_function(module: ModuleType) -> None:
    """ray.remote_function: tasks."""
    check_version("tasks")
    install()
    cls = module.RemoteFunction
    cls._remote = _in_lease(cls._remote, _task_name, _watch_task, stays=False)


def patch_actor(module: ModuleType) -> None:
    """ray.actor: actors."""
    check_version("actors")
    cls = module.ActorClass
    cls._remote = _in_lease(cls._remote, _actor_name, _watch_actor, stays=True)


def _in_lease(
    original: Callable[..., Any], name: Callable[[Any], str], watch: Callable[[int, str, Any], None], stays: bool
) -> Callable[..., Any]:  # Any: Ray's own signatures
    @functools.wraps(original)
    def _remote(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        request = asked(name(self), options)
        if request is None:
            return original(self, args, kwargs, **options)
        token, slot, changed = _slot_for(request, options, stays)
        try:
            made = original(self, args, kwargs, **{**options, **changed})
        except BaseException:
            _give_back(token)
            raise
        watch(token, slot, made)
        return made

    return _remote


def _slot_for(request: Asked, options: dict[str, Any], stays: bool) -> tuple[int, str, dict[str, Any]]:
    """The broker's token, the slot, and the options that put the request into its slot."""
    import ray
    from ray.util.placement_group import PlacementGroup
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from heliostat_jobs.slots.access import slot_access

    access = slot_access()
    found = access.pick(request.gpus, request.node, stays)
    if found is None:
        raise nothing_to_give(request, access.lease())
    token, slot = found
    changed, cut = options_in_slot(options, slot, request.gpus)
    if cut:
        logger.warning("%s gets no more than its slot holds: %s", request.what, cut)
    group = PlacementGroup(ray.PlacementGroupID(bytes.fromhex(slot.group)))
    changed["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=0, placement_group_capture_child_tasks=False
    )
    return token, slot.slot, changed


def _give_back(token: int) -> None:
    from heliostat_jobs.slots.access import slot_access

    slot_access().give_back(token)


def _watch_task(token: int, slot: str, made: Any) -> None:
    from heliostat_jobs.slots.access import slot_access

    slot_access().watch_task(token, slot, made)


def _watch_actor(token: int, slot: str, made: Any) -> None:
    from heliostat_jobs.slots.access import slot_access

    slot_access().watch_actor(token, made)


def _task_name(function: Any) -> str:  # Any: ray.remote_function.RemoteFunction
    return f"The task {getattr(function, '_function_name', '?')}"


def _actor_name(actor_class: Any) -> str:  # Any: ray.actor.ActorClass
    metadata = getattr(actor_class, "__ray_metadata__", None)
    return f"The actor {getattr(metadata, 'class_name', '?')}"
