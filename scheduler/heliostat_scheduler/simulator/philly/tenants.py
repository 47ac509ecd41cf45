"""The delay criterion per tenant: with sharing, nobody may wait longer than alone on its own nodes.

D_v = mean of (finish - submit - duration) over v's jobs. S_v = the best that v had alone on its own nodes: FIFO, Tiresias, or the
shipped policy. v passes when D_v <= S_v + 60 s. Measured FIFO and Tiresias are read from `baselines_measured_per_vc.csv` beside the
trace where it holds this trace (same tenant, same number of jobs); otherwise they are replayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from heliostat_scheduler.simulator.philly.data import GPUS_PER_NODE, PhillyJob
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.philly.replay import replay
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.results import Finished
from heliostat_scheduler.simulator.tables import number, read_rows, whole

SLACK_S = 60.0
STATIC_POLICIES = ("fifo", "tiresias")
MEASURED = "baselines_measured_per_vc.csv"


def delays(done: Iterable[Finished]) -> dict[str, float]:
    """Mean of (finish - submit - duration) per tenant."""
    by_vc: dict[str, list[float]] = {}
    for job in done:
        by_vc.setdefault(job.queue, []).append(job.jct_s - job.duration_s)
    return {vc: sum(values) / len(values) for vc, values in by_vc.items()}


def static_delays(jobs: list[PhillyJob], vcs: dict[str, int], trace: Path) -> dict[str, float]:
    """S_v of every tenant that has jobs. Jobs larger than all of the tenant's nodes, which could never run alone, are left out."""
    measured = _measured(trace.parent / MEASURED)
    best: dict[str, float] = {}
    with Progress("philly, each tenant alone", len(vcs)) as bar:
        for count, (vc, nodes) in enumerate(vcs.items()):
            mine = [job for job in jobs if job.vc == vc and job.gpus <= GPUS_PER_NODE * nodes]
            if mine:
                best[vc] = min(
                    _alone(mine, vc, nodes), *(_yardstick(mine, nodes, p, measured) for p in STATIC_POLICIES)
                )
            bar.at(count)
    return best


def _alone(mine: list[PhillyJob], vc: str, nodes: int) -> float:
    return delays(PhillyWorld(mine, {vc: nodes}, name="").run())[vc]


def _yardstick(mine: list[PhillyJob], nodes: int, policy: str, measured: dict[tuple[str, str, int], float]) -> float:
    average = measured.get((mine[0].vc, policy, len(mine)))
    if average is None:
        return delays(replay(mine, nodes, policy))[mine[0].vc]
    return average - sum(job.duration_s for job in mine) / len(mine)


def _measured(path: Path) -> dict[tuple[str, str, int], float]:
    """(tenant, policy, jobs) -> average completion time on the tenant's own P2 nodes."""
    if not path.is_file():
        return {}
    found = {}
    columns = ("vc", "cluster", "policy", "n_jobs", "avg_jct_s")
    for line, row in enumerate(read_rows(path, columns), start=2):
        if row["cluster"] == "P2":
            where = f"{path}, line {line}"
            found[row["vc"], row["policy"], whole(row, "n_jobs", where)] = number(row, "avg_jct_s", where)
    return found


def per_vc(done: list[Finished], static: dict[str, float]) -> dict[str, dict[str, object]]:
    """jobs, delay_s, static_delay_s and pass, by tenant."""
    counts: dict[str, int] = {}
    for job in done:
        counts[job.queue] = counts.get(job.queue, 0) + 1
    return {
        vc: {
            "jobs": counts[vc],
            "delay_s": round(delay, 1),
            "static_delay_s": round(static[vc], 1) if vc in static else None,
            "pass": delay <= static[vc] + SLACK_S if vc in static else None,
        }
        for vc, delay in sorted(delays(done).items())
    }
