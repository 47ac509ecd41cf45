"""The Philly trace and its tenants ("virtual clusters"). P2: one node group per tenant; P3: the same nodes as one pool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heliostat_scheduler.simulator.tables import BadInput, read_rows, whole

GPUS_PER_NODE = 8
POOL = "pool"


@dataclass(frozen=True, slots=True)
class PhillyJob:
    """A rigid job of tenant `vc`. Times in whole seconds."""

    id: str
    vc: str
    submit_s: int
    duration_s: int
    gpus: int

    @property
    def overhead_s(self) -> int:
        """Run time added by a preemption (checkpoint, restart)."""
        return 40 if self.gpus <= GPUS_PER_NODE else 60


def load_vcs(path: Path) -> dict[str, int]:
    """Nodes of each tenant in the P2 partition, by tenant id (a string: 6214e9 is not a number)."""
    vcs = {}
    for line, row in enumerate(read_rows(path, ("vc", "nodes_P2")), start=2):
        vcs[row["vc"]] = whole(row, "nodes_P2", f"{path}, line {line}", least=1)
    return vcs


def load_jobs(path: Path, vcs: dict[str, int]) -> list[PhillyJob]:
    """Jobs of the known tenants by submit time; jobs of other tenants are dropped."""
    jobs = []
    for line, row in enumerate(read_rows(path, ("job_id", "vc", "submit_s", "duration_s", "num_gpus")), start=2):
        if row["vc"] not in vcs:
            continue
        where = f"{path}, line {line}"
        gpus = whole(row, "num_gpus", where, least=1)
        if gpus > GPUS_PER_NODE * sum(vcs.values()):
            raise BadInput(f"{where}: {gpus} GPUs can never fit the cluster")
        submit, duration = whole(row, "submit_s", where), whole(row, "duration_s", where)
        jobs.append(PhillyJob(row["job_id"], row["vc"], submit, duration, gpus))
    if not jobs:
        raise BadInput(f"{path}: no job belongs to a tenant of the --vcs table")
    return sorted(jobs, key=lambda job: job.submit_s)
