"""What each subcommand runs: load, replay, and the JSON keys of its suite."""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np

from heliostat_scheduler.simulator import scenarios as conformance
from heliostat_scheduler.simulator.load.generators import kai, kueue
from heliostat_scheduler.simulator.load.latency import latency
from heliostat_scheduler.simulator.muri import data as muri_data
from heliostat_scheduler.simulator.muri.heliostat import MuriWorld
from heliostat_scheduler.simulator.muri.replay import replay as muri_replay
from heliostat_scheduler.simulator.openb import data as openb_data
from heliostat_scheduler.simulator.openb import replay as openb_replay
from heliostat_scheduler.simulator.openb.fleet import Fleet
from heliostat_scheduler.simulator.openb.heliostat import EnginePlacer
from heliostat_scheduler.simulator.philly import data as philly_data
from heliostat_scheduler.simulator.philly.heliostat import PhillyWorld
from heliostat_scheduler.simulator.philly.replay import replay as philly_replay
from heliostat_scheduler.simulator.philly.tenants import per_vc, static_heliostat
from heliostat_scheduler.simulator.pollux import profiles
from heliostat_scheduler.simulator.pollux.cluster import load_jobs, simulate
from heliostat_scheduler.simulator.pollux.heliostat import PolluxWorld
from heliostat_scheduler.simulator.pollux.yardsticks import Optimus, Tiresias, tune_fixed
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.results import Finished, summary
from heliostat_scheduler.simulator.tables import BadInput

Result = dict[str, object]
DEFAULT_DIGEST = "baseline"
"""policy_digest of a yardstick: it has no policy of ours."""


def trace_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".csv")


def muri(arguments: argparse.Namespace) -> Result:
    jobs = muri_data.load(arguments.trace)
    began, digest = time.monotonic(), DEFAULT_DIGEST
    if arguments.policy == "heliostat":
        world = MuriWorld(jobs)
        done, digest = world.run(), world.drive.policy_digest
    else:
        done = muri_replay(jobs, arguments.policy)
    return summary("muri", arguments.policy, trace_name(arguments.trace), done, time.monotonic() - began, digest)


def philly(arguments: argparse.Namespace) -> Result:
    vcs = philly_data.load_vcs(arguments.vcs)
    jobs = philly_data.load_jobs(arguments.trace, vcs)
    trace = f"{trace_name(arguments.trace)} on {arguments.cluster}"
    began = time.monotonic()
    if arguments.policy == "heliostat":
        return _philly_heliostat(arguments, vcs, jobs, trace)
    with Progress("philly", len(jobs)) as bar:
        if arguments.cluster == "P3":
            done = philly_replay(jobs, sum(vcs.values()), arguments.policy, bar.at)
        else:
            done = []
            for vc, nodes in vcs.items():
                mine = [job for job in jobs if job.vc == vc]
                done += philly_replay(mine, nodes, arguments.policy)
                bar.at(len(done))
    result = summary("philly", arguments.policy, trace, done, time.monotonic() - began, DEFAULT_DIGEST)
    return result | {"per_vc": per_vc(done, None)}


def _philly_heliostat(
    arguments: argparse.Namespace, vcs: dict[str, int], jobs: list[philly_data.PhillyJob], trace: str
) -> Result:
    if arguments.cluster == "P3":
        pooled = [philly_data.PhillyJob(j.id, philly_data.POOL, j.submit_s, j.duration_s, j.gpus) for j in jobs]
        jobs, vcs = pooled, {philly_data.POOL: sum(vcs.values())}
    began = time.monotonic()
    world = PhillyWorld(jobs, vcs)
    done = world.run()
    result = summary("philly", "heliostat", trace, done, time.monotonic() - began, world.drive.policy_digest)
    static = static_heliostat(jobs, vcs) if arguments.cluster == "P2" else None
    baselines = arguments.trace.parent / "baselines_measured_per_vc.csv"
    return result | {
        "shortfall_gpu_h": round(world.shortfall.gpu_s / 3600, 2),
        "per_vc": per_vc(done, static, baselines),
        "engine_s": round(world.drive.engine_s, 2),
        "cycles": world.drive.cycles,
    }


def pollux(arguments: argparse.Namespace) -> Result:
    applications = profiles.load(arguments.profiles)
    jobs = load_jobs(arguments.workloads, arguments.set, arguments.workload, applications)
    began, digest = time.monotonic(), DEFAULT_DIGEST
    if arguments.policy == "heliostat":
        world = PolluxWorld()
        done, digest = simulate(jobs, world.decide, world.tune), world.drive.policy_digest
    else:
        decide = (Tiresias() if arguments.policy == "tiresias" else Optimus()).decide
        done = simulate(jobs, decide, tune_fixed)
    trace = f"{arguments.set}-{arguments.workload}"
    return summary("pollux", arguments.policy, trace, done, time.monotonic() - began, digest)


def openb(arguments: argparse.Namespace) -> Result:
    nodes, pods = openb_data.load_nodes(arguments.nodes), openb_data.load_pods(arguments.pods)
    kinds = openb_data.typical(pods)
    began, digest, rows = time.monotonic(), DEFAULT_DIGEST, []
    scores = {"random": openb_replay.anything, "bestfit": openb_replay.bestfit, "fgd": openb_replay.fgd}
    random_ties = arguments.ties == "random" or arguments.policy == "random"
    for seed in range(arguments.seeds):
        fleet = Fleet(nodes, kinds)
        stream = openb_data.arrivals(pods, fleet.capacity, seed)
        rng = random.Random(f"{seed} ties")
        with Progress(f"openb seed {seed}", len(stream)) as bar:
            if arguments.policy == "heliostat":
                engine = EnginePlacer(fleet, nodes, kinds, rng if random_ties else None)
                digest = engine.drive.policy_digest
                marks = openb_replay.run(fleet, stream, engine.place, bar.at)
            else:
                placer = openb_replay.Placer(fleet, scores[arguments.policy], rng, random_ties)
                marks = openb_replay.run(fleet, stream, placer.place, bar.at)
        rows.append((marks[100].alloc_pct, marks[130].alloc_pct, marks[50].frag_pct))
    mean, std = np.mean(rows, axis=0).round(3), np.std(rows, axis=0).round(3)
    ties = "random" if random_ties else "best fit, then name" if arguments.policy == "heliostat" else "name"
    keys = ("alloc_pct_100", "alloc_pct_130", "frag_pct_50")
    return {
        "suite": "openb", "policy": arguments.policy, "policy_digest": digest, "trace": trace_name(arguments.pods),
        "jobs": len(pods), "seeds": arguments.seeds, "ties": ties,
        **{key: float(value) for key, value in zip(keys, mean, strict=True)},
        **{f"{key}_std": float(value) for key, value in zip(keys, std, strict=True)},
        "wall_s": round(time.monotonic() - began, 2),
    }  # fmt: skip


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


__all__ = ["Finished", "decide", "kai_fill", "kueue_baseline", "muri", "openb", "philly", "pollux", "scenarios"]
