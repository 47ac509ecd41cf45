"""What a job may not do yet: GPU requests that would not land in its lease, raised where the program makes them.

Without this a `num_gpus=1` task of a job would wait for ever: every GPU of the cluster is held by a slot. The table of what
is refused stands in `docs/ray-programs.md`. Requests without a GPU pass untouched, and so do those that name a placement group
of their own (Train's workers do; whoever sits in a slot without a lease is ended by the watchdog).

Private names of Ray used here, and nowhere else in this package outside `train`: `RemoteFunction._remote`, `ActorClass._remote`
(each called for every task and actor with its merged options). Held by tests/contracts/test_ray_train_private.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from heliostat_jobs.errors import JobError, NotYetSupported, ReservedResource

GROUP_MARK = "_group_"
"""Ray names the resources of a placement group `<resource>_group_<id>`; asking for one is a way around the lease."""


def refusal(what: str, options: Mapping[str, Any]) -> JobError | None:  # Any: Ray's options are whatever the user gave
    """Why a task or actor with these options is refused, or None."""
    resources = options.get("resources") or {}
    reserved = sorted(name for name in resources if GROUP_MARK in name)
    if reserved:
        return ReservedResource(
            f"{what} asks for {reserved[0]}, the resource of a placement group.",
            "GPUs are placed by the lease: declare them when you submit and ask for no `_group_` resource.",
        )
    gpus = options.get("num_gpus") or 0
    if gpus <= 0 or _names_a_group(options):
        return None
    return NotYetSupported(
        f"{what} asks for num_gpus={gpus:g}; plain tasks and actors cannot use the GPUs of a lease yet.",
        "Train with ray.train (TorchTrainer), or submit a program that uses its GPUs itself with `helio submit -- ...`; "
        "work that needs no GPU: num_gpus=0.",
    )


def group_refusal(bundles: Sequence[Mapping[str, float]]) -> JobError | None:
    """Why a placement group with these bundles is refused, or None."""
    reserved = sorted(name for bundle in bundles for name in bundle if GROUP_MARK in name)
    if reserved:
        return ReservedResource(
            f"A placement group asks for {reserved[0]}, the resource of another placement group.",
            "GPUs are placed by the lease: declare them when you submit and ask for no `_group_` resource.",
        )
    if not any(bundle.get("GPU", 0) > 0 for bundle in bundles):
        return None
    return NotYetSupported(
        "A placement group with GPUs cannot be made inside a job: the GPUs of the cluster are held by the scheduler.",
        "Train with ray.train (TorchTrainer): its workers take the GPUs of the lease without a placement group.",
    )


def tune_refusal() -> JobError:
    """Tune as a whole: its trials would take resources past the lease."""
    return NotYetSupported(
        "Ray Tune cannot run inside a lease yet.",
        "Submit each trial as a job of its own (a queue limit bounds how many run at once), or run Tune outside the platform.",
    )


def _names_a_group(options: Mapping[str, Any]) -> bool:  # Any: as above
    strategy = options.get("scheduling_strategy")
    if getattr(strategy, "placement_group", None) is not None:
        return True
    return options.get("placement_group") not in (None, "default")


def _refuse_options(
    original: Callable[..., Any], describe: Callable[[Any], str]
) -> Callable[..., Any]:  # Any: Ray's own
    @functools.wraps(original)
    def _remote(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        error = refusal(describe(self), options)
        if error is not None:
            raise error
        return original(self, args, kwargs, **options)

    return _remote


def patch_remote_function(module: ModuleType) -> None:
    """ray.remote_function: refuse tasks with a GPU."""
    cls = module.RemoteFunction
    cls._remote = _refuse_options(cls._remote, lambda self: f"The task {getattr(self, '_function_name', '?')}")


def patch_actor(module: ModuleType) -> None:
    """ray.actor: refuse actors with a GPU."""
    cls = module.ActorClass
    cls._remote = _refuse_options(cls._remote, lambda self: f"The actor {_actor_name(self)}")


def _actor_name(actor_class: Any) -> str:  # Any: ray.actor.ActorClass
    metadata = getattr(actor_class, "__ray_metadata__", None)
    return str(getattr(metadata, "class_name", "?"))


def patch_placement_group(module: ModuleType) -> None:
    """ray.util.placement_group: refuse groups with a GPU."""
    original = module.placement_group

    @functools.wraps(original)
    def placement_group(bundles: Sequence[Mapping[str, float]], *args: Any, **kwargs: Any) -> Any:
        error = group_refusal(bundles)
        if error is not None:
            raise error
        return original(bundles, *args, **kwargs)

    module.placement_group = placement_group  # type: ignore[attr-defined]


def patch_tuner(module: ModuleType) -> None:
    """ray.tune.tuner: refuse Tuner.fit."""
    module.Tuner.fit = _refuse_tune(module.Tuner.fit)


def patch_tune_run(module: ModuleType) -> None:
    """ray.tune.tune: refuse tune.run and run_experiments."""
    module.run = _refuse_tune(module.run)  # type: ignore[attr-defined]
    module.run_experiments = _refuse_tune(module.run_experiments)  # type: ignore[attr-defined]


def _refuse_tune(original: Callable[..., Any]) -> Callable[..., Any]:  # Any: Tune's own signatures
    @functools.wraps(original)
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise tune_refusal()

    return refused
