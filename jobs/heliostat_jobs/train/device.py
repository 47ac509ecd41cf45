"""The one place that decides on which device, and over which backend, the workers of a lease compute.

Ray decides by the *resource*: a worker that was given `GPU: 1` gets nccl and `cuda:0`. A cluster for trying things out has logical
GPUs and no CUDA, and there an unmodified `TorchTrainer(use_gpu=True)` dies in nccl. So we decide by what is there: CUDA visible to all
workers -> nccl and the worker's own GPU, exactly as stock; else gloo and the CPU, for the backend, `get_device`, `prepare_model`
and `prepare_data_loader` alike (they all ask the device manager that is changed here).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

NCCL, GLOO = "nccl", "gloo"


def backend_for(requested: str | None, gpus_per_worker: float, cuda_everywhere: bool) -> str | None:
    """The process group's backend; None leaves the choice to Ray, which then agrees with us."""
    if gpus_per_worker <= 0 or cuda_everywhere:
        return requested
    if requested is None or NCCL in requested:
        return GLOO
    return requested


def cuda_is_available() -> bool:
    """Whether this process sees a CUDA device. Runs in the workers."""
    import torch

    return bool(torch.cuda.is_available())


def patch_torch_backend(module: ModuleType) -> None:
    """ray.train.torch.config: choose the backend before the process group is made."""
    cls = module._TorchBackend
    original: Callable[..., Any] = cls.on_start  # Any: Ray is untyped

    @functools.wraps(original)
    def on_start(self: Any, worker_group: Any, backend_config: Any) -> Any:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        if gpus > 0:
            everywhere = all(worker_group.execute(cuda_is_available))
            backend = backend_for(backend_config.backend, gpus, everywhere)
            if backend != backend_config.backend:
                logger.warning("the workers' GPUs are logical (no CUDA there): training on the CPU over %s", backend)
                backend_config = dataclasses.replace(backend_config, backend=backend)
        return original(self, worker_group, backend_config)

    cls.on_start = on_start


def patch_device_manager(module: ModuleType) -> None:
    """ray.air._internal.device_manager: the CPU's manager where the GPU is only logical."""
    original: Callable[[], Any] = module.get_torch_device_manager_by_context

    @functools.wraps(original)
    def get_torch_device_manager_by_context() -> Any:
        manager = original()
        if isinstance(manager, module.CUDATorchDeviceManager) and not manager.is_available():
            return module.CPUTorchDeviceManager()
        return manager

    module.get_torch_device_manager_by_context = get_torch_device_manager_by_context  # type: ignore[attr-defined]
