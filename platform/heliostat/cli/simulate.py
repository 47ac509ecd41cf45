"""`helio simulate`: a trace of your own under several policies, on virtual time. Needs no Ray, no GPU and no control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from heliostat.cli.app import hint, json_option, show, show_json, width
from heliostat.client.files import check_place, writing
from heliostat.render.amounts import duration, percent
from heliostat.render.table import table
from heliostat.wire.errors import BadRequest

HEAD = ("POLICY", "JOBS", "AVG JCT", "P50", "P99", "DELAY", "MAKESPAN", "GPUS HELD", "PREEMPTIONS", "TOOK")

REPORT = ("The report", "Choose another file with --report.")


@click.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME",
    help="default (the shipped one), reclaim-quota, fair-sharing, classic-preemption, elastic-jobs, fifo, sjf, srtf or tiresias. "
    "Several may be given; default and fifo if none is.",
)  # fmt: skip
@click.option("--nodes", type=click.IntRange(min=1), help="Nodes of eight GPUs; as many as the trace keeps 80 % busy.")
@click.option(
    "--quota", "quotas", multiple=True, metavar="QUEUE=GPUS", help="Guarantee of a queue; the rest by demand."
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the HTML report goes (TRACE-simulation.html).",
)
@json_option
def simulate(
    trace: Path,
    policies: tuple[str, ...],
    nodes: int | None,
    quotas: tuple[str, ...],
    report: Path | None,
    as_json: bool,
) -> None:
    """Replay TRACE (CSV or Parquet: submit_s, duration_s, num_gpus, and if you like job_id and queue) under each policy.

    Prints one line per policy and writes a self-contained HTML report: waiting, utilization, fairness over time, every GPU.
    """
    compare, bad_input = _simulator()
    target = report or Path(f"{Path(trace.name.removesuffix('.gz')).stem}-simulation.html")
    check_place(target, *REPORT)
    try:
        found = compare(trace, list(policies or ("default", "fifo")), nodes, _quotas(quotas) or None)
    except bad_input as error:
        raise BadRequest(
            str(error), remedy="The columns of a trace: docs/simulator.md. See: helio simulate --help"
        ) from error
    with writing(*REPORT):
        target.write_text(found.html(), encoding="utf-8")
    if as_json:
        show_json(
            {
                "trace": found.trace,
                "gpus": found.gpus,
                "quotas": found.quotas,
                "report": str(target),
                "items": found.rows,
            }
        )
        return
    show(table(HEAD, [_row(row) for row in found.rows], right=frozenset(HEAD[1:]), width=width()))
    hint(f"{found.gpus} GPUs; quotas {', '.join(f'{queue} {gpus}' for queue, gpus in sorted(found.quotas.items()))}")
    hint(f"Report: {target}")


def _simulator() -> tuple[
    Any, type[Exception]
]:  # Any: the simulator is imported only here, the client may lack its libraries
    try:
        from heliostat_scheduler.simulator import compare
        from heliostat_scheduler.simulator.tables import BadInput
    except ModuleNotFoundError as error:
        raise BadRequest(
            f"The simulator needs {error.name}, which is not installed.",
            remedy="Install it with: pip install 'heliostat[jobs]'",
        ) from error
    return compare, BadInput


def _quotas(given: tuple[str, ...]) -> dict[str, int]:
    """`a=8` -> {"a": 8}."""
    quotas = {}
    for text in given:
        queue, sign, gpus = text.partition("=")
        if not sign or not queue or not gpus.isdecimal():
            raise BadRequest(f"--quota {text!r} is not QUEUE=GPUS.", remedy="For example: --quota research=16")
        quotas[queue] = int(gpus)
    return quotas


def _row(row: dict[str, Any]) -> tuple[str, ...]:  # Any: numbers and words
    return (
        str(row["policy"]),
        str(row["jobs"]),
        *(duration(row[key]) for key in ("avg_jct_s", "p50_jct_s", "p99_jct_s", "mean_delay_s", "makespan_s")),
        percent(row["utilization"]),
        str(row["preemptions"]),
        duration(row["wall_s"]),
    )
