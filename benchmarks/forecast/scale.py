"""Explain, what-if and the cycle beside a forecast, at 1,000 GPUs and 10,000 waiting jobs: `python benchmarks/forecast/scale.py`.

Needs two quiet cores. Prints one JSON object on the last line:
  explain_ms   the immediate answer of `helio explain` (reason, numbers, checks), p50 and p99 over waiting jobs; at most 100
  remedies_ms  the same with remedies, each tried on a copy of the engine, as the forecasting process answers it; at most 100
  whatif_s     a changed quota, 24 hours ahead, as the forecasting process answers it: on one core (it forks, and both halves are kept there),
               and on all; at most 10 on one
  cycle_p99    p99 of a cycle with and without a forecasting process beside it that never rests (live it rests ten times as long as it
               works), medians of five alternating runs; less than 10 % apart. The runs themselves are printed, too: alternation does
               not help against a machine that is busy with other things, and then alone_ms alone already varies by more than 10 %

`--part` runs one of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import statistics
import time
from collections import Counter

import numpy as np
from heliostat.control import explaining
from heliostat.forecasting import questions
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.explain import glance
from heliostat_scheduler.forecast import Correction, Lengths, Ran, whatif
from heliostat_scheduler.simulator.load.latency import LoadCluster, latency

DAY_MS = 24 * 3_600_000
NICE = 10
PARTS = ["explain", "remedies", "whatif", "cycle"]


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


def knows(queues: int) -> questions.Known:
    return questions.Known(lengths(queues), (), Correction(), ("gpu",))


def remedies_ms(engine: Engine, queues: int, now_ms: int, asked: int = 60) -> dict[str, float]:
    jobs = random.Random(2).sample(sorted(engine.state.waiting.keys), min(asked, len(engine.state.waiting.keys)))
    known, wall, cpu, told = knows(queues), [], [], Counter[str]()
    gc.freeze()  # as the forecasting process does before it forks
    for job in jobs:
        began, had = time.perf_counter(), time.process_time()
        why = questions.explain(engine, known, {"job_id": job}, now_ms)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - had))
        told.update(remedy["action"] for remedy in why["remedies"])
    gc.unfreeze()
    return {
        "p50": round(statistics.median(wall), 1), "p99": round(float(np.percentile(wall, 99)), 1), "max": round(max(wall), 1),
        "cpu_p50": round(statistics.median(cpu), 1), "cpu_max": round(max(cpu), 1), **told,
    }  # fmt: skip


def whatif_s(engine: Engine, queues: int, now_ms: int) -> dict[str, float]:
    known, asked = knows(queues), {"quota": ["q001=100"], "horizon_ms": DAY_MS}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    had = os.times()
    one = questions.whatif(engine, known, asked, now_ms)
    spent = os.times()
    os.sched_setaffinity(0, cores)
    all_of_them = questions.whatif(engine, known, asked, now_ms)
    cpu = sum(spent[:4]) - sum(had[:4])
    moved = {
        name: len(one[name]) if isinstance(one[name], list) else one[name] for name in ("earlier", "later", "evicted")
    }
    return {"one_core": one["took_s"], "one_core_cpu": round(cpu, 2), "all_cores": all_of_them["took_s"], **moved}


def forecast_for_ever(gpus: int, pending: int, queues: int, ready: object) -> None:
    """What the forecasting process does all the time, niced like it."""
    os.nice(NICE)
    engine, known, seed = LoadCluster(gpus, pending, queues, 0).engine, lengths(queues), 0
    ready.set()  # type: ignore[attr-defined]  # a multiprocessing Event
    while True:
        whatif.course_of(engine, 0, known.draw(seed), [], DAY_MS)
        seed += 1


def cycle_p99(gpus: int, pending: int, queues: int, cycles: int, rounds: int) -> dict[str, object]:
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
    return {
        "alone_ms": alone, "beside_a_forecast_ms": together, "growth": round(together / alone - 1, 3),
        "runs_alone_ms": found[False], "runs_beside_ms": found[True],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1_000)
    parser.add_argument("--pending", type=int, default=10_000)
    parser.add_argument("--queues", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=PARTS, action="append")
    given = parser.parse_args()
    parts = given.part or PARTS
    cluster = LoadCluster(given.gpus, given.pending, given.queues, 0)
    engine, now_ms = cluster.engine, cluster.now_ms
    told: dict[str, object] = {"gpus": given.gpus, "waiting": len(engine.state.waiting.keys)}
    if "explain" in parts:
        told["explain_ms"] = explain_ms(engine, now_ms)
    if "remedies" in parts:
        told["remedies_ms"] = remedies_ms(engine, given.queues, now_ms)
    if "whatif" in parts:
        told["whatif_s"] = whatif_s(engine, given.queues, now_ms)
    if "cycle" in parts:
        told["cycle_p99"] = cycle_p99(given.gpus, given.pending, given.queues, given.cycles, given.rounds)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
