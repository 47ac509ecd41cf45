"""An endpoint grows by the shrink of a training, beside a stray: `python -m benchmarks.serving.loans [--cycles 20] [--stray-pause 2]`.

A whole installation with three logical GPUs. An unmodified elastic training (`helio train digits-cnn`) of queue research borrows every GPU that
is free. An endpoint of queue production, whose quota is two GPUs, runs one replica on a lent GPU; `helio endpoint scale` makes it two and one
again, each cycle waiting until the training has grown back. A stray (a Ray program that knows no queue) asks for a GPU the whole time, and asks
again after each refusal. Checked in each cycle: the second replica's GPU came from a shrink of the training, and both replicas run.
Counted: how often the stray got a GPU and for how long, how often it was refused while it waited. At the end the training's step file is
recounted: no gap, no repeat.

--eager ends with a second stray that asks again at once, for ever: its program is ended, and the loan is returned all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heliostat.client.job import Job
from heliostat.demo.elastic_act import resizes_of
from heliostat.demo.elastic_verdict import steps_lost
from heliostat.local import environments, records
from heliostat_jobs.spec import recount_run

from benchmarks.serving.house import House, house, until

GPUS = 3
QUEUES = """\
default: research
queues:
  research: {weight: 1}
  production: {quota: {gpu: 2}, priority: 200}
"""
STRAY = Path(__file__).parents[2] / "tests" / "e2e" / "scripts" / "stray_gpu_actor.py"
APP = "ep-loan-v1"
KILLED_WITHIN_S = 5.0
LIMIT_S = 180.0


@dataclass
class Cycles:
    """Seconds of each cycle: from the order to two running replicas; from the order back to the slot being a slot again."""

    up_s: list[float] = field(default_factory=list)
    down_s: list[float] = field(default_factory=list)


@contextmanager
def stray(place: House, pause_s: float) -> Iterator[Path]:
    output = place.settings.home / f"stray-{pause_s:g}.log"
    env = environments.of_bridge(place.settings, place.ray)
    del env[records.INSTANCE]  # nobody of ours
    with output.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(STRAY), str(pause_s)], env=env, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield output
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def holding(output: Path) -> list[float]:
    """For how long the stray held a GPU, each time."""
    found, since = [], 0.0
    for line in output.read_text().splitlines():
        words = line.split()
        if line.startswith("stray runs"):
            since = float(words[-1])
        elif line.startswith("stray was killed"):
            found.append(float(words[-1]) - since)
    return found


def refused(output: Path) -> int:
    return output.read_text().count("stray was refused")


def killed(place: House, what: str) -> int:
    return sum(
        event["kind"] == "intruder_killed" and event["data"].get("what") == what for event in place.client.events()
    )


def workers(place: House, job: str) -> int:
    data = place.client.read_job(job)
    return int(data["tasks"]["running"]) if data["state"] == "running" else 0


def slots_of(place: House, job: str) -> int:
    return sum(slot["job"] == job for node in place.client.cluster()["nodes"] for slot in node["slots"])


def train(place: House) -> Job:
    """The demo's script, until it is ended: more epochs than it will ever see."""
    words = ["python", "-m", "heliostat_jobs.recipes.digits_cnn", "--workers", "1-3", "--epochs", "100000"]
    words += ["--step-ms", "100", "--checkpoint-every", "100"]
    return place.client.submit(words, kind="ray", gpus=(1, GPUS), queue="research", name="trains")


