"""What the platform itself costs, measured end to end on this machine: `python -m benchmarks.platform [--quick] [--only NAME]`.

Method. A control plane with its own Ray head (2 logical GPUs) runs in a temporary home on free ports and is ended afterwards.

client   CPU seconds (user + system, children included) of `python -c "import heliostat"` and of a whole `helio submit`, minus those of
         `python -c pass`; median of 9 runs. Also which heavy modules an import or a submission loaded.
post     `POST /api/v1/jobs` from 8 connections in separate processes for 60 s, each answer a 201 that is sent after the commit; the engine
         decides meanwhile. Jobs ask for one GPU that is held by a long job, so all of them wait. Jobs per second.
list     `GET /api/v1/jobs?limit=50`, unfiltered, by state and by queue, with 100,000 jobs in the store; p50 and p99 of 200 requests each.
rest     Control plane and bridge with 10,000 finished and 100 queued jobs, nobody asking: CPU seconds over 60 s and PSS at the end.
echo     From the POST of an `echo` command job to the first byte of its log, beside the same through Ray's own Jobs API on the same head;
         10 alternating pairs, median. Both clients use plain HTTP and poll the log every 20 ms.

Absolute figures stand beside the load average at their start. The last line is one JSON object. --quick shortens post to 10 s, rest to 15 s,
echo to 4 pairs and list to 20,000 jobs; its figures are for a look, not for a report.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.platform import at_rest, client_cpu, first_line, listing, submissions
from benchmarks.platform.installation import installation

Section = Callable[[Any, bool], dict[str, Any]]  # Any: each section reports its own figures as JSON

SECTIONS: dict[str, Section] = {
    "client": client_cpu.measure,
    "echo": first_line.measure,
    "post": submissions.measure,
    "rest": at_rest.measure,
    "list": listing.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.platform", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs: a look, not a report")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="only this section (may be repeated)")
    options = parser.parse_args()
    results: dict[str, Any] = {"quick": options.quick}  # Any: JSON
    for name in options.only or list(SECTIONS):
        print(f"--- {name} (load average {os.getloadavg()[0]:.2f})", file=sys.stderr, flush=True)
        with installation() as running:
            figures = SECTIONS[name](running, options.quick)
        figures["load_average"] = round(os.getloadavg()[0], 2)
        results[name] = figures
        for key, value in figures.items():
            print(f"{name:8s} {key:34s} {value}", flush=True)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
