"""CPU seconds that a client costs beyond starting Python."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.platform.installation import Installation

HEAVY = ("ray", "torch", "pandas", "numpy", "fastapi", "sqlalchemy", "pydantic")
RUNS = 9


def measure(running: Installation, quick: bool) -> dict[str, Any]:  # Any: JSON
    env = os.environ | {
        "HELIOSTAT_HOME": str(running.home),
        "HELIOSTAT_URL": running.url,
        "HELIOSTAT_TOKEN": running.token,
    }
    runs = 3 if quick else RUNS
    helio = str(Path(sys.executable).parent / "helio")
    bare = cpu_seconds([sys.executable, "-c", "pass"], env, runs)
    imported = cpu_seconds([sys.executable, "-c", "import heliostat; heliostat.submit; heliostat.connect"], env, runs)
    submitted = cpu_seconds([helio, "submit", "--gpus", "1", "--hold", "--", "true"], env, runs)
    return {
        "python_cpu_s": round(bare, 3),
        "import_cpu_s_beyond_python": round(imported - bare, 3),
        "submit_cpu_s_beyond_python": round(submitted - bare, 3),
        "import_target_s": 0.25,
        "submit_target_s": 0.5,
        "heavy_modules_loaded": heavy_modules(env),
    }


def cpu_seconds(argv: list[str], env: dict[str, str], runs: int) -> float:
    """Median user + system seconds of `argv` and its children. The first, cold run does not count."""
    seconds = []
    for _ in range(runs + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(seconds[1:])


def heavy_modules(env: dict[str, str]) -> list[str]:
    """Which of HEAVY a real submission through the SDK loads into the client's process."""
    code = f"import sys, heliostat; heliostat.submit(['true'], gpus=1, hold=True); print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    return done.stdout.split()
