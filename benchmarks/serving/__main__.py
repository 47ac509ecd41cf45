"""What an endpoint costs beside bare Ray Serve and plain FastAPI: `python -m benchmarks.serving [--quick] [--rounds N] [--seconds S]`.

Variants, all with the same model (16 -> 64 -> 4, torch on one thread) and the same request of one row:
uvicorn         FastAPI + uvicorn, one process
bare-direct     bare Ray Serve, FastAPI ingress with the model in it
our-direct      our endpoint in direct mode: key, rate limit, body limit, validation, metering on
bare-handle     bare Ray Serve, FastAPI ingress -> handle -> model
our-gateway     our endpoint with a gateway: the same checks, split over two versions, retry armed

Method. One Ray head as `helio up` starts it (HAProxy, THROUGHPUT_OPTIMIZED, user code in its own thread), all variants deployed side by
side on it, one replica per deployment, Serve's own access log off for all. Five rounds; in each, the variants alternate, at 1 and at 16
clients (closed loop, one process outside the cluster, keep-alive). CPU = user + system time of all processes of the cluster's session (or
of uvicorn) during the run, minus what the same processes used per second while nobody called (measured for the same time just before),
over the number of answers. Printed: median of the rounds, and the spread (lowest to highest). Calls per second and latency depend on what
else the machine does; CPU per call hardly does. The last line is one JSON object. --quick: two rounds of 1.5 s, for a look.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from heliostat_serving.spec import DirectConfig, Target, VersionSpec, version_app

from benchmarks.serving import model
from benchmarks.serving.client import BODY
from tests.e2e.ray_cluster import free_ports
from tests.e2e.serve_world import CALLER, KEY, ServeWorld, serve_world, until

HERTZ = os.sysconf("SC_CLK_TCK")
CLIENTS = (1, 16)
OURS = {"our-direct": "bare-direct", "our-gateway": "bare-handle"}
TARGETS = {"our-direct": 1.3, "our-gateway": 1.15}


@dataclass
class Variant:
    """pids: the processes that are counted."""

    name: str
    url: str
    pids: Callable[[], list[int]]
    figures: dict[int, list[dict[str, float]]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter runs: a look, not a report")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run")
    options = parser.parse_args()
    rounds, seconds = (2, 1.5) if options.quick else (options.rounds, options.seconds)
    load_average = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hb-")))
        variants = list(stack.enter_context(deployed(folder)))
        for turn in range(rounds + 1):  # the first one warms up and is not counted
            for variant in variants:
                for clients in CLIENTS:
                    figures = measured(variant, clients, seconds if turn else 1.0)
                    if turn:
                        variant.figures[clients].append(figures)
            print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    report(variants, load_average)
    return 0


@contextmanager
def deployed(folder: Path) -> Iterator[list[Variant]]:
    uri, sha256 = model.write(folder / "model")
    weights = str(folder / "model" / "model.safetensors")
    with serve_world(folder) as world:
        ours(world, uri, sha256)
        bare(world, weights)
        world.put()
        world.until_running(limit_s=180)
        with uvicorn(weights) as plain:
            on_ray = {
                "bare-direct": "/bare-direct/predict",
                "our-direct": "/endpoints/direct/predict",
                "bare-handle": "/bare-handle/predict",
                "our-gateway": "/endpoints/gateway/predict",
            }
            yield [plain, *(Variant(name, world.url + path, world.cluster.processes) for name, path in on_ray.items())]


def ours(world: ServeWorld, uri: str, sha256: str) -> None:
    limited = replace(CALLER, rate_per_s=1e6, burst=1_000_000)

    def spec(endpoint: str, n: int, **more: Any) -> VersionSpec:
        return VersionSpec(endpoint, n, "mlp", n, uri, sha256, model.SIGNATURE, num_cpus=0.1, **more)

    def target(endpoint: str, n: int, weight: int) -> Target:
        return Target(version_app(endpoint, n), n, "mlp", n, model.SIGNATURE, weight=weight)

    gateway = world.config("gateway", {}, keys=(limited,), targets=(target("gateway", 1, 1), target("gateway", 2, 1)))
    world.version(spec("gateway", 1))
    world.version(spec("gateway", 2))
    world.gateway(gateway)
    direct = world.config("direct", {}, keys=(limited,), targets=(target("direct", 1, 1),))
    world.direct(spec("direct", 1, direct=True), DirectConfig.from_json(direct.to_json()))


def bare(world: ServeWorld, weights: str) -> None:
    options = {"ray_actor_options": {"num_cpus": 0.1}, "max_ongoing_requests": 1000}
    deployments = {"bare-direct": ["Direct"], "bare-handle": ["Ingress", "Model"]}
    for name, names in deployments.items():
        world.apps[name] = {
            "name": name,
            "route_prefix": f"/{name}",
            "import_path": f"benchmarks.serving.bare:{name.removeprefix('bare-')}",
            "args": {"weights": weights},
            "runtime_env": {"env_vars": {"PYTHONPATH": str(Path.cwd())}},
            "logging_config": {"enable_access_log": False},
            "deployments": [{"name": deployment, **options} for deployment in names],
        }


@contextmanager
def uvicorn(weights: str) -> Iterator[Variant]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.serving.bare", "--port", str(port), "--weights", weights]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}/predict"
    try:
        until(lambda: answers(url), "uvicorn answers", 60)
        yield Variant("uvicorn", url, lambda: [process.pid])
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        return httpx.post(url, content=BODY, timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def measured(variant: Variant, clients: int, seconds: float) -> dict[str, float]:
    idle_s, idle_wall_s = spent(variant.pids, lambda: time.sleep(seconds))
    found: dict[str, float] = {}

    def load() -> None:
        command = [sys.executable, "-m", "benchmarks.serving.client", variant.url, str(clients), str(seconds), KEY]
        found.update(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    busy_s, wall_s = spent(variant.pids, load)
    if found["failed"]:
        raise RuntimeError(f"{variant.name}: {found['failed']:.0f} calls failed")
    cpu_s = busy_s - idle_s / idle_wall_s * wall_s
    return {
        "load": os.getloadavg()[0],
        "cpu_ms": cpu_s * 1000 / found["answers"],
        "per_s": found["answers"] / found["seconds"],
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
    }


def spent(pids: Callable[[], list[int]], work: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds of the processes while the work was done, and the wall seconds."""
    before, begun = cpu(pids()), time.perf_counter()
    work()
    after, wall_s = cpu(pids()), time.perf_counter() - begun
    return sum(ticks - before.get(pid, 0) for pid, ticks in after.items()) / HERTZ, wall_s


