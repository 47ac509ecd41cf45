"""gloo and the CPU on logical GPUs, nccl on real ones: one table."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.train.device import backend_for, patch_device_manager, patch_torch_backend


@pytest.mark.parametrize(
    ("requested", "gpus", "cuda", "expected"),
    [
        pytest.param(None, 1, True, None, id="real GPUs: Ray's choice, nccl"),
        pytest.param(None, 0, False, None, id="CPU workers: Ray's choice, gloo"),
        pytest.param(None, 1, False, "gloo", id="logical GPUs: gloo"),
        pytest.param("nccl", 1, False, "gloo", id="nccl named, but no CUDA there"),
        pytest.param("cpu:gloo,cuda:nccl", 1, False, "gloo", id="a pair with nccl in it"),
        pytest.param("gloo", 1, False, "gloo", id="gloo named"),
        pytest.param("nccl", 1, True, "nccl", id="nccl named and possible"),
        pytest.param("mpi", 1, False, "mpi", id="somebody's own backend"),
    ],
)
def test_backend(requested: str | None, gpus: float, cuda: bool, expected: str | None) -> None:
    assert backend_for(requested, gpus, cuda) == expected


@dataclass
class Config:
    backend: str | None = None


class Group:
    def __init__(self, *cuda: bool) -> None:
        self.cuda = cuda

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": 1}

    def execute(self, function: Any) -> list[bool]:
        return list(self.cuda)


@pytest.mark.parametrize(
    ("cuda", "expected"), [((True, True), None), ((True, False), "gloo"), ((False, False), "gloo")]
)
def test_one_worker_without_cuda_moves_all_to_gloo(cuda: tuple[bool, ...], expected: str | None) -> None:
    seen: list[str | None] = []
    backend = type("B", (), {"on_start": lambda self, group, config: seen.append(config.backend)})
    patch_torch_backend(SimpleNamespace(_TorchBackend=backend))  # type: ignore[arg-type]
    chosen = Config()
    backend().on_start(Group(*cuda), chosen)
    assert (seen, chosen.backend) == ([expected], None)


@pytest.mark.parametrize(("available", "expected"), [(True, "Cuda"), (False, "Cpu")])
def test_the_device_manager_follows_what_is_there(available: bool, expected: str) -> None:
    cuda = type("Cuda", (), {"is_available": lambda self: available})
    module: Any = SimpleNamespace(
        CUDATorchDeviceManager=cuda,
        CPUTorchDeviceManager=type("Cpu", (), {}),
        get_torch_device_manager_by_context=cuda,
    )
    patch_device_manager(module)
    assert type(module.get_torch_device_manager_by_context()).__name__ == expected
