"""Explain, what-if and the cycle beside a forecast, at 1,000 GPUs and 10,000 waiting jobs: `python benchmarks/forecast/scale.py`.

Needs two quiet cores. Prints one JSON object on the last line:
  explain_ms   the immediate answer of `helio explain` (reason, numbers, checks), p50 and p99 over waiting jobs; at most 100
  remedies_ms  the same with remedies, each tried on a copy of the engine, answered as the forecasting process answers it, by a fork: wall time
               from the question to the last byte, and CPU time of the fork, memory that it had to copy included; at most 100
  whatif_s     a changed quota, 24 hours ahead, as the forecasting process answers it: on one core (it forks, and both halves are kept there),
               and on all; at most 10
  cycle_p99    p99 of a cycle alone, beside the forecasting process making estimates without ever resting (live it rests ten times as long as
               it works), and beside one what-if after the other (both halves at a time); medians of five alternating runs; less than 10 %
               apart. The runs themselves are printed, too: alternation does not help against a machine that is busy with other things, and
               then alone_ms alone already varies by more than 10 %

`--part` runs one of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from heliostat.control import explaining
from heliostat.forecasting import forking, questions
from heliostat.forecasting.worker import BEHIND, NICE, answered
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.core.explain import glance
from heliostat_scheduler.forecast import Correction, Lengths, Ran, whatif
from heliostat_scheduler.simulator.load.latency import LoadCluster, latency

Json = dict[str, Any]  # Any: JSON
DAY_MS = 24 * 3_600_000
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


def in_fork(work: Callable[[], Json]) -> tuple[Json, float, float]:
    """As the forecasting process answers a question: (answer, wall seconds, CPU seconds of the fork)."""
    began = time.perf_counter()
    pid, reading = forking.start(lambda: answered(1, work))
    data = b"".join(iter(lambda: os.read(reading, forking.READ_BYTES), b""))
    wall = time.perf_counter() - began
    os.close(reading)
    used = os.wait4(pid, 0)[2]
    return json.loads(data)["answer"], wall, used.ru_utime + used.ru_stime


def remedies_ms(engine: Engine, queues: int, now_ms: int, asked: int = 100) -> dict[str, float]:
    jobs = random.Random(2).sample(sorted(engine.state.waiting.keys), min(asked, len(engine.state.waiting.keys)))
    known, walls, cpus, told = knows(queues), [], [], Counter[str]()
    gc.freeze()  # as the forecasting process does before it forks
    for job in jobs:
        why, wall, cpu = in_fork(lambda job=job: questions.explain(engine, known, {"job_id": job}, now_ms))  # type: ignore[misc]
        walls.append(1000 * wall)
        cpus.append(1000 * cpu)
        told.update(remedy["action"] for remedy in why["remedies"])
    gc.unfreeze()
    return {**spread(walls), **{f"cpu_{name}": value for name, value in spread(cpus).items()}, **told}


def spread(ms: list[float]) -> dict[str, float]:
    return {
        "p50": round(statistics.median(ms), 1),
        "p99": round(float(np.percentile(ms, 99)), 1),
        "max": round(max(ms), 1),
    }


def whatif_s(engine: Engine, queues: int, now_ms: int) -> dict[str, float]:
    known, asked = knows(queues), {"quota": ["q001=100"], "horizon_ms": DAY_MS}
    gc.freeze()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    one, _, cpu = in_fork(lambda: questions.whatif(engine, known, asked, now_ms))
    os.sched_setaffinity(0, cores)
    all_of_them, _, _ = in_fork(lambda: questions.whatif(engine, known, asked, now_ms))
    gc.unfreeze()
    moved = {
        name: len(one[name]) if isinstance(one[name], list) else one[name] for name in ("earlier", "later", "evicted")
    }
    return {"one_core": one["took_s"], "one_core_cpu": round(cpu, 2), "all_cores": all_of_them["took_s"], **moved}


def forecast_for_ever(beside: str, gpus: int, pending: int, queues: int, ready: object) -> None:
    """What the forecasting process does for estimates, or for what-ifs, niced like it."""
    os.nice(NICE + (BEHIND if beside == "estimates" else 0))
    engine, known, seed = LoadCluster(gpus, pending, queues, 0).engine, knows(queues), 0
    gc.freeze()
    gc.set_threshold(forking.RARELY)
    ready.set()  # type: ignore[attr-defined]  # a multiprocessing Event
    while True:
        if beside == "estimates":
            whatif.course_of(engine, 0, known.lengths.draw(seed), [], DAY_MS)
        else:
            questions.whatif(engine, known, {"quota": [f"q001={100 + seed}"], "horizon_ms": DAY_MS}, 0)
        seed += 1


def cycle_p99(gpus: int, pending: int, queues: int, cycles: int, rounds: int) -> dict[str, object]:
    found: dict[str, list[float]] = {"alone": [], "estimates": [], "whatif": []}
    for _ in range(rounds):
        for beside, runs in found.items():
            child = None if beside == "alone" else beside_of(beside, gpus, pending, queues)
            runs.append(float(latency(gpus, pending, queues, cycles, seed=0)["p99_ms"]))  # type: ignore[arg-type]
            if child is not None:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
    alone = statistics.median(found["alone"])
    told: dict[str, object] = {"alone_ms": alone, "runs_alone_ms": found["alone"]}
    for beside in ("estimates", "whatif"):
        median = statistics.median(found[beside])
        told |= {
            f"beside_{beside}_ms": median,
            f"growth_{beside}": round(median / alone - 1, 3),
            f"runs_{beside}_ms": found[beside],
        }
    return told


def beside_of(beside: str, gpus: int, pending: int, queues: int) -> int:
    """The group of a process, and of its forks, that forecasts until it is killed; it has begun."""
    ready = multiprocessing.Event()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        forecast_for_ever(beside, gpus, pending, queues, ready)
    ready.wait()
    return child


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
