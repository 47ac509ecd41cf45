"""The scheduling benchmarks, all of them or by name: `python -m benchmarks.scheduler --traces DIR [NAME ...]`.

Each command is run in a process of its own; its JSON is appended, with the command, to `benchmarks/scheduler/results.jsonl`. A command that
stands there under today's policy digest is not run again (`--again` runs it). `--list` names the commands; timed ones (decide, kai-fill,
kueue-baseline) belong on a machine that does nothing else. At the end, and with `--table` alone, the table of results beside pass lines and
moonshots is written into `docs/benchmarks-scheduler.md`. Exit status 1: a pass line is missed, or a command failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from heliostat_scheduler.core import Engine

from benchmarks.scheduler.commands import Command, commands
from benchmarks.scheduler.lines import Line, Results, rows

# The newest answer of a command counts; `--again` after a change of the engine that does not show in the policy's digest.
FILE = Path(__file__).parent / "results.jsonl"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-scheduler.md"
DIGEST = Engine().policy_digest()
HEAD = f"""# Scheduling benchmarks: results

Written by `python -m benchmarks.scheduler --table` from `benchmarks/scheduler/results.jsonl`, which has every command and its whole
answer. One policy in all: digest `{DIGEST}` (`helio queue policy --digest`). How each trace maps to queues: [the simulator](simulator.md).
A line appears once all its commands have been run.

| what | measured | pass line | | moonshot | |
|---|---|---|---|---|---|
"""


def known() -> Results:
    """The latest answer of each command under today's policy; yardsticks and scenarios have no policy of ours in them."""
    found: Results = {}
    for text in FILE.read_text().splitlines() if FILE.is_file() else []:
        row = json.loads(text)
        if row["result"].get("policy_digest", DIGEST) == DIGEST or row["result"].get("policy") != "heliostat":
            found[row["name"]] = row["result"]
    return found


def run(command: Command) -> bool:
    words = [sys.executable, "-m", "heliostat_scheduler.simulator", *command.arguments]
    print(
        f"--- {command.name}: {' '.join(words[1:])} (load average {os.getloadavg()[0]:.2f})",
        file=sys.stderr,
        flush=True,
    )
    began = os.getloadavg()[0]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if not lines or done.returncode not in (0, 1):
        print(f"{command.name}: exit status {done.returncode}", file=sys.stderr)
        return False
    result: dict[str, Any] = json.loads(lines[-1])  # Any: JSON
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    row = {
        "name": command.name, "command": _shown(command), "commit": commit.strip(), "load_average": round(began, 2), "result": result,
    }  # fmt: skip
    with FILE.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return True


def _shown(command: Command) -> str:
    """The command without this machine's folders."""
    words = [
        f"$TRACES/{Path(word).parent.name}/{Path(word).name}" if word.startswith("/") else word
        for word in command.arguments
    ]
    return " ".join(["python -m heliostat_scheduler.simulator", *words])


def table(results: Results) -> list[Line]:
    lines = list(rows(results))
    page = HEAD
    for line in lines:
        reached = "" if line.reached is None else "yes" if line.reached else "no"
        page += f"| {line.what} | {line.measured} | {line.asked} | {'yes' if line.holds else '**no**'} | {line.moonshot} | {reached} |\n"
    PAGE.write_text(page)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scheduler", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only commands whose name begins with one of these")
    parser.add_argument("--traces", type=Path, help="folder with muri, philly, pollux, openb_fgd")
    parser.add_argument("--again", action="store_true", help="also what has been run")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    failed = False
    if not options.table:
        if options.traces is None:
            parser.error("--traces is needed")
        chosen = [
            c
            for c in commands(options.traces.resolve())
            if not options.names or c.name.startswith(tuple(options.names))
        ]
        for command in chosen:
            if options.list:
                print(command.name + (" (timed)" if command.timed else ""))
            elif options.again or command.name not in known():
                failed |= not run(command)
        if options.list:
            return 0
    lines = table(known())
    missed = [line.what for line in lines if not line.holds]
    print(json.dumps({"policy_digest": DIGEST, "lines": len(lines), "missed": missed}))
    return int(failed or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
