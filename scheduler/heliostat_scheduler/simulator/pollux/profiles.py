"""The measured applications of the Pollux benchmark: true step times and true gradient statistics, as their simulator reads them.

A policy never sees this module's answers directly: it learns a point only after a job has visited it. The exception is the
Optimus yardstick, which the authors gave the oracle throughput.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from heliostat_scheduler.simulator.tables import BadInput, Row, number, read_rows, whole

MAX_NODES = 16
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Validation:
    """One training run at a fixed batch size, one entry per epoch."""

    progress: list[float] = field(default_factory=list)
    iteration: list[float] = field(default_factory=list)
    grad_sqr: list[float] = field(default_factory=list)
    grad_var: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Application:
    """True behaviour of one model."""

    name: str
    max_epochs: int
    init_batch: int
    max_batch: int
    min_local: int
    max_local: int
    runs: dict[int, Validation]
    placements: dict[int, tuple[Floats, Floats]]
    spread: LinearNDInterpolator
    _times: dict[tuple[tuple[int, ...], int], tuple[float, float]] = field(default_factory=dict)

    def progress_at(self, epoch: int) -> float:
        """Progress (samples at perfect efficiency) at which `epoch` epochs are complete."""
        return 0.0 if epoch == 0 else min(run.progress[epoch - 1] for run in self.runs.values())

    @property
    def last_epoch(self) -> int:
        """The job ends when its epoch exceeds this."""
        return self.max_epochs - 1

    def _neighbours(self, batch: int) -> tuple[int, int]:
        sizes = list(self.runs)
        low, high = bisect_right(sizes, batch) - 1, bisect_left(sizes, batch)
        if low < 0 or high >= len(sizes):
            raise ValueError(f"{self.name}: batch size {batch} lies outside the profiled {sizes[0]}..{sizes[-1]}")
        return sizes[low], sizes[high]

    def gradient(self, batch: int, epoch: int) -> tuple[float, float]:
        """(squared norm, variance) of the gradient during `epoch`, linear in the batch size between measured runs."""
        low, high = self._neighbours(batch)
        a, b = self.runs[low], self.runs[high]
        if low == high:
            return a.grad_sqr[epoch], a.grad_var[epoch]
        right, left, width = batch - low, high - batch, high - low
        return (
            (right * b.grad_sqr[epoch] + left * a.grad_sqr[epoch]) / width,
            (right * b.grad_var[epoch] + left * a.grad_var[epoch]) / width,
        )

    def iterations(self, batch: int, epoch: int) -> float:
        """Iterations needed to finish `epoch` at this batch size."""
        low, high = self._neighbours(batch)
        a, b = self.runs[low].iteration[epoch], self.runs[high].iteration[epoch]
        return a if low == high else ((batch - low) * b + (high - batch) * a) / (high - low)

    def step_time(self, placement: tuple[int, ...], local_batch: int) -> tuple[float, float]:
        """True (step, synchronisation) seconds with placement[i] GPUs on the i-th node."""
        key = (placement, local_batch)
        if key not in self._times:
            self._times[key] = self._measure(placement, local_batch)
        return self._times[key]

    def _measure(self, placement: tuple[int, ...], local_batch: int) -> tuple[float, float]:
        smallest = min(placement[i:] + placement[:i] for i in range(len(placement)))
        found = self.placements.get(int("".join(map(str, smallest))))
        if found is not None:
            sizes, times = found
            if not sizes[0] <= local_batch <= sizes[-1]:
                raise ValueError(f"{self.name}: local batch {local_batch} was never measured on {placement}")
            return (
                float(np.interp(local_batch, sizes, times[:, 0])),
                float(np.interp(local_batch, sizes, times[:, 1])),
            )
        step, sync = self.spread([min(len(placement), MAX_NODES), sum(placement), local_batch])[0]
        if step + sync != step + sync:
            raise ValueError(f"{self.name}: {placement} with local batch {local_batch} lies outside the measurements")
        return float(step), float(sync)


def load(folder: Path) -> dict[str, Application]:
    """All applications of a profiles folder, by name."""
    table = folder / "applications.csv"
    columns = (
        "app",
        "max_epochs",
        "max_local_bsz_override",
        "min_local_bsz",
        "max_local_bsz_profiled",
        "init_batch_size",
    )
    runs = _validation(folder / "validation.csv.gz")
    placements = _by_app(folder / "throughput_placements.csv.gz", ("placement",))
    scaling = _by_app(folder / "throughput_scalability.csv.gz", ("num_nodes", "num_replicas"))
    applications = {}
    for line, row in enumerate(read_rows(table, (*columns, "max_batch_size")), start=2):
        where, name = f"{table}, line {line}", row["app"]
        if name not in runs or name not in placements or name not in scaling:
            raise BadInput(f"{where}: application {name} has no measurements beside it")
        local = row["max_local_bsz_override"] or row["max_local_bsz_profiled"]
        applications[name] = Application(
            name,
            whole(row, "max_epochs", where, least=1),
            whole(row, "init_batch_size", where, least=1),
            whole(row, "max_batch_size", where, least=1),
            whole(row, "min_local_bsz", where, least=1),
            int(local),
            dict(sorted(runs[name].items())),
            _measured(placements[name]),
            _spread(placements[name], scaling[name]),
        )
    return applications


def _validation(path: Path) -> dict[str, dict[int, Validation]]:
    columns = ("app", "batch_size", "epoch", "progress", "iteration", "grad_sqr", "grad_var")
    rows = [(row, f"{path}, line {n}") for n, row in enumerate(read_rows(path, columns), start=2)]
    apps: dict[str, dict[int, Validation]] = {}
    for row, where in sorted(rows, key=lambda item: number(item[0], "epoch", item[1])):
        run = apps.setdefault(row["app"], {}).setdefault(whole(row, "batch_size", where, least=1), Validation())
        run.progress.append(number(row, "progress", where))
        run.iteration.append(number(row, "iteration", where))
        run.grad_sqr.append(number(row, "grad_sqr", where))
        run.grad_var.append(number(row, "grad_var", where))
    return apps


def _by_app(path: Path, keys: tuple[str, ...]) -> dict[str, list[list[float]]]:
    """app -> rows of (keys..., local_bsz, step_time, sync_time)."""
    columns = (*keys, "local_bsz", "step_time", "sync_time")
    apps: dict[str, list[list[float]]] = {}
    for line, row in enumerate(read_rows(path, ("app", *columns)), start=2):
        apps.setdefault(row["app"], []).append(_cells(row, columns, f"{path}, line {line}"))
    return apps


def _cells(row: Row, columns: tuple[str, ...], where: str) -> list[float]:
    return [number(row, column, where) for column in columns]


def _measured(rows: list[list[float]]) -> dict[int, tuple[Floats, Floats]]:
    grouped: dict[int, list[list[float]]] = {}
    for placement, *rest in rows:
        grouped.setdefault(int(placement), []).append(rest)
    tables = {placement: np.array(sorted(points)) for placement, points in grouped.items()}
    return {placement: (table[:, 0], table[:, 1:]) for placement, table in tables.items()}


def _spread(placements: list[list[float]], scaling: list[list[float]]) -> LinearNDInterpolator:
    """(nodes, replicas, local batch) -> (step, sync): placements averaged per shape, then the scalability runs."""
    grouped: dict[tuple[float, float, float], list[list[float]]] = {}
    for placement, local, step, sync in placements:
        digits = str(int(placement))
        key = (float(len(digits)), float(sum(map(int, digits))), local)
        grouped.setdefault(key, []).append([step, sync])
    points = [[*key, *np.mean(grouped[key], axis=0)] for key in sorted(grouped)] + scaling
    table = np.array(points)
    return LinearNDInterpolator(table[:, :3], table[:, 3:])
