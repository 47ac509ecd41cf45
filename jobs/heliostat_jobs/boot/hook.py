"""The lazy import hook: waits for a few Ray modules to be imported, then changes them. Standard library only, under 2 ms.

Theory: a job's processes (driver, Train controller and workers, children of a shell line) all start Python with
HELIOSTAT_JOB in their environment, so the line in heliostat.pth calls `install` in each, before any user code. Importing
Ray there would cost a second in every child of a shell line; so nothing is imported until the program itself imports one
of the modules in `PATCHES`. Then the module is executed as always, and the named function gets it at once, before anybody
can take a name out of it.

Always true: outside a job nothing happens at all; inside, a module not in the table is found exactly as without the hook.
A patch that fails lets the import fail: a GPU job that ran unpatched would take GPUs past its lease.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

PATCHES: dict[str, tuple[str, str]] = {
    "ray.train.v2.api.data_parallel_trainer": ("heliostat_jobs.train.inject", "patch_trainer"),
    "ray.train.torch.config": ("heliostat_jobs.train.device", "patch_torch_backend"),
    "ray.air._internal.device_manager": ("heliostat_jobs.train.device", "patch_device_manager"),
    "ray.remote_function": ("heliostat_jobs.slots.placing", "patch_remote_function"),
    "ray.actor": ("heliostat_jobs.slots.placing", "patch_actor"),
    "ray.util.placement_group": ("heliostat_jobs.boot.refusals", "patch_placement_group"),
    "ray.data._internal.execution.streaming_executor": ("heliostat_jobs.data.inject", "patch_streaming_executor"),
    "ray.tune.tuner": ("heliostat_jobs.tune.inject", "patch_tuner"),
    "ray.tune.tune": ("heliostat_jobs.tune.inject", "patch_tune_run"),
}
"""Module to wait for -> our module and the function in it that changes it."""


class PatchingLoader:
    """The real loader of one module, followed by our patch."""

    def __init__(self, loader: "Any", patch: tuple[str, str]) -> None:  # Any: whichever loader the finder chose
        self._loader = loader
        self._patch = patch

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: "ModuleType") -> None:
        self._loader.exec_module(module)
        module.__loader__ = self._loader  # what the interpreter would have set
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        apply(self._patch, module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


class PatchFinder:
    """Finds nothing itself; lets the other finders find the modules of `PATCHES` and wraps their loader."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        patch = PATCHES.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = PatchingLoader(spec.loader, patch)  # type: ignore[assignment]
                return spec
        return None


def apply(patch: tuple[str, str], module: "ModuleType") -> None:
    """Import our side of a patch and give it the module."""
    ours = __import__(patch[0], fromlist=[patch[1]])
    getattr(ours, patch[1])(module)


def install() -> None:
    """Put the finder first. A second call changes nothing; modules that are loaded already are patched now.

    A command (HELIOSTAT_KIND=command) is left alone: its GPUs are its own devices, and a Ray it starts is its own cluster.
    """
    if os.environ.get("HELIOSTAT_KIND") == "command":
        return
    if any(isinstance(finder, PatchFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, PatchFinder())
    for name, patch in PATCHES.items():
        module = sys.modules.get(name)
        if module is not None:
            apply(patch, module)
