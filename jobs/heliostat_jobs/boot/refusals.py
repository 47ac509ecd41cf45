"""What a job may not do: GPU requests that would not land in its lease, raised where the program makes them.

The table of what is refused stands in `docs/ray-programs.md`. A placement group with GPUs would wait for ever: every GPU of the
cluster is held by a slot. Plain tasks and actors with GPUs are placed, not refused (`heliostat_jobs/slots/placing.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from heliostat_jobs.boot.ray_version import check_version
from heliostat_jobs.errors import NotYetSupported
from heliostat_jobs.slots.asking import refuse_group_names


def check_group(bundles: Sequence[Mapping[str, float]]) -> None:
    """Raise when a placement group with these bundles is refused."""
    for bundle in bundles:
        refuse_group_names("A placement group", bundle)
    if any(bundle.get("GPU", 0) > 0 for bundle in bundles):
        raise NotYetSupported(
            "A placement group with GPUs cannot be made inside a job: the GPUs of the cluster are held by the scheduler.",
            "Ask for num_gpus=1 without a group (tasks, actors), or use ray.train, ray.tune or ray.data: they take the lease's GPUs.",
        )


def patch_placement_group(module: ModuleType) -> None:
    """ray.util.placement_group: refuse groups with a GPU."""
    check_version("groups")
    original = module.placement_group

    @functools.wraps(original)
    def placement_group(bundles: Sequence[Mapping[str, float]], *args: Any, **kwargs: Any) -> Any:
        check_group(bundles)
        return original(bundles, *args, **kwargs)

    module.placement_group = placement_group  # type: ignore[attr-defined]
