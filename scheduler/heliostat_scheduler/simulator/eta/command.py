"""`python -m heliostat_scheduler.simulator eta`: the study on a trace, as one JSON object.

Three steps, each kept in the folder of the recording, so that an interrupted study goes on where it was: the trace is run, estimates are
computed, all is scored. The engine is told what is expected of each job, as it is live; `--unranked` leaves that out. `--apart` makes each
tenant a cluster of its own (its nodes of P2): nobody lends, so many more jobs wait.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from heliostat_scheduler.core.digest import policy_digest
from heliostat_scheduler.core.model import Policy
from heliostat_scheduler.simulator.eta.recording import LEAST_WAIT_S, Recording, facts_of, record, recorded
from heliostat_scheduler.simulator.eta.scoring import tables
from heliostat_scheduler.simulator.eta.telling import Told, tell
from heliostat_scheduler.simulator.philly import data
from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.tables import BadInput


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Keys: told, raw, naive, differences and per_vc (see `tables`); jobs: estimates; waited: all that waited more than a minute."""
    there = next(folder for folder in (arguments.record, *arguments.record.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise BadInput(f"--record {there} is no folder")
    vcs = data.load_vcs(arguments.vcs)
    jobs = data.load_jobs(arguments.trace, vcs)
    began = time.monotonic()
    told, waited = list[Told](), 0
    for folder, mine, nodes in _parts(arguments.record, jobs, vcs, arguments.apart):
        waited += _recorded(mine, nodes, folder, Recording(arguments.share, not arguments.unranked))
        told += tell({job.id: job for job in mine}, folder, arguments.share, arguments.samples, not arguments.unranked)
    if not told:
        raise BadInput("no job that was drawn had to wait; use a larger --share")
    told.sort(key=lambda row: (row.at_s, row.job))
    return {
        "suite": "eta", "trace": arguments.trace.name, "apart": arguments.apart,
        "ranked": not arguments.unranked, "policy_digest": policy_digest(Policy()),
        "share": arguments.share, "samples": arguments.samples, "waited": waited, "jobs": len(told), **tables(told),
        "wall_s": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _recorded(jobs: list[PhillyJob], nodes: dict[str, int], folder: Path, how: Recording) -> int:
    """Record the trace, unless that is done; how many jobs waited more than a minute."""
    there = recorded(folder)
    if there is None:
        record(jobs, nodes, folder, how)
    elif there.ranked != how.ranked or there.share < how.share:
        raise BadInput(f"{folder} was recorded otherwise ({there}); name another folder")
    submitted = {job.id: job.submit_s for job in jobs}
    return sum(what == "started" and now_s - submitted[job] > LEAST_WAIT_S for now_s, what, job in facts_of(folder))


def _parts(
    folder: Path, jobs: list[PhillyJob], vcs: dict[str, int], apart: bool
) -> list[tuple[Path, list[PhillyJob], dict[str, int]]]:
    """(folder, jobs, nodes) of each cluster. Alone, a tenant cannot run what is larger than all of its nodes: left out."""
    if not apart:
        return [(folder, jobs, vcs)]
    return [
        (folder / vc, [job for job in jobs if job.vc == vc and job.gpus <= data.GPUS_PER_NODE * nodes], {vc: nodes})
        for vc, nodes in vcs.items()
    ]
