"""Scheduling a stream of pods one at a time, without departures, by a score per node: random, best fit, FGD.

FGD puts a pod where the fragmentation F grows least, scored as the authors do: floor(100 x sigmoid(dF / 1000)). Ties go to the
lexicographically smallest node name, as in their patched scheduler; that rule hides a packing rule (with random ties FGD loses
five points), so every result names its tie rule.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heliostat_scheduler.simulator.openb.data import Shape
from heliostat_scheduler.simulator.openb.fleet import Fleet, Floats, Ints

MARKS = (50, 100, 130)
"""Percent of the capacity requested so far at which the cluster is measured."""
NEVER = -np.inf

Score = Callable[[Fleet, Shape, Ints], tuple[Floats, Ints]]
"""(fleet, pod, nodes that fit) -> (score, device) per node; the highest score wins."""


@dataclass(slots=True)
class Board:
    """Scores of one shape over all nodes, valid up to `stamp` placements."""

    score: Floats
    device: Ints
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Percent of the GPU capacity at one mark."""

    alloc_pct: float
    frag_pct: float


def bestfit(fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
    """The node that would be left with the least CPU and GPU; inside it the fullest device that fits."""
    cpu = fleet.cpu[rows] - shape.cpu_milli
    gpu = fleet.free[rows].sum(axis=1) - shape.requested
    score = np.floor(100 * (1 - 0.5 * cpu / 128_000 - 0.5 * gpu / 8_000))
    free = fleet.free[rows]
    device = (
        np.where(free >= shape.milli, free, 10**6).argmin(axis=1) if shape.gpus == 1 else np.zeros(len(rows), dtype=int)
    )
    return score, device.astype(np.int64)


def fgd(fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
    """Fragmentation gradient descent, with the authors' integer rounding."""
    if not len(rows):
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    before = fleet.mix.fragments(fleet.free[rows], fleet.cpu[rows], fleet.model[rows])
    node, device, free, cpu = fleet.after(shape, rows)
    after = fleet.mix.fragments(free, cpu, fleet.model[node])
    best = np.full(len(rows), NEVER)
    choice = np.zeros(len(rows), dtype=np.int64)
    index = np.searchsorted(rows, node)
    gain = before[index] - after
    np.maximum.at(best, index, gain)
    for way in np.flatnonzero(gain == best[index])[::-1]:
        choice[index[way]] = device[way]
    return np.floor(100 / (1 + np.exp(-best / 1000))), choice


def anything(_: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
    """All nodes that fit are alike."""
    return np.zeros(len(rows)), np.full(len(rows), -1, dtype=np.int64)


class Placer:
    """Keeps the scores of each shape and renews only the nodes that changed since the shape was last seen."""

    def __init__(self, fleet: Fleet, score: Score, rng: random.Random, random_ties: bool) -> None:
        self._fleet = fleet
        self._score = score
        self._rng = rng
        self._random_ties = random_ties
        self._boards: dict[Shape, Board] = {}
        self._changed: list[int] = []

    def place(self, shape: Shape) -> bool:
        board = self._renew(shape)
        best = board.score.max()
        if best == NEVER:
            return False
        ties = np.flatnonzero(board.score == best)
        node = int(ties[self._rng.randrange(len(ties))] if self._random_ties else ties[0])
        device = int(board.device[node])
        if device < 0:
            fitting = np.flatnonzero(self._fleet.free[node] >= shape.milli)
            device = int(fitting[self._rng.randrange(len(fitting))]) if len(fitting) else 0
        self._fleet.place(node, shape, device)
        self._changed.append(node)
        return True

    def _renew(self, shape: Shape) -> Board:
        count = len(self._fleet.names)
        board = self._boards.get(shape)
        if board is None:
            rows = np.arange(count)
            board = self._boards[shape] = Board(np.full(count, NEVER), np.zeros(count, dtype=np.int64))
        else:
            rows = np.unique(np.array(self._changed[board.stamp :], dtype=np.int64))
        board.stamp = len(self._changed)
        if len(rows):
            fitting = rows[self._fleet.fits(shape, rows)]
            board.score[rows] = NEVER
            board.score[fitting], board.device[fitting] = self._score(self._fleet, shape, fitting)
        return board


def run(
    fleet: Fleet, stream: list[Shape], place: Callable[[Shape], bool], at: Callable[[int], None]
) -> dict[int, Measured]:
    """Offer the pods one by one (a pod that fits nowhere is dropped) and measure at the marks."""
    requested, marks, measured = 0, list(MARKS), {}
    for count, shape in enumerate(stream):
        requested += shape.requested
        place(shape)
        while len(marks) > 1 and requested * 100 >= marks[0] * fleet.capacity:
            measured[marks.pop(0)] = _measure(fleet)
        at(count)
    measured[marks[0]] = _measure(fleet)
    return measured


def _measure(fleet: Fleet) -> Measured:
    used = fleet.capacity - fleet.idle_milli()
    return Measured(100 * used / fleet.capacity, 100 * fleet.fragmented_milli() / fleet.capacity)
