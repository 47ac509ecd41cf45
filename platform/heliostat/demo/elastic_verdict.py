"""What act two proves, recounted from the step log: the lease changed under a live training, and no step was lost or done twice."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from heliostat_jobs.spec import STEPS_FILE, recount_run

from heliostat.demo.elastic_act import ELASTIC, EPOCHS, MOST, TAKEN, Borrowed
from heliostat.render.amounts import duration

AT_ONCE_S = 10.0
"""How long production may wait for the two GPUs: a checkpoint and the end of the workers, on a machine that is busy."""


def steps_lost(run_dir: Path) -> int:
    """Steps that are missing or were run twice, or whose batch was another the second time."""
    count = recount_run(run_dir)
    return count.missing + count.recomputed + count.changed


def resizes(run_dir: Path, borrowed: Borrowed) -> list[dict[str, Any]]:  # Any: JSON
    """Each resize with its times from the order on; training again: when the first step at the new size was done."""
    rows = _rows(run_dir)
    found = []
    for resize in borrowed.resizes:
        ordered_s = datetime.fromisoformat(str(resize["at"])).timestamp()
        again = next((row["at"] for row in rows if row["at"] >= ordered_s and row["world_size"] == resize["to"]), None)
        kept = {name: resize[name] for name in ("job", "from", "to", "reason", "checkpoint_s", "released_s")}
        found.append({**kept, "training_again_s": None if again is None else round(again - ordered_s, 2)})
    return found


def checks(run_dir: Path, borrowed: Borrowed, steps_per_epoch: int) -> list[tuple[str, bool]]:
    sizes = [(resize["from"], resize["to"]) for resize in borrowed.resizes]
    counted = recount_run(run_dir)
    return [
        (f"production's gang ran at once (waited {duration(borrowed.gang.get('waited_s'))})", _at_once(borrowed)),
        (
            f"{ELASTIC} shrank {MOST} -> {MOST - TAKEN} for it and grew back, all in one attempt",
            sizes[:2] == [(MOST, MOST - TAKEN), (MOST - TAKEN, MOST)] and borrowed.job.get("attempts") == 1,
        ),
        (
            "no step of it was lost or done twice",
            steps_lost(run_dir) == 0 and counted.distinct == EPOCHS * steps_per_epoch,
        ),
        (f"{ELASTIC} and the gang succeeded", _succeeded(borrowed)),
    ]


def as_text(found: list[dict[str, Any]]) -> str:  # Any: JSON
    """One line a resize."""
    return "\n".join(
        f"{resize['job']}: {resize['from']} -> {resize['to']} GPUs ({resize['reason']}), checkpoint after "
        f"{duration(resize['checkpoint_s'])}, released after {duration(resize['released_s'])}, training again after "
        f"{duration(resize['training_again_s'])}"
        for resize in found
    )


def _rows(run_dir: Path) -> list[dict[str, Any]]:  # Any: JSON
    lines = (run_dir / STEPS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def _at_once(borrowed: Borrowed) -> bool:
    waited = borrowed.gang.get("waited_s")
    return borrowed.gang.get("attempts") == 1 and waited is not None and waited <= AT_ONCE_S


def _succeeded(borrowed: Borrowed) -> bool:
    states = [job.get("state") for job in (borrowed.job, borrowed.gang)]
    return states == ["succeeded"] * 2 and borrowed.child.process.returncode == 0
