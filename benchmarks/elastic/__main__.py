"""What a change of size costs an elastic training: `python -m benchmarks.elastic [--rounds N] [--out FILE] [--report FILE]`.

Method. The demonstration's script (digits CNN, 1 to 4 workers, a checkpoint every 100 steps, at least 50 ms a step) goes 2 -> 4 -> 1 -> 2
workers: under stock Ray Train elasticity, on a lease's slots with a plain restart, and there with warm handover. The three take turns,
in a rotating order, each with its own Ray head. No real GPU: ours holds logical GPUs, stock holds CPUs (its
`get_device()` fails on logical GPUs); both compute on the CPU over gloo. The order is the moment when the demand is taken away or given
back: ours a lease of a higher epoch on the board, stock a request of higher priority at Ray's AutoscalingCoordinator. Stock looks every
2 s (`elastic_resize_monitor_interval_s`); `--only stock60` measures its default of 60 s, which adds up to a minute to everything from the
order on and nothing to the pause.

released  order to the moment the old slots are free: ours the runner's ack (with warm handover a growth takes nothing away, and says so),
          stock the end of the last process of the old workers, looked at every 20 ms
pause     last step before to first step after, seen in steps.jsonl every 10 ms; again: order to first step after
lost      step numbers that were made twice. Stock restarts from its last periodic checkpoint, so up to 100
overlap   order to last step before, with the steps per second meanwhile; calm: those of the 3 s before the order

--out appends one JSON line per change; --report prints the medians of such a file, their spread, and what is promised of them. A round takes
about five minutes on two cores: `--round K --out FILE` runs the K-th alone. Start it from the repository's root on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.elastic.report import Rows, print_report
from benchmarks.elastic.sides import RUNS

TAKE_TURNS = ("plain", "warm", "stock")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.elastic", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="each of the three runs once a round")
    parser.add_argument("--round", type=int, help="only this round, from 0: it decides who begins")
    parser.add_argument("--only", action="append", choices=tuple(RUNS), help="only this one (may be repeated)")
    parser.add_argument("--out", type=Path, help="append the figures of each change to this file")
    parser.add_argument("--report", type=Path, help="run nothing; the medians of such a file")
    options = parser.parse_args()
    if options.report is not None:
        print_report([json.loads(line) for line in options.report.read_text().splitlines()])
        return 0
    rows: Rows = []
    chosen = options.only or list(TAKE_TURNS)
    for turn in range(options.rounds) if options.round is None else (options.round,):
        first = turn % len(chosen)
        for side in (*chosen[first:], *chosen[:first]):
            rows += run(side, options.out)
    print_report(rows)
    print(json.dumps(rows))
    return 0


def run(side: str, out: Path | None) -> Rows:
    load = round(os.getloadavg()[0], 2)
    print(f"--- {side} (load average {load})", file=sys.stderr, flush=True)
    rows = [{**found.as_json(), "load_average": load} for found in RUNS[side]()]
    if out is not None:
        with out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


if __name__ == "__main__":
    sys.exit(main())
