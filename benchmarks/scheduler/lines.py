"""The pass lines and the moonshots of the scheduling benchmarks, and how the results stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.scheduler.commands import POD_SETS, WORKLOADS

Results = dict[str, dict[str, Any]]  # Any: the JSON of each command

MURI: dict[str, dict[str, float]] = {
    "trace1": {"srtf": 1_370_603, "srsf": 980_141, "tiresias": 3_330_371},
    "trace1_pr": {"srtf": 2_303_544, "srsf": 1_801_860, "tiresias": 6_921_682},
    "trace3": {"srtf": 193_082, "srsf": 185_022, "tiresias": 347_213},
    "trace3_pr": {"srtf": 844_395, "srsf": 798_058, "tiresias": 2_213_110},
}
POLLUX_TIRESIAS: dict[int, float] = {1: 2473.65, 2: 5144.9625, 3: 3876.25625, 4: 3280.2625, 6: 3469.69375}
FGD_130 = {"gpushare40": 94.15, "multigpu20": 95.65, "gpuspec33": 94.55, "cpu050": 95.21}
PHILLY: dict[tuple[str, str], float] = {
    ("P2", "fifo"): 83_142.3, ("P2", "sjf"): 30_931.9, ("P2", "srtf"): 25_506.8, ("P2", "tiresias"): 42_055.1,
    ("P3", "fifo"): 14_995.6, ("P3", "sjf"): 12_024.6, ("P3", "srtf"): 11_545.8, ("P3", "tiresias"): 11_654.4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One row: what was measured, what is asked, whether it holds, and the moonshot with whether that holds (None: there is none)."""

    what: str
    measured: str
    asked: str
    holds: bool
    moonshot: str = ""
    reached: bool | None = None


def rows(results: Results) -> Iterator[Line]:
    """Only lines whose commands have all been run."""
    for make in (_decide, _muri, _pollux, _openb, _philly, _yardsticks):
        yield from make(results)


def _at_most(what: str, value: float, asked: float, moonshot: float | None = None, unit: str = "s") -> Line:
    shot = "" if moonshot is None else f"<= {moonshot:,g} {unit}"
    return Line(
        what,
        f"{value:,.10g} {unit}",
        f"<= {asked:,g} {unit}",
        value <= asked,
        shot,
        None if moonshot is None else value <= moonshot,
    )


def _at_least(what: str, value: float, asked: float, moonshot: float | None = None, unit: str = "%") -> Line:
    shot = "" if moonshot is None else f">= {moonshot:,g} {unit}"
    return Line(
        what,
        f"{value:,.10g} {unit}",
        f">= {asked:,g} {unit}",
        value >= asked,
        shot,
        None if moonshot is None else value >= moonshot,
    )


def _decide(results: Results) -> Iterator[Line]:
    for gpus, pending, asked in ((1_000, "2,000", 100.0), (10_000, "20,000", 1_000.0), (100_000, "100,000", 1_000.0)):
        found = results.get(f"decide-{gpus // 1000}k")
        if found is not None:
            what = f"decide, p99 at {gpus:,} GPUs / {pending} waiting"
            if gpus == 100_000:
                yield Line(what, f"{found['p99_ms']} ms", "", True, f"< {asked:,g} ms", found["p99_ms"] < asked)
            else:
                yield _at_most(what, found["p99_ms"], asked, unit="ms")
    if "kai-fill" in results:
        yield _at_most("KAI fill, engine time", results["kai-fill"]["engine_s"], 10, 1)
    if "kueue-baseline" in results:
        found = results["kueue-baseline"]
        yield _at_most("Kueue, makespan", found["makespan_s"], 82.5)
        yield _at_least("Kueue, admissions per second", found["admissions_per_s"], 500, 5_000, "/s")
    if "scenarios" in results:
        found = results["scenarios"]
        yield Line(
            "scenarios",
            f"{found['passed']} of {found['passed'] + found['failed']}",
            "at most 2 answered otherwise",
            found["failed"] <= 2,
        )


def _muri(results: Results) -> Iterator[Line]:
    for trace, asked, moonshot in (("trace3", 325_000.0, 290_000.0), ("trace1", 1_823_179.0, 1_600_000.0)):
        found = results.get(f"muri-{trace}-heliostat")
        if found is not None:
            yield _at_most(f"Muri {trace}", found["avg_jct_s"], asked, moonshot)


