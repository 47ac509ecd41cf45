"""What each subcommand runs: load, replay, and the JSON keys of its suite."""

from __future__ import annotations

import argparse

from heliostat_scheduler.simulator import scenarios as conformance
from heliostat_scheduler.simulator.load.generators import kai, kueue
from heliostat_scheduler.simulator.load.latency import latency
from heliostat_scheduler.simulator.muri import data as muri_data
from heliostat_scheduler.simulator.muri.heliostat import MuriWorld
from heliostat_scheduler.simulator.muri.replay import replay as muri_replay
from heliostat_scheduler.simulator.openb.bench import openb
from heliostat_scheduler.simulator.philly.bench import philly
from heliostat_scheduler.simulator.pollux import profiles
from heliostat_scheduler.simulator.pollux.cluster import load_jobs, simulate
from heliostat_scheduler.simulator.pollux.heliostat import PolluxWorld
from heliostat_scheduler.simulator.pollux.yardsticks import Optimus, Tiresias, tune_fixed
from heliostat_scheduler.simulator.results import BASELINE_DIGEST, Stopwatch, summary, trace_name
from heliostat_scheduler.simulator.tables import BadInput

Result = dict[str, object]


def muri(arguments: argparse.Namespace) -> Result:
    jobs = muri_data.load(arguments.trace)
    watch, digest = Stopwatch(), BASELINE_DIGEST
    if arguments.policy == "heliostat":
        world = MuriWorld(jobs)
        done, digest = world.run(), world.drive.policy_digest
    else:
        done = muri_replay(jobs, arguments.policy)
    return summary("muri", arguments.policy, trace_name(arguments.trace), done, watch, digest)


def pollux(arguments: argparse.Namespace) -> Result:
    applications = profiles.load(arguments.profiles)
    jobs = load_jobs(arguments.workloads, arguments.set, arguments.workload, applications)
    watch, digest = Stopwatch(), BASELINE_DIGEST
    if arguments.policy == "heliostat":
        world = PolluxWorld()
        done, digest = simulate(jobs, world.decide, world.tune), world.drive.policy_digest
    else:
        decide = (Tiresias() if arguments.policy == "tiresias" else Optimus()).decide
        done = simulate(jobs, decide, tune_fixed)
    trace = f"{arguments.set}-{arguments.workload}"
    return summary("pollux", arguments.policy, trace, done, watch, digest)


def decide(arguments: argparse.Namespace) -> Result:
    return latency(arguments.gpus, arguments.pending, arguments.queues, arguments.cycles, arguments.seed)


def kueue_baseline(_: argparse.Namespace) -> Result:
    return kueue()


def kai_fill(_: argparse.Namespace) -> Result:
    return kai()


def scenarios(arguments: argparse.Namespace) -> Result:
    """`failures` holds, per failed scenario, its id and what was wrong."""
    if not arguments.file.is_file():
        raise BadInput(f"{arguments.file}: no such file")
    cases = conformance.load(arguments.file)
    problems = {case.id: conformance.run_case(case) for case in cases}
    failures = [{"id": name, "problems": found} for name, found in problems.items() if found]
    return {
        "suite": "scenarios",
        "passed": len(problems) - len(failures),
        "failed": len(failures),
        "failures": failures,
    }


__all__ = ["decide", "kai_fill", "kueue_baseline", "muri", "openb", "philly", "pollux", "scenarios"]
