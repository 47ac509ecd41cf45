"""`helio demo` from the outside: what it ends with, what it says, and that nothing of it is left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.slow]
HELIO = Path(sys.executable).parent / "helio"


def leftovers() -> list[str]:
    """Processes that belong to a demo's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("helio-demo-" in word for word in process.info["cmdline"] or []):
            found.append(" ".join(process.info["cmdline"]))
    return found


def test_the_demo_holds_what_it_promises() -> None:
    folders = set(Path("/tmp").glob("helio-demo-*"))
    told = subprocess.run([HELIO, "demo", "--json"], capture_output=True, text=True, timeout=840, check=False)
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}"
    result = json.loads(told.stdout.splitlines()[-1])
    assert result["accuracy"] >= 0.95
    assert 0 <= result["checkpoint_steps_recomputed"] <= 100
    assert result["gpu_seconds"]["held"] > 0 and set(result["gpu_seconds"]) == {"held", "used"}
    first, _, urgent, elastic, gang = result["jobs"]
    assert [job["state"] for job in result["jobs"]] == ["succeeded"] * 5
    assert [job["attempts"] for job in result["jobs"]] == [2, 1, 1, 1, 1]
    assert (elastic["queue"], gang["queue"]) == ("research", "production")
    assert result["steps_lost"] == 0
    assert [(resize["from"], resize["to"]) for resize in result["resizes"]][:2] == [(4, 2), (2, 4)]
    assert all(0 < resize["released_s"] < resize["training_again_s"] for resize in result["resizes"])
    assert (first["queue"], urgent["queue"]) == ("research", "production")
    assert all(check["held"] for check in result["checks"]), result["checks"]
    assert all(job["waited_s"] > 0 for job in result["jobs"])
    assert {"ReclaimedFor", "PreemptedFor"} & {past["code"] for past in first["reason_history"]}
    assert "what would help" in told.stderr
    assert set(result["model"]) == {"name", "version", "sha256"} and result["model"]["name"] == "digits"
    assert result["endpoint"].endswith("/endpoints/digits")
    assert result["http_accuracy"] >= 0.95 and result["test_split"]["images"] == 100
    assert 0 < result["p50_ms"] < 1000 and result["first_prediction_s"] < 300
    assert leftovers() == []
    assert set(Path("/tmp").glob("helio-demo-*")) == folders