def play(place: House, cycles: int, pause_s: float, minutes: float) -> dict[str, Any]:  # Any: JSON
    client = place.client
    client.apply_queues(QUEUES)
    place.push("scaled", 1.0)
    endpoint = client.deploy("scaled:1", "loan", gpus=1, cpus=0.2, replicas=1, queue="production").wait_ready(240)
    serving = endpoint.deployments[0]["job"]
    training = train(place)
    run_dir = place.settings.runs_dir / training.id
    until(lambda: workers(place, training.id) == 2, "the training borrows every GPU that is left", LIMIT_S)
    until(lambda: recount_run(run_dir).distinct > 0, "the training trains", LIMIT_S)
    took = Cycles()
    with stray(place, pause_s) as output:
        until_s = time.monotonic() + 60 * minutes
        for turn in range(cycles):
            if time.monotonic() > until_s:
                break
            before = len(resizes_of(training.events()))
            begun = time.monotonic()
            client.endpoint("loan").scale(2)
            until(lambda: len(place.replicas(APP)) == 2, "two replicas run", LIMIT_S)
            took.up_s.append(time.monotonic() - begun)
            until(lambda: workers(place, training.id) == 1, "the training goes on with one worker", LIMIT_S)
            shrinks = [row for row in resizes_of(training.events())[before:] if row["to"] < row["from"]]
            if len(shrinks) != 1 or workers(place, training.id) != 1:
                raise RuntimeError(f"cycle {turn}: the GPU did not come from a shrink: {shrinks}")
            begun = time.monotonic()
            client.endpoint("loan").scale(1)
            until(lambda: slots_of(place, serving) == 1, "the slot is given back", LIMIT_S)
            took.down_s.append(time.monotonic() - begun)
            until(lambda: workers(place, training.id) == 2, "the training has grown back", LIMIT_S)
            held = holding(output)
            print(
                f"cycle {turn + 1}: up {took.up_s[-1]:.1f} s ({shrinks[0]['reason']}), down {took.down_s[-1]:.1f} s; stray: had a GPU "
                f"{len(held)} times, refused {refused(output)} times",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        client.endpoint("loan").scale(3)  # one more than there is: the training keeps its last GPU
        until(lambda: len(place.replicas(APP)) == 2, "two of three replicas run", LIMIT_S)
        time.sleep(3)
        print(client.endpoint("loan").explain(), file=sys.stderr, flush=True)
        held, turned_away = holding(output), refused(output)
        still = output.read_text().rstrip().rpartition("\n")[2].startswith("stray runs")
    training.cancel()
    training.wait(120)
    count = recount_run(run_dir)
    return {
        "cycles": len(took.up_s),
        "up_s": spread(took.up_s),
        "down_s": spread(took.down_s),
        "stray_had_a_gpu": len(held),
        "stray_held_s_worst": round(max(held, default=0.0), 2),
        "stray_still_has_one": still,
        "stray_refused": turned_away,
        "killed_holders": killed(place, "actor"),
        "refused_requests": killed(place, "request"),
        "steps": count.distinct,
        "steps_lost": steps_lost(run_dir),
    }


def eager(place: House) -> dict[str, Any]:  # Any: JSON
    """A stray that asks again at once: the loan comes and goes all the same."""
    with stray(place, 0.0) as output:
        begun = time.monotonic()
        place.client.endpoint("loan").scale(2)
        until(lambda: len(place.replicas(APP)) == 2, "two replicas run beside somebody who never stops asking", LIMIT_S)
        up_s = time.monotonic() - begun
        place.client.endpoint("loan").remove()
        begun = time.monotonic()
        job = place.client.submit(["true"], gpus=GPUS, queue="research")
        until(lambda: place.client.read_job(job.id)["state"] == "succeeded", "a job on all GPUs", LIMIT_S)
        held = holding(output)
        return {
            "up_s": round(up_s, 1),
            "all_gpus_after_s": round(time.monotonic() - begun, 1),
            "had_a_gpu": len(held),
            "held_s_worst": round(max(held, default=0.0), 2),
            "refused": refused(output),
            "programs_ended": killed(place, "driver"),
        }


def spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {
        "median": round(statistics.median(seconds), 1), "low": round(min(seconds), 1), "high": round(max(seconds), 1)
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.loans", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--stray-pause", type=float, default=8.0, help="seconds between a refusal and the next request")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no cycle after so long")
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    with house(GPUS) as place:
        told = play(place, options.cycles, options.stray_pause, options.minutes)
        if options.eager:
            told["eager"] = eager(place)
    told["load_average"] = round(load_average, 2)
    good = (
        told["steps"] > 0
        and not told["steps_lost"]
        and told["stray_held_s_worst"] <= KILLED_WITHIN_S
        and not told["stray_still_has_one"]
    )
    print(json.dumps(told, indent=1))
    print("holds" if good else "DOES NOT HOLD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
