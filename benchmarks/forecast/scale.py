"""Explain, what-if and the cycle beside a forecast, at 1,000 GPUs and 10,000 waiting jobs: `python benchmarks/forecast/scale.py`.

Needs two quiet cores. Prints one JSON object on the last line:
  explain_ms   the immediate answer of `helio explain` (reason, numbers, checks), p50 and p99 over waiting jobs; at most 100
  remedies_s   the remedies that follow it (each tried on a copy of the engine, by the forecasting process), p50 and the slowest of 20 jobs
  whatif_s     a changed quota, 24 hours ahead, both futures side by side, as the forecasting process answers it; at most 10
  cycle_p99    p99 of a cycle with and without a forecasting process beside it, medians of five alternating runs; less than 10 % apart
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import time

import numpy as np
from heliostat.control import explaining
from heliostat.forecasting import questions
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.explain import glance
from heliostat_scheduler.forecast import Correction, Lengths, Ran, whatif
from heliostat_scheduler.simulator.load.latency import LoadCluster, latency

DAY_MS = 24 * 3_600_000
NICE = 10


def lengths(queues: int) -> Lengths:
    """Learned run times between minutes and a day."""
    rng = random.Random(0)
    return Lengths(
        Ran(
            f"q{rng.randrange(queues):03d}",
            "",
            1000 * rng.choice((1, 2, 4, 8)),
            int(1000 * rng.lognormvariate(7.6, 1.2)),
        )
        for _ in range(3_000)
    )


def explain_ms(engine: Engine, now_ms: int, asked: int = 300) -> dict[str, float]:
    jobs = random.Random(1).sample(sorted(engine.state.waiting.keys), min(asked, len(engine.state.waiting.keys)))
    times = []
    for job in jobs:
        began = time.perf_counter()
        explaining.of_explanation(glance(engine.state, job, now_ms))
        times.append(1000 * (time.perf_counter() - began))
    return {"p50": round(float(np.percentile(times, 50)), 2), "p99": round(float(np.percentile(times, 99)), 2)}


def remedies_s(engine: Engine, now_ms: int, asked: int = 20) -> dict[str, float]:
    jobs = random.Random(2).sample(sorted(engine.state.waiting.keys), min(asked, len(engine.state.waiting.keys)))
    times = []
    for job in jobs:
        began = time.perf_counter()
        engine.explain(job, now_ms)
        times.append(time.perf_counter() - began)
    return {"p50": round(statistics.median(times), 2), "max": round(max(times), 2)}


def whatif_s(engine: Engine, known: Lengths, now_ms: int) -> dict[str, float]:
    knows = questions.Known(known, (), Correction(), ("gpu",))
    told = questions.whatif(engine, knows, {"quota": ["q001=100"], "horizon_ms": DAY_MS}, now_ms)
    moved = {
        name: len(told[name]) if isinstance(told[name], list) else told[name]
        for name in ("earlier", "later", "evicted")
    }
    return {"wall": told["took_s"], **moved}


def forecast_for_ever(gpus: int, pending: int, queues: int, ready: object) -> None:
    """What the forecasting process does all the time, niced like it."""
    os.nice(NICE)
    engine, known, seed = LoadCluster(gpus, pending, queues, 0).engine, lengths(queues), 0
    ready.set()  # type: ignore[attr-defined]  # a multiprocessing Event
    while True:
        whatif.course_of(engine, 0, known.draw(seed), [], DAY_MS)
        seed += 1


def cycle_p99(gpus: int, pending: int, queues: int, cycles: int, rounds: int) -> dict[str, float]:
    found: dict[bool, list[float]] = {False: [], True: []}
    for index in range(2 * rounds):
        beside = index % 2 == 1
        ready = multiprocessing.Event()
        child = multiprocessing.Process(target=forecast_for_ever, args=(gpus, pending, queues, ready), daemon=True)
        if beside:
            child.start()
            ready.wait()
        found[beside].append(float(latency(gpus, pending, queues, cycles, seed=0)["p99_ms"]))  # type: ignore[arg-type]
        if beside:
            child.kill()
            child.join()
    alone, together = statistics.median(found[False]), statistics.median(found[True])
    return {"alone_ms": alone, "beside_a_forecast_ms": together, "growth": round(together / alone - 1, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=1_000)
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--queues", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cluster = LoadCluster(given.gpus, given.pending, given.queues, 0)
    told = {
        "gpus": given.gpus,
        "waiting": len(cluster.engine.state.waiting.keys),
        "explain_ms": explain_ms(cluster.engine, cluster.now_ms),
        "remedies_s": remedies_s(cluster.engine, cluster.now_ms),
        "whatif_s": whatif_s(cluster.engine, lengths(given.queues), cluster.now_ms),
        "cycle_p99": cycle_p99(given.gpus, given.pending, given.queues, given.cycles, given.rounds),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
