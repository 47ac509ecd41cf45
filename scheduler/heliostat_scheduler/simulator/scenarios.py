"""Conformance facts of other schedulers, restated in `tests/simulation/scenarios.yaml`: load them, run them, say what differs.

A case is a small cluster, queues and jobs, some of them running already. The engine's plans are obeyed at once (a start starts, a
preempted job comes back to its queue) until a plan is empty; then five more cycles must be empty too. A `pool` of fungible GPUs
is modelled by the CPUs of one node, in thousandths, because such cases have shares that no device could hold (2.5 GPUs).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from heliostat_scheduler.core import (
    CPU,
    MEMORY,
    Engine,
    JobSpec,
    NodeSpec,
    Plan,
    Policy,
    Preempt,
    Preemptibility,
    QueueSpec,
    Resize,
    SlotSpec,
    Start,
    Stop,
    TaskPlace,
    TaskShape,
)
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.simulator.tables import BadInput

Row = dict[str, Any]  # a mapping of the YAML file

BASE = Policy(name="scenario", cooldown_ms=0, resize_interval_ms=0, aging_step_ms=0, backfill=False, rotate=False)
PROFILES: dict[str, Policy] = {
    "reclaim-quota": replace(BASE, name="reclaim-quota"),
    "fair-sharing": replace(BASE, name="fair-sharing", reclaim_rule="share", whole_device_shares=False),
    "classic-preemption": replace(BASE, name="classic-preemption"),
    "elastic-jobs": replace(BASE, name="elastic-jobs"),
}
NOW_MS = 3_600_000
MAX_CYCLES = 40
QUIET_CYCLES = 5
NON_PREEMPTIBLE_FROM = 100


@dataclass(frozen=True, slots=True)
class Case:
    """One fact."""

    id: str
    profile: str
    portability: str
    row: Row

    @property
    def pool(self) -> bool:
        return "pool" in self.row["cluster"]


@dataclass(slots=True)
class Run:
    """A case being run: the engine, and who holds what."""

    case: Case
    engine: Engine
    now_ms: int = NOW_MS
    places: dict[str, tuple[TaskPlace, ...]] = field(default_factory=dict)
    first: set[str] = field(default_factory=set)
    evictions: int = 0
    cycles: int = 0
    late_evictions: int = 0


def load(path: Path) -> list[Case]:
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))["scenarios"]
        return [Case(row["id"], row["profile"], row["portability"], row) for row in rows]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: not a readable YAML file: {error}") from error
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path}: needs `scenarios`, a list with id, profile and portability each: {error}") from error


# -- building


def _milli(gpus: float | int) -> int:
    return -1 if gpus == -1 else round(gpus * 1000)


def _nodes(case: Case) -> list[NodeSpec]:
    cluster = case.row["cluster"]
    if case.pool:
        return [NodeSpec("pool", "cpu", cpu_milli=_milli(cluster["pool"]["gpus"]))]
    nodes = []
    for name, row in cluster["nodes"].items():
        slots = tuple(SlotSpec(f"{name}/{i}", i) for i in range(row["gpus"]))
        labels = tuple(sorted((str(k), str(v)) for k, v in row.get("labels", {}).items()))
        memory = row.get("mem_mb", 0) * 1_000_000
        nodes.append(NodeSpec(name, "gpu", slots, row.get("cpu_milli", 0), memory, labels=labels))
    return nodes


def _queue(case: Case, row: Row) -> QueueSpec:
    gpu = CPU if case.pool else "gpu"

    def amounts(kind: str) -> tuple[tuple[str, int], ...]:
        pairs = []
        if f"{kind}_gpus" in row:
            pairs.append((gpu, _milli(row[f"{kind}_gpus"])))
        if f"{kind}_cpu_milli" in row:
            pairs.append((CPU, row[f"{kind}_cpu_milli"]))
        if f"{kind}_mem_mb" in row:
            pairs.append((MEMORY, row[f"{kind}_mem_mb"] * 1_000_000))
        return tuple(sorted(pairs))

    return QueueSpec(
        row["name"], row.get("parent", ""), amounts("quota"), amounts("limit"), amounts("lending_limit"),
        row.get("weight", 1), row.get("priority", 100),
    )  # fmt: skip


def _job(case: Case, row: Row, index: int) -> JobSpec:
    gpus = _milli(row.get("gpus_per_task", 0))
    shape = TaskShape(0 if case.pool else gpus, gpus if case.pool else row.get("cpu_milli_per_task", 0))
    if "mem_mb_per_task" in row:
        shape = replace(shape, memory_bytes=row["mem_mb_per_task"] * 1_000_000)
    low, high = row["min_tasks"], row.get("max_tasks", row["tasks"])
    fixed = case.profile == "reclaim-quota" and row["priority"] >= NON_PREEMPTIBLE_FROM
    delay = row.get("preemption_delay_s")
    return JobSpec(
        row["id"], row["queue"], NOW_MS - 1000 + index if delay is None else NOW_MS, shape, low, max(low, high),
        priority=row["priority"], elastic=low != row["tasks"],
        preemptibility=Preemptibility.NON_PREEMPTIBLE if fixed else Preemptibility.PREEMPTIBLE,
        spread=row.get("required_topology", "any"), preemption_delay_ms=None if delay is None else delay * 1000,
    )  # fmt: skip


def start(case: Case) -> Run:
    """The case's first moment."""
    engine = Engine(PROFILES[case.profile], tuple(_queue(case, row) for row in case.row["queues"]))
    run = Run(case, engine)
    for node in _nodes(case):
        engine.apply(ev.NodeUp(node), NOW_MS)
    free: dict[str, list[int]] = {}
    for index, row in enumerate(case.row["jobs"]):
        spec = _job(case, row, index)
        if row["state"] == "pending":
            engine.apply(ev.JobSubmitted(spec), NOW_MS)
            continue
        places = _held(case, row, free)
        since = NOW_MS - 600_000 if row.get("stale") else NOW_MS - 1000 + index
        engine.apply(ev.JobRestored(spec, 1, 1, places, True, since), NOW_MS)
        run.places[spec.id] = places
        run.first.add(spec.id)
    return run