def _pollux(results: Results) -> Iterator[Line]:
    loads: tuple[tuple[str, str, float, float | None], ...] = (
        ("workloads", "1.0x", 2_520, 2_420),
        ("workloads-0.5", "0.5x", 1_380, None),
        ("workloads-1.5", "1.5x", 3_690, None),
    )
    for chosen, load, asked, moonshot in loads:
        found = [results.get(f"pollux-{chosen}-{w}-heliostat") for w in WORKLOADS]
        if all(found):
            runs = [run for run in found if run]
            yield _at_most(
                f"Pollux {load}, mean of workloads 1-6", sum(run["avg_jct_s"] for run in runs) / 6, asked, moonshot
            )
            yield _at_most(f"Pollux {load}, longest wall time of a workload", max(run["wall_s"] for run in runs), 60)
    six = results.get("pollux-workloads-6-heliostat")
    if six:
        yield _at_most("Pollux workload 6", six["avg_jct_s"], 2_446)


def _openb(results: Results) -> Iterator[Line]:
    for ties, asked, moonshot in (("name", 95.6, 96.1), ("random", 95.3, None)):
        found = results.get(f"openb-default-heliostat-{ties}")
        if found:
            yield _at_least(
                f"openb default, {found['seeds']} seeds, ties: {ties}", found["alloc_pct_130"], asked, moonshot
            )
    for pods in POD_SETS[1:]:
        found = results.get(f"openb-{pods}-heliostat-name")
        if found:
            yield _at_least(f"openb {pods}", found["alloc_pct_130"], FGD_130[pods])


def _philly(results: Results) -> Iterator[Line]:
    found = results.get("philly-P2-heliostat")
    if not found:
        return
    yield _at_most("Philly October P2, average JCT", found["avg_jct_s"], 11_850, 11_654)
    yield _at_most("Philly, mean delay", found["mean_delay_s"], 477)
    passed = sum(vc["pass"] for vc in found["per_vc"].values())
    strict = all(vc["delay_s"] <= vc["static_delay_s"] for vc in found["per_vc"].values())
    yield Line(
        "Philly, delay criterion",
        f"{passed} of {len(found['per_vc'])} VCs",
        "each within S_v + 60 s",
        passed == 11,
        "no slack",
        strict,
    )
    yield _at_most("Philly, shortfall", found["shortfall_gpu_h"], 365, 25, "GPU-h")
    yield _at_most("Philly, CPU time of one core", found["cpu_s"], 300)
    yield _at_most("Philly, memory", found["peak_memory_mb"], 1_000, unit="MB")


def _yardsticks(results: Results) -> Iterator[Line]:
    """The simulator is right."""

    def near(name: str, published: float, tolerance: float, value: Callable[[dict[str, Any]], float]) -> Iterator[Line]:
        if name in results:
            off = 100 * abs(value(results[name]) / published - 1)
            yield Line(
                f"yardstick {name}",
                f"{value(results[name]):,.10g}",
                f"{published:,g} within {tolerance:g} %",
                off <= tolerance,
            )

    for trace, policies in MURI.items():
        for policy, published in policies.items():
            yield from near(f"muri-{trace}-{policy}", published, 0.5, lambda r: float(r["avg_jct_s"]))
    for workload, published in POLLUX_TIRESIAS.items():
        yield from near(f"pollux-workloads-{workload}-tiresias", published, 1, lambda r: float(r["avg_jct_s"]))
    yield from near("pollux-workloads-6-optimus", 5301.875, 1, lambda r: float(r["avg_jct_s"]))
    yield from near("openb-default-bestfit-name", 93.1, 0.3 / 93.1 * 100, lambda r: float(r["alloc_pct_130"]))
    yield from near("openb-default-fgd-name", 95.39, 0.3, lambda r: float(r["alloc_pct_130"]))
    yield from near("openb-default-random-name", 87.47, 0.6, lambda r: float(r["alloc_pct_130"]))
    for (cluster, policy), published in PHILLY.items():
        yield from near(f"philly-{cluster}-{policy}", published, 0.5, lambda r: float(r["avg_jct_s"]))
