"""A user's own trace: one row per job, CSV (plain or gzipped) or Parquet. `docs/simulator.md` documents the columns.

Required: submit_s, duration_s, num_gpus. Optional: job_id (default: row number), queue (default: `default`). A queue that the
caller gives no quota gets a share of the cluster by its demand in GPU seconds.
"""

from __future__ import annotations

from pathlib import Path

from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.tables import BadInput, Row, number, read_rows, whole

REQUIRED = ("submit_s", "duration_s", "num_gpus")
DEFAULT_QUEUE = "default"


def load(path: Path, capacity: int) -> list[PhillyJob]:
    """Jobs by submit time; times are rounded to whole seconds, run times up to at least one."""
    rows = _parquet(path) if path.suffix == ".parquet" else read_rows(path, REQUIRED)
    jobs = []
    for line, row in enumerate(rows, start=2):
        where = f"{path}, row {line}"
        gpus = whole(row, "num_gpus", where, least=1)
        if gpus > capacity:
            raise BadInput(f"{where}: {gpus} GPUs can never fit the {capacity} of the cluster; use more --nodes")
        submit, duration = round(number(row, "submit_s", where)), max(1, round(number(row, "duration_s", where)))
        jobs.append(
            PhillyJob(row.get("job_id") or f"row-{line}", row.get("queue") or DEFAULT_QUEUE, submit, duration, gpus)
        )
    if len({job.id for job in jobs}) < len(jobs):
        raise BadInput(f"{path}: job_id is not unique")
    return sorted(jobs, key=lambda job: job.submit_s)


def _parquet(path: Path) -> list[Row]:
    import pyarrow.parquet as parquet  # optional, and slow to import

    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    table = parquet.read_table(path)
    missing = [column for column in REQUIRED if column not in table.column_names]
    if missing:
        raise BadInput(f"{path}: column {', '.join(missing)} is missing; found {', '.join(table.column_names)}")
    return [{key: str(value) for key, value in row.items() if value is not None} for row in table.to_pylist()]


def quotas(jobs: list[PhillyJob], capacity: int, given: dict[str, int] | None = None) -> dict[str, int]:
    """GPUs per queue: as given, the rest of the capacity by demand."""
    given = dict(given or {})
    demand: dict[str, int] = {}
    for job in jobs:
        demand[job.vc] = demand.get(job.vc, 0) + job.gpus * job.duration_s
    open_queues = sorted(queue for queue in demand if queue not in given)
    left, total = capacity - sum(given.values()), sum(demand[queue] for queue in open_queues)
    if left < 0:
        raise BadInput(f"the quotas add up to {sum(given.values())} GPUs, the cluster has {capacity}")
    shares = {queue: left * demand[queue] // total for queue in open_queues}
    spare = left - sum(shares.values())
    for queue in sorted(open_queues, key=lambda queue: (-demand[queue], queue))[:spare]:
        shares[queue] += 1
    return given | shares