def cpu(pids: list[int]) -> dict[int, int]:
    found = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[pid] = int(fields[11]) + int(fields[12])
    return found


def report(variants: list[Variant], load_average: float) -> None:
    table: dict[str, dict[str, dict[str, float]]] = {}
    for variant in variants:
        for clients in CLIENTS:
            rows = variant.figures[clients]
            middle = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
            low, high = min(row["cpu_ms"] for row in rows), max(row["cpu_ms"] for row in rows)
            table.setdefault(variant.name, {})[str(clients)] = middle
            print(
                f"{variant.name:12s} {clients:2d} clients  {middle['cpu_ms']:.3f} ms CPU per call ({low:.3f}-{high:.3f})  "
                f"{middle['per_s']:6.0f} calls/s  p50 {middle['p50_ms']:.2f} ms  p99 {middle['p99_ms']:.1f} ms"
            )
    ratios = {}
    for name, base in OURS.items():
        for clients in CLIENTS:
            ratio = table[name][str(clients)]["cpu_ms"] / table[base][str(clients)]["cpu_ms"]
            ratios[f"{name}/{base} at {clients}"] = round(ratio, 3)
            print(f"{name} / {base} at {clients:2d} clients: {ratio:.2f}x CPU per call (target {TARGETS[name]}x)")
    loads = [row["load"] for variant in variants for rows in variant.figures.values() for row in rows]
    print(f"load average {load_average:.1f} before, {min(loads):.1f} to {max(loads):.1f} during the runs")
    print(json.dumps({"load_average": round(load_average, 2), "variants": table, "ratios": ratios}))


if __name__ == "__main__":
    sys.exit(main())