def _held(case: Case, row: Row, free: dict[str, list[int]]) -> tuple[TaskPlace, ...]:
    """Devices of a running job: the named one for fractions, else the lowest free ones of the node."""
    count: int = row["running_tasks"] if "running_tasks" in row else row["tasks"]
    if case.pool:
        return (TaskPlace("pool"),) * count
    places = []
    gpus = _milli(row.get("gpus_per_task", 0))
    for task in range(count):
        node = row["on"][task]
        left = free.setdefault(node, [1000] * case.row["cluster"]["nodes"][node]["gpus"])
        if gpus >= 1000:
            devices = [i for i, milli in enumerate(left) if milli == 1000][: gpus // 1000]
        elif gpus:
            devices = [
                row["gpu_index"][task] if "gpu_index" in row else next(i for i, m in enumerate(left) if m >= gpus)
            ]
        else:
            devices = []
        for device in devices:
            left[device] -= min(gpus, 1000)
        places.append(TaskPlace(node, tuple(f"{node}/{device}" for device in devices)))
    return tuple(places)


# -- obeying


def obey(run: Run, plan: Plan) -> None:
    """Do what the plan says, at once, and tell the engine."""
    engine, now = run.engine, run.now_ms
    for decision in plan.decisions:
        match decision:
            case Start():
                run.places[decision.job_id] = decision.places
                engine.apply(ev.JobStarted(decision.job_id, decision.epoch), now)
            case Resize():
                run.evictions += len(decision.places) < len(run.places[decision.job_id])
                run.places[decision.job_id] = decision.places
                engine.apply(ev.JobResized(decision.job_id, decision.epoch, decision.places), now)
            case Preempt():
                run.evictions += 1
                del run.places[decision.job_id]
                engine.apply(ev.JobRequeued(decision.job_id, decision.epoch, "preempted"), now)
            case Stop():
                del run.places[decision.job_id]
                engine.apply(ev.JobFinished(decision.job_id, decision.epoch, "cancelled"), now)
            case _:
                pass


def settle(run: Run) -> None:
    """Cycles until nothing happens any more, then a few quiet ones."""
    for run.cycles in range(MAX_CYCLES):
        plan = run.engine.decide(run.now_ms)
        if not [d for d in plan.decisions if isinstance(d, (Start, Resize, Preempt, Stop))]:
            break
        obey(run, plan)
    before = run.evictions
    for _ in range(QUIET_CYCLES):
        run.now_ms += 1000
        obey(run, run.engine.decide(run.now_ms))
    run.late_evictions = run.evictions - before


# -- judging


def run_case(case: Case) -> list[str]:
    """What differs from the fact; nothing when it holds."""
    run = start(case)
    settle(run)
    expect = case.row["expect"]
    named = {name for key in ("running", "pending", "preempted", "not_preempted") for name in expect.get(key, ())}
    problems = [f"{name} should run" for name in expect.get("running", ()) if name not in run.places]
    problems += [f"{name} should wait" for name in expect.get("pending", ()) if name in run.places]
    problems += [f"{name} should be preempted" for name in expect.get("preempted", ()) if name in run.places]
    problems += [
        f"{name} should not be preempted" for name in expect.get("not_preempted", ()) if name not in run.places
    ]
    problems += _victims(run, expect, named)
    for name, count in expect.get("running_tasks", {}).items():
        if len(run.places.get(name, ())) != count:
            problems.append(f"{name} should run {count} tasks, runs {len(run.places.get(name, ()))}")
    problems += _placement(run, expect.get("placement", {}))
    problems += _property(run, expect.get("property", {}))
    if run.late_evictions:
        problems.append(f"{run.late_evictions} evictions after the fixpoint")
    return problems


def _victims(run: Run, expect: Row, named: set[str]) -> list[str]:
    queue_of = {row["id"]: row["queue"] for row in run.case.row["jobs"]}
    gone = sorted(run.first - set(run.places))
    if "preempted_count" in expect:
        counts = Counter(queue_of[name] for name in gone if name not in expect.get("preempted", ()))
        if dict(counts) != expect["preempted_count"]:
            return [f"victims per queue should be {expect['preempted_count']}, are {dict(counts)} ({gone})"]
        return []
    return [f"{name} should go on running" for name in gone if name not in named]


def _placement(run: Run, placement: Row) -> list[str]:
    """Up to a renaming of identical nodes: jobs on one node stay together, jobs on different nodes apart."""
    actual = {name: {place.node for place in run.places.get(name, ())} for name in placement}
    names: dict[str, str] = {}
    for name, node in sorted(placement.items()):
        if len(actual[name]) != 1:
            return [f"{name} should be on one node ({node}), is on {sorted(actual[name])}"]
        here = next(iter(actual[name]))
        if names.setdefault(node, here) != here:
            return [f"{name} should share node {node}, is on {here}"]
    if len(set(names.values())) != len(names):
        return [f"different nodes were expected: {placement}, got {actual}"]
    return []


def _property(run: Run, wanted: Row) -> list[str]:
    problems = []
    if run.cycles > wanted.get("reaches_fixpoint_within_cycles", MAX_CYCLES):
        problems.append(f"fixpoint after {run.cycles} cycles")
    for name, count in wanted.get("min_running_tasks", {}).items():
        if len(run.places.get(name, ())) < count:
            problems.append(f"{name} should run at least {count} tasks")
    gpus = {row["id"]: row["gpus_per_task"] for row in run.case.row["jobs"] if "gpus_per_task" in row}
    used = sum(gpus.get(name, 0) * len(places) for name, places in run.places.items())
    if used < wanted.get("total_gpus_used_at_least", 0):
        problems.append(f"only {used} GPUs are used")
    return problems
