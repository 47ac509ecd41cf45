"""A user's own trace: one row per job, CSV (plain or gzipped) or Parquet. `docs/simulator.md` documents the columns.

Required: submit_s, duration_s, num_gpus. Optional: job_id (default: row number), queue (default: `default`). A queue that the
caller gives no quota gets a share of the cluster by its demand in GPU seconds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE, PhillyJob
from heliostat_scheduler.simulator.tables import BadInput, Row, check_columns, number, numbered_rows, whole

REQUIRED = ("submit_s", "duration_s", "num_gpus")
DEFAULT_QUEUE = "default"
BUSY = 0.8
MOST_S = 1e11
"""Times beyond are in another unit than seconds."""
MOST_GPUS = 100_000
"""The largest cluster for which the engine is measured."""


def load(path: Path) -> list[PhillyJob]:
    """Jobs by submit time, the first at 0; times are rounded to whole seconds, run times up to at least one."""
    table = path.suffix.lower() == ".parquet"
    rows = list(enumerate(_parquet(path), start=1)) if table else numbered_rows(path, REQUIRED)
    given = {row.get("job_id") for _, row in rows}
    jobs: dict[str, PhillyJob] = {}
    for number_of_row, (at, row) in enumerate(rows, start=1):
        where = f"{path}, {'row' if table else 'line'} {at}"
        submit, duration = _seconds(row, "submit_s", where, -MOST_S), _seconds(row, "duration_s", where, 0)
        job_id, queue = row.get("job_id") or _unused(f"row-{number_of_row}", given), row.get("queue") or DEFAULT_QUEUE
        if job_id in jobs:
            raise BadInput(f"{where}: job_id {job_id} is there twice")
        jobs[job_id] = PhillyJob(job_id, queue, submit, max(1, duration), whole(row, "num_gpus", where, least=1))
    first = min(job.submit_s for job in jobs.values())
    return sorted((replace(job, submit_s=job.submit_s - first) for job in jobs.values()), key=lambda job: job.submit_s)


def _unused(name: str, given: set[str | None]) -> str:
    """The name, with as many strokes behind it as make it nobody else's."""
    while name in given:
        name += "'"
    return name


def _seconds(row: Row, column: str, where: str, least: float) -> int:
    seconds = number(row, column, where, least)
    if seconds > MOST_S:
        raise BadInput(f"{where}: column {column} holds {row[column]}; seconds are needed, at most {MOST_S:g}")
    return round(seconds)


def check_fit(jobs: list[PhillyJob], capacity: int) -> None:
    if capacity > MOST_GPUS:
        raise BadInput(f"a cluster of {capacity} GPUs is not simulated, at most {MOST_GPUS}; use fewer --nodes")
    largest = max(jobs, key=lambda job: job.gpus)
    if largest.gpus > capacity:
        raise BadInput(
            f"job {largest.id}: {largest.gpus} GPUs can never fit the {capacity} of the cluster; use more --nodes"
        )


def nodes_for(jobs: list[PhillyJob]) -> int:
    """Nodes that the trace would keep 80 % busy while jobs are submitted (or its longest runs), and that hold its largest job."""
    passed = max(jobs[-1].submit_s - jobs[0].submit_s, *(job.duration_s for job in jobs))
    mean = sum(job.gpus * job.duration_s for job in jobs) / passed
    return math.ceil(max(mean / BUSY, *(job.gpus for job in jobs)) / GPUS_PER_NODE)


def _parquet(path: Path) -> list[Row]:
    import pyarrow  # optional, and slow to import
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        table = parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadInput(f"{path}: not a readable Parquet table: {error}") from error
    if not table.num_rows:
        raise BadInput(f"{path}: the table has no rows")
    check_columns(path, table.column_names, REQUIRED)
    return [{key: str(value) for key, value in row.items() if value is not None} for row in table.to_pylist()]


def quotas(jobs: list[PhillyJob], capacity: int, given: dict[str, int] | None = None) -> dict[str, int]:
    """GPUs per queue: as given, the rest of the capacity by demand."""
    given = dict(given or {})
    demand: dict[str, int] = {}
    for job in jobs:
        demand[job.vc] = demand.get(job.vc, 0) + job.gpus * job.duration_s
    unknown = sorted(set(given) - set(demand))
    if unknown:
        raise BadInput(f"a quota is given to {', '.join(unknown)}; the trace's queues: {', '.join(sorted(demand))}")
    open_queues = sorted(queue for queue in demand if queue not in given)
    left, total = capacity - sum(given.values()), sum(demand[queue] for queue in open_queues)
    if left < 0:
        raise BadInput(f"the quotas add up to {sum(given.values())} GPUs, the cluster has {capacity}")
    shares = {queue: left * demand[queue] // total for queue in open_queues}
    spare = left - sum(shares.values())
    for queue in sorted(open_queues, key=lambda queue: (-demand[queue], queue))[:spare]:
        shares[queue] += 1
    return given | shares
