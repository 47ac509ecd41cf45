"""What the control plane and the bridge use when nobody asks anything."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil

from benchmarks.platform import submissions
from benchmarks.platform.installation import Installation
from benchmarks.platform.stuffing import add_finished

FINISHED = 10_000
QUEUED = 100


def measure(running: Installation, quick: bool) -> dict[str, Any]:  # Any: JSON
    seconds = 15 if quick else 60
    add_finished(running, FINISHED)
    submissions.occupy(running)
    with running.client() as client:
        for _ in range(QUEUED):
            client.post("/api/v1/jobs", json={"kind": "command", "command": ["true"], "gpus": 1}).raise_for_status()
    time.sleep(5)
    control = psutil.Process(running.control_pid)
    before = cpu_of(control)
    time.sleep(seconds)
    used = cpu_of(control) - before
    pss = sorted((size for process in family(control) if (size := pss_of(process))), reverse=True)
    return {
        "cpu_percent_of_a_core": round(100 * used / seconds, 2),
        "cpu_target_percent": 3.0,
        "pss_mb": round(sum(pss) / 1e6, 1),
        "pss_target_mb": 300,
        "pss_each_mb": [round(size / 1e6, 1) for size in pss],
        "processes": len(pss),
    }


def family(control: psutil.Process) -> list[psutil.Process]:
    return [control, *control.children(recursive=True)]


def cpu_of(control: psutil.Process) -> float:
    """CPU seconds of the control plane and its descendants; of those that have ended, as their parents waited for them."""
    total = 0.0
    for process in family(control):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def pss_of(process: psutil.Process) -> int:
    """Proportional set size in bytes, 0 when it has ended meanwhile."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
