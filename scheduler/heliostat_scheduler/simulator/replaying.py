"""Recorded simulations, executed again: `python -m heliostat_scheduler.simulator replay --cycles N`.

Seeded fault runs are recorded cycle by cycle as the live control plane does it (a snapshot, then the events, the decisions and the state
digest of each cycle), and a second process with another hash seed executes the file and compares every byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from heliostat_scheduler.core import codec
from heliostat_scheduler.core.decisions import Plan
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.events import Event
from heliostat_scheduler.simulator.faults import FaultRun
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.tables import BadInput

HASH_SEED = "4217"
CYCLE = {"events", "at_ms", "plan", "digest"}


class Recorder:
    """An engine that writes down what it is told and what it decides."""

    def __init__(self, engine: Engine, out: IO[str]) -> None:
        self._engine = engine
        self._out = out
        self._events: list[str] = []
        self.cycles = 0
        out.write(json.dumps({"snapshot": engine.snapshot().decode()}) + "\n")

    def __getattr__(self, name: str) -> Any:  # Any: everything else is the engine's own
        return getattr(self._engine, name)

    def apply(self, event: Event, now_ms: int) -> None:
        self._engine.apply(event, now_ms)
        self._events.append(f"[{now_ms},{codec.to_json(event)}]")

    def decide(self, now_ms: int) -> Plan:
        plan = self._engine.decide(now_ms)
        self.cycles += 1
        line = {"events": "[" + ",".join(self._events) + "]", "at_ms": now_ms, "plan": codec.to_json(plan)}
        self._out.write(json.dumps({**line, "digest": self._engine.digest()}) + "\n")
        self._events = []
        return plan


def record(path: Path, cycles: int, seed: int) -> int:
    """Fault runs of this seed and the ones after it until so many cycles are recorded; how many it were."""
    done = 0
    with path.open("w", encoding="utf-8") as out, Progress("record", cycles) as bar:
        while done < cycles:
            run = FaultRun(seed)
            recorder = Recorder(run.engine, out)
            run.engine = recorder  # type: ignore[assignment]  # it has every method of the engine
            run.run()
            done, seed = done + recorder.cycles, seed + 1
            bar.at(done)
    return done


def execute(lines: Iterator[str]) -> tuple[int, int | None]:
    """(cycles compared, the first line that came out otherwise or None)."""
    engine, cycles = Engine(), 0
    for number, line in enumerate(lines, start=1):
        row = _row(line, number)
        if "snapshot" in row:
            engine = Engine.restore(row["snapshot"].encode())
            continue
        for at_ms, event in json.loads(row["events"]):
            engine.apply(codec.decode(codec.TAGGED[event["type"]], event), at_ms)
        if codec.to_json(engine.decide(row["at_ms"])) != row["plan"] or engine.digest() != row["digest"]:
            return cycles, number
        cycles += 1
    return cycles, None


def _row(line: str, number: int) -> dict[str, Any]:  # Any: JSON
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not ("snapshot" in row or row.keys() >= CYCLE):
        raise BadInput(f"line {number} is neither a snapshot nor a cycle of a record")
    return row


def replay(arguments: argparse.Namespace) -> dict[str, object]:
    """Record and execute; with --file only execute (what the second process does)."""
    began = time.monotonic()
    if arguments.file is not None:
        try:
            with arguments.file.open(encoding="utf-8") as lines:
                cycles, differs = execute(lines)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{arguments.file}: not a readable record: {error}") from error
        return {"suite": "replay", "cycles": cycles, "differs": differs, "failed": int(differs is not None)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.jsonl"
        recorded = record(path, arguments.cycles, arguments.seed)
        argv = [sys.executable, "-m", "heliostat_scheduler.simulator", "replay", "--file", str(path)]
        done = subprocess.run(
            argv, env={**os.environ, "PYTHONHASHSEED": HASH_SEED}, capture_output=True, text=True, check=False
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return {**answer, "recorded": recorded, "hash_seed": HASH_SEED, "wall_s": round(time.monotonic() - began, 1)}
