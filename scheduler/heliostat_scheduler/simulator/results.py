"""What a replay hands back: one record per job, and the summary every suite prints with the same keys."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BASELINE_DIGEST = "baseline"
"""policy_digest of a yardstick: it has no policy of ours."""


def trace_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".csv")


def peak_memory_mb() -> float:
    """The most memory this process has ever held (getrusage counts KiB on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


class Stopwatch:
    """Since it was made: elapsed time, and the time this process had a core (what counts on a busy machine)."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> dict[str, object]:
        return {"wall_s": round(time.monotonic() - self._wall, 2), "cpu_s": round(time.process_time() - self._cpu, 2)}


@dataclass(frozen=True, slots=True)
class Finished:
    """One completed job. Times in seconds; `duration_s` is its run time on GPUs of its own, without any wait."""

    id: str
    queue: str
    submit_s: float
    duration_s: float
    finish_s: float
    preemptions: int = 0

    @property
    def jct_s(self) -> float:
        return self.finish_s - self.submit_s


def summary(
    suite: str, policy: str, trace: str, jobs: list[Finished], watch: Stopwatch, policy_digest: str = ""
) -> dict[str, object]:
    """The keys of every trace suite. Percentiles interpolate linearly between order statistics."""
    jct = np.array([job.jct_s for job in jobs])
    delay = np.array([job.jct_s - job.duration_s for job in jobs])
    return {
        "suite": suite,
        "policy": policy,
        "policy_digest": policy_digest,
        "trace": trace,
        "jobs": len(jobs),
        "avg_jct_s": round(float(jct.mean()), 3),
        "p50_jct_s": round(float(np.percentile(jct, 50)), 3),
        "p99_jct_s": round(float(np.percentile(jct, 99)), 3),
        "makespan_s": round(max(job.finish_s for job in jobs), 3),
        "mean_delay_s": round(float(delay.mean()), 3),
        "preemptions": sum(job.preemptions for job in jobs),
        **watch.read(),
    }
