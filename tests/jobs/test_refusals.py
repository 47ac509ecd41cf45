"""What a job may not do yet, and that each refusal says what to do."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs import errors
from heliostat_jobs.boot.refusals import (
    group_refusal,
    patch_actor,
    patch_placement_group,
    patch_remote_function,
    patch_tuner,
    refusal,
)
from heliostat_jobs.errors import JobError, NotYetSupported, ReservedResource

IN_A_GROUP = SimpleNamespace(placement_group=object())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, None, id="a task without resources passes"),
        pytest.param({"num_cpus": 2, "num_gpus": 0}, None, id="a CPU task passes"),
        pytest.param({"num_gpus": 1}, NotYetSupported, id="a GPU task is refused"),
        pytest.param({"num_gpus": 0.5, "scheduling_strategy": "SPREAD"}, NotYetSupported, id="a part of a GPU too"),
        pytest.param({"num_gpus": 1, "scheduling_strategy": IN_A_GROUP}, None, id="a worker in its slot passes"),
        pytest.param(
            {"num_gpus": 1, "placement_group": "default"}, NotYetSupported, id="the default group is no group"
        ),
        pytest.param({"resources": {"GPU_group_ab12": 1}}, ReservedResource, id="a slot's own resource is refused"),
        pytest.param({"resources": {"bundle_group_0_ab": 0.001}}, ReservedResource, id="a bundle's own resource too"),
        pytest.param({"resources": {"tokens": 1}}, None, id="a custom resource passes"),
    ],
)
def test_tasks_and_actors(options: dict[str, Any], expected: type[JobError] | None) -> None:
    error = refusal("The task f", options)
    assert (type(error) if error else None) is expected


@pytest.mark.parametrize(
    ("bundles", "expected"),
    [
        pytest.param([{"CPU": 1}], None, id="a CPU group passes"),
        pytest.param([{"CPU": 1}, {"GPU": 1}], NotYetSupported, id="a group with a GPU is refused"),
        pytest.param([{"GPU_group_0_ab12": 1}], ReservedResource, id="a group inside a slot is refused"),
    ],
)
def test_placement_groups(bundles: list[dict[str, float]], expected: type[JobError] | None) -> None:
    error = group_refusal(bundles)
    assert (type(error) if error else None) is expected


class Remote:
    """Stands for RemoteFunction and ActorClass: `_remote` gets the merged options."""

    _function_name = "train"

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
        return args, kwargs, options


def test_the_patched_methods_pass_everything_else_on() -> None:
    module: Any = SimpleNamespace(
        RemoteFunction=type("RemoteFunction", (Remote,), {}), ActorClass=type("A", (Remote,), {})
    )
    patch_remote_function(module)
    patch_actor(module)
    assert module.RemoteFunction()._remote(args=[1], kwargs={"a": 2}, num_cpus=1) == ([1], {"a": 2}, {"num_cpus": 1})
    with pytest.raises(NotYetSupported, match=r"The task train asks for num_gpus=1.*helio submit"):
        module.RemoteFunction()._remote(num_gpus=1)
    with pytest.raises(NotYetSupported, match="The actor"):
        module.ActorClass()._remote(num_gpus=1)


def test_the_patched_placement_group_passes_everything_else_on() -> None:
    module: Any = SimpleNamespace(placement_group=lambda bundles, strategy="PACK": (bundles, strategy))
    patch_placement_group(module)
    assert module.placement_group([{"CPU": 1}], strategy="SPREAD") == ([{"CPU": 1}], "SPREAD")
    with pytest.raises(NotYetSupported):
        module.placement_group([{"GPU": 1}])


def test_tune_says_what_to_do_instead() -> None:
    module: Any = SimpleNamespace(Tuner=type("Tuner", (), {"fit": lambda self: "ran"}))
    patch_tuner(module)
    with pytest.raises(NotYetSupported, match="Submit each trial as a job of its own"):
        module.Tuner().fit()


@pytest.mark.parametrize("cls", [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, JobError)])
def test_errors_cross_process_borders(cls: type[JobError]) -> None:
    error = pickle.loads(pickle.dumps(cls("It broke.", "Mend it.")))
    assert (type(error), str(error), error.remedy) == (cls, "It broke. Mend it.", "Mend it.")
    assert cls.code == cls.__name__
