"""The command line of the simulator. Each subcommand names the function that runs it."""

from __future__ import annotations

import argparse
from pathlib import Path

from heliostat_scheduler.simulator import fuzz, replaying, suites
from heliostat_scheduler.simulator.eta import command as eta
from heliostat_scheduler.simulator.load.growth import growth


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m heliostat_scheduler.simulator", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    bench = commands.add_parser("bench", help="replay a benchmark; prints one JSON object on the last line")
    benches = bench.add_subparsers(required=True, metavar="SUITE")
    _muri(benches.add_parser("muri", help="Muri traces: 992 to 1,494 rigid jobs on 64 GPUs"))
    _philly(benches.add_parser("philly", help="Philly: 47,192 jobs of eleven tenants on 728 GPUs"))
    _pollux(benches.add_parser("pollux", help="Pollux: 160 elastic jobs on 64 GPUs"))
    _openb(benches.add_parser("openb", help="openb: placing pods on 6,212 GPUs"))
    _decide(benches.add_parser("decide", help="latency of one decide call"))
    kueue = benches.add_parser("kueue-baseline", help="Kueue's public load generator: 15,000 jobs")
    kueue.set_defaults(run=suites.kueue_baseline)
    kai = benches.add_parser("kai-fill", help="KAI's fill test: 4,000 one-GPU jobs on 500 nodes")
    kai.set_defaults(run=suites.kai_fill)
    growing = commands.add_parser(
        "growth", help="latency of decide by cluster size and by waiting jobs: table and picture"
    )
    growing.add_argument("--out", type=Path, required=True, help="folder for growth.svg and growth.md")
    growing.add_argument("--sizes", type=_positive, nargs="+", default=[1_000, 3_000, 10_000, 30_000, 100_000])
    growing.add_argument("--gpus", type=_positive, default=10_000, help="GPUs while the waiting jobs grow")
    growing.add_argument("--pending", type=_positive, default=2_000, help="waiting jobs while the GPUs grow")
    growing.add_argument("--cycles", type=_positive, default=200)
    growing.set_defaults(run=growth)
    scenarios = commands.add_parser("scenarios", help="conformance facts: passed and failed by id")
    scenarios.add_argument("file", type=Path)
    scenarios.set_defaults(run=suites.scenarios)
    again = commands.add_parser(
        "replay", help="record fault runs and execute them again in another process and hash seed"
    )
    again.add_argument("--cycles", type=_positive, default=100_000)
    again.add_argument("--seed", type=int, default=1)
    again.add_argument("--file", type=Path, help="only execute this record")
    again.set_defaults(run=replaying.replay)
    _eta(commands.add_parser("eta", help="Philly: how well starts that are estimated at submission hold"))
    fuzzing = commands.add_parser("fuzz", help="seeded faults until a number of cycles; exit 1 on a violation")
    fuzzing.add_argument("--cycles", type=_positive, default=100_000)
    fuzzing.add_argument("--seed", type=int, default=1, help="the first seed; the next runs take the ones after it")
    fuzzing.set_defaults(run=fuzz.fuzz)
    return top


def _muri(command: argparse.ArgumentParser) -> None:
    command.add_argument("--trace", type=Path, required=True)
    command.add_argument("--policy", choices=["srtf", "srsf", "tiresias", "heliostat"], required=True)
    command.set_defaults(run=suites.muri)


def _philly(command: argparse.ArgumentParser) -> None:
    command.add_argument("--trace", type=Path, required=True)
    command.add_argument("--vcs", type=Path, required=True, help="nodes of each tenant (columns vc, nodes_P2)")
    command.add_argument("--cluster", choices=["P2", "P3"], required=True, help="P2: by tenant; P3: one pool")
    command.add_argument("--policy", choices=["fifo", "sjf", "srtf", "tiresias", "heliostat"], required=True)
    command.set_defaults(run=suites.philly)


def _pollux(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workloads", type=Path, required=True)
    command.add_argument("--set", required=True, help="workloads (1.0x), workloads-0.5 or workloads-1.5")
    command.add_argument("--workload", type=int, required=True)
    command.add_argument("--profiles", type=Path, required=True, help="folder with the applications' measurements")
    command.add_argument("--policy", choices=["tiresias", "optimus", "heliostat"], required=True)
    command.set_defaults(run=suites.pollux)


def _openb(command: argparse.ArgumentParser) -> None:
    command.add_argument("--nodes", type=Path, required=True)
    command.add_argument("--pods", type=Path, required=True)
    command.add_argument("--policy", choices=["random", "bestfit", "fgd", "heliostat"], required=True)
    command.add_argument("--seeds", type=_positive, default=10)
    command.add_argument(
        "--ties", choices=["name", "random"], default="name",
        help="equal scores: smallest name (best fit first for heliostat), or renamed nodes at random",
    )  # fmt: skip
    command.set_defaults(run=suites.openb)


def _eta(command: argparse.ArgumentParser) -> None:
    command.add_argument("--trace", type=Path, required=True)
    command.add_argument("--vcs", type=Path, required=True, help="nodes of each tenant (columns vc, nodes_P2)")
    command.add_argument(
        "--record",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the passes are kept; an interrupted study goes on there",
    )
    command.add_argument("--apart", action="store_true", help="each tenant a cluster of its own, without lending")
    command.add_argument("--unranked", action="store_true", help="the engine is told nothing about run times")
    command.add_argument("--share", type=float, default=1.0, help="share of the jobs that waited which get an estimate")
    command.add_argument("--samples", type=_positive, default=16, help="possible futures per estimate; live: 16")
    command.set_defaults(run=eta.run)


def _decide(command: argparse.ArgumentParser) -> None:
    command.add_argument("--gpus", type=_positive, required=True)
    command.add_argument("--pending", type=_positive, required=True)
    command.add_argument("--queues", type=_positive, required=True)
    command.add_argument("--cycles", type=_positive, default=1000)
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=suites.decide)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
