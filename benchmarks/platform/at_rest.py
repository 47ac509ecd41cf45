"""What the control plane and the bridge use when nobody asks anything."""

from __future__ import annotations

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
    processes = [control, *control.children(recursive=True)]
    before = sum(cpu(process) for process in processes)
    time.sleep(seconds)
    used = sum(cpu(process) for process in processes) - before
    pss = [process.memory_full_info().pss for process in processes]
    return {
        "cpu_percent_of_a_core": round(100 * used / seconds, 2),
        "cpu_target_percent": 3.0,
        "pss_mb": round(sum(pss) / 1e6, 1),
        "pss_target_mb": 300,
        "pss_each_mb": [round(size / 1e6, 1) for size in pss],
        "processes": len(processes),
    }


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
