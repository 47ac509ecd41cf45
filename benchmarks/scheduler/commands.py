"""Every command of the scheduling benchmarks, by name: the policy on all suites and the yardsticks that prove the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WORKLOADS = range(1, 7)
POD_SETS = ("default", "gpushare40", "multigpu20", "gpuspec33", "cpu050")


@dataclass(frozen=True, slots=True)
class Command:
    """One run: its name, the arguments after `python -m heliostat_scheduler.simulator`, and whether it must be alone on the machine."""

    name: str
    arguments: tuple[str, ...]
    timed: bool = False


def commands(traces: Path) -> list[Command]:
    return [
        *_load(),
        *_muri(traces / "muri"),
        *_pollux(traces / "pollux"),
        *_openb(traces / "openb_fgd"),
        *_philly(traces / "philly"),
    ]


def _load() -> list[Command]:
    sizes = ((1_000, 2_000, 1_000), (10_000, 20_000, 1_000), (100_000, 100_000, 100))
    decide = [
        Command(
            f"decide-{gpus // 1000}k",
            (
                "bench",
                "decide",
                "--gpus",
                str(gpus),
                "--pending",
                str(pending),
                "--queues",
                "50",
                "--cycles",
                str(cycles),
            ),
            timed=True,
        )
        for gpus, pending, cycles in sizes
    ]
    return [
        Command("scenarios", ("scenarios", "tests/simulation/scenarios.yaml")),
        *decide,
        Command("kai-fill", ("bench", "kai-fill"), timed=True),
        Command("kueue-baseline", ("bench", "kueue-baseline"), timed=True),
    ]


def _muri(folder: Path) -> list[Command]:
    return [
        Command(
            f"muri-{trace}-{policy}", ("bench", "muri", "--trace", str(folder / f"{trace}.csv.gz"), "--policy", policy)
        )
        for trace in ("trace1", "trace1_pr", "trace3", "trace3_pr")
        for policy in ("heliostat", "srtf", "srsf", "tiresias")
    ]


def _pollux(folder: Path) -> list[Command]:
    wanted = [("workloads", w, "heliostat") for w in WORKLOADS]
    wanted += [(f"workloads-{load}", w, "heliostat") for load in ("0.5", "1.5") for w in WORKLOADS]
    wanted += [("workloads", w, "tiresias") for w in WORKLOADS] + [("workloads", 6, "optimus")]
    found = []
    for chosen, workload, policy in wanted:
        file = folder / "workloads" / "workloads_dev.csv.gz"
        arguments = (
            "bench", "pollux", "--workloads", str(file), "--set", chosen, "--workload", str(workload),
            "--profiles", str(folder / "profiles"), "--policy", policy,
        )  # fmt: skip
        found.append(Command(f"pollux-{chosen}-{workload}-{policy}", arguments))
    return found


def _openb(folder: Path) -> list[Command]:
    wanted = [(pods, "heliostat", "name") for pods in POD_SETS] + [("default", "heliostat", "random")]
    wanted += [("default", policy, "name") for policy in ("bestfit", "fgd", "random")]
    return [
        Command(
            f"openb-{pods}-{policy}-{ties}",
            (
                "bench", "openb", "--nodes", str(folder / "nodes_gpu.csv.gz"), "--pods", str(folder / f"pods_{pods}.csv.gz"),
                "--policy", policy, "--seeds", "10", "--ties", ties,
            ),
        )
        for pods, policy, ties in wanted
    ]  # fmt: skip


def _philly(folder: Path) -> list[Command]:
    wanted = [("P2", "heliostat")] + [
        (p, policy) for p in ("P2", "P3") for policy in ("fifo", "sjf", "srtf", "tiresias")
    ]
    return [
        Command(
            f"philly-{cluster}-{policy}",
            (
                "bench", "philly", "--trace", str(folder / "philly_dev_201710.csv.gz"), "--vcs", str(folder / "philly_vc_config.csv"),
                "--cluster", cluster, "--policy", policy,
            ),
        )
        for cluster, policy in wanted
    ]  # fmt: skip
