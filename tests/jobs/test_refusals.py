"""What a job may not do, that each refusal says what to do, and that the patched methods pass everything else on."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs import errors
from heliostat_jobs.boot.refusals import check_group, patch_placement_group
from heliostat_jobs.errors import JobError, NeverFits, NotYetSupported, ReservedResource
from heliostat_jobs.slots.placing import patch_actor, patch_remote_function


@pytest.mark.parametrize(
    ("bundles", "expected"),
    [
        pytest.param([{"CPU": 1}, {"GPU": 1}], NotYetSupported, id="a group with a GPU is refused"),
        pytest.param([{"GPU_group_0_ab12": 1}], ReservedResource, id="a group inside a slot is refused"),
    ],
)
def test_placement_groups(bundles: list[dict[str, float]], expected: type[JobError]) -> None:
    with pytest.raises(expected):
        check_group(bundles)


def test_a_group_of_cpus_passes() -> None:
    check_group([{"CPU": 1}])


class Remote:
    """Stands for RemoteFunction and ActorClass: `_remote` gets the merged options."""

    _function_name = "train"

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
        return args, kwargs, options


def test_the_patched_methods_pass_everything_without_a_gpu_on() -> None:
    module: Any = SimpleNamespace(
        RemoteFunction=type("RemoteFunction", (Remote,), {}), ActorClass=type("A", (Remote,), {})
    )
    patch_remote_function(module)
    patch_actor(module)
    assert module.RemoteFunction()._remote(args=[1], kwargs={"a": 2}, num_cpus=1) == ([1], {"a": 2}, {"num_cpus": 1})
    with pytest.raises(NeverFits, match=r"The task train asks for num_gpus=2"):
        module.RemoteFunction()._remote(num_gpus=2)
    with pytest.raises(NeverFits, match="The actor"):
        module.ActorClass()._remote(num_gpus=2)


def test_the_patched_placement_group_passes_everything_else_on() -> None:
    module: Any = SimpleNamespace(placement_group=lambda bundles, strategy="PACK": (bundles, strategy))
    patch_placement_group(module)
    assert module.placement_group([{"CPU": 1}], strategy="SPREAD") == ([{"CPU": 1}], "SPREAD")
    with pytest.raises(NotYetSupported):
        module.placement_group([{"GPU": 1}])


@pytest.mark.parametrize("cls", [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, JobError)])
def test_errors_cross_process_borders(cls: type[JobError]) -> None:
    error = pickle.loads(pickle.dumps(cls("It broke.", "Mend it.")))
    assert (type(error), str(error), error.remedy) == (cls, "It broke. Mend it.", "Mend it.")
    assert cls.code == cls.__name__
