"""`bench openb`: the stream of every seed, placed by a yardstick or by the engine, measured at the marks."""

from __future__ import annotations

import argparse
import random

import numpy as np

from heliostat_scheduler.simulator.openb import data, replay
from heliostat_scheduler.simulator.openb.data import Shape
from heliostat_scheduler.simulator.openb.fleet import Fleet
from heliostat_scheduler.simulator.openb.heliostat import EnginePlacer
from heliostat_scheduler.simulator.openb.replay import Measured
from heliostat_scheduler.simulator.progress import Progress
from heliostat_scheduler.simulator.results import BASELINE_DIGEST, Stopwatch, peak_memory_mb, trace_name

SCORES = {"random": replay.anything, "bestfit": replay.bestfit, "fgd": replay.fgd}
KEYS = ("alloc_pct_100", "alloc_pct_130", "frag_pct_50")


def openb(arguments: argparse.Namespace) -> dict[str, object]:
    """The keys of `bench openb`: mean and standard deviation over the seeds, and the tie rule in words."""
    nodes, pods = data.load_nodes(arguments.nodes), data.load_pods(arguments.pods)
    kinds = data.typical(pods)
    watch, digest, rows, engine_s = Stopwatch(), BASELINE_DIGEST, [], 0.0
    random_ties = arguments.ties == "random" or arguments.policy == "random"
    for seed in range(arguments.seeds):
        rng = random.Random(f"{seed} ties")
        fleet = Fleet(nodes, kinds)
        stream = data.arrivals(pods, fleet.capacity, seed)
        if arguments.policy == "heliostat":
            engine = EnginePlacer(fleet, nodes, kinds, rng if random_ties else None)
            marks = _offer(seed, fleet, stream, engine)
            digest, engine_s = engine.drive.policy_digest, engine_s + engine.drive.engine_s
        else:
            marks = _offer(seed, fleet, stream, replay.Placer(fleet, SCORES[arguments.policy], rng, random_ties))
        rows.append((marks[100].alloc_pct, marks[130].alloc_pct, marks[50].frag_pct))
    mean, std = np.mean(rows, axis=0).round(3), np.std(rows, axis=0).round(3)
    return {
        "suite": "openb", "policy": arguments.policy, "policy_digest": digest, "trace": trace_name(arguments.pods),
        "jobs": len(pods), "seeds": arguments.seeds, "ties": _tie_rule(arguments.policy, random_ties),
        **{key: float(value) for key, value in zip(KEYS, mean, strict=True)},
        **{f"{key}_std": float(value) for key, value in zip(KEYS, std, strict=True)},
        "per_seed": [[round(float(value), 3) for value in row] for row in rows],
        "engine_s": round(engine_s, 2), "peak_memory_mb": peak_memory_mb(),
        **watch.read(),
    }  # fmt: skip


def _offer(seed: int, fleet: Fleet, stream: list[Shape], placer: EnginePlacer | replay.Placer) -> dict[int, Measured]:
    with Progress(f"openb seed {seed}", len(stream)) as bar:
        return replay.run(fleet, stream, placer.place, bar.at)


def _tie_rule(policy: str, random_ties: bool) -> str:
    if random_ties:
        return "random"
    return "least CPU and GPU left, then node name" if policy == "heliostat" else "node name"
