"""openb's nodes and pods, and the stream of arrivals the benchmark draws from them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from heliostat_scheduler.simulator.tables import BadInput, read_rows, whole

GPU_MILLI = 1000
INFLATE = 1.3
"""Copies are appended until the requested GPUs reach this share of the capacity."""
TYPICAL_SHARE = 0.95
"""The demand mix keeps the most frequent shapes until they cover this share of the pods."""


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclass(frozen=True, slots=True)
class Shape:
    """What a pod needs: `gpus` devices of `milli` each on one node, of one of `models` (empty: any)."""

    cpu_milli: int
    memory_mib: int
    gpus: int
    milli: int
    models: tuple[str, ...] = ()

    @property
    def requested(self) -> int:
        return self.gpus * self.milli

    def asks_at_least(self, other: Shape) -> bool:
        """Whether every place for this shape is one for the other too."""
        return (
            self.cpu_milli >= other.cpu_milli
            and self.memory_mib >= other.memory_mib
            and self.gpus >= other.gpus
            and self.milli >= other.milli
            and (not other.models or (bool(self.models) and set(self.models) <= set(other.models)))
        )

    @property
    def kind(self) -> tuple[int, int, int, tuple[str, ...]]:
        """What the fragmentation measure distinguishes (memory is no part of it)."""
        return self.cpu_milli, self.gpus, self.milli, self.models


@dataclass(frozen=True, slots=True)
class Typical:
    """A shape of the demand mix and its share; shares sum to 1."""

    cpu_milli: int
    gpus: int
    milli: int
    models: tuple[str, ...]
    share: float


def load_nodes(path: Path) -> list[Node]:
    """Nodes that have GPUs, by name."""
    nodes = []
    for line, row in enumerate(read_rows(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model")), start=2):
        where = f"{path}, line {line}"
        gpus = whole(row, "gpu", where)
        if gpus:
            cpu, memory = whole(row, "cpu_milli", where), whole(row, "memory_mib", where)
            nodes.append(Node(row["sn"], cpu, memory, gpus, row["model"]))
    if not nodes:
        raise BadInput(f"{path}: no node has a GPU")
    return sorted(nodes, key=lambda node: node.name)


def load_pods(path: Path) -> list[tuple[str, Shape]]:
    """(name, shape) in file order. A pod of several GPUs takes whole ones."""
    pods = []
    columns = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
    for line, row in enumerate(read_rows(path, columns), start=2):
        where = f"{path}, line {line}"
        gpus, milli = whole(row, "num_gpu", where), whole(row, "gpu_milli", where)
        if milli > GPU_MILLI:
            raise BadInput(f"{where}: gpu_milli is {milli}, more than one device")
        milli = GPU_MILLI if gpus > 1 else milli if gpus else 0
        models = tuple(sorted(filter(None, row.get("gpu_spec", "").split("|"))))
        pods.append(
            (row["name"], Shape(whole(row, "cpu_milli", where), whole(row, "memory_mib", where), gpus, milli, models))
        )
    return pods


def arrivals(pods: list[tuple[str, Shape]], capacity_milli: int, seed: int) -> list[Shape]:
    """The benchmark's stream: all pods, then uniform copies up to 1.3 x capacity, sorted by name, shuffled by the seed."""
    rng = random.Random(seed)
    stream = list(pods)
    total = sum(shape.requested for _, shape in pods)
    copies = 0
    while True:
        name, shape = pods[rng.randrange(len(pods))]
        if total + shape.requested > INFLATE * capacity_milli:
            break
        total += shape.requested
        copies += 1
        stream.append((f"{name}-copy-{copies:06d}", shape))
    stream.sort(key=lambda item: item[0])
    rng.shuffle(stream)
    return [shape for _, shape in stream]


def typical(pods: list[tuple[str, Shape]]) -> list[Typical]:
    """The demand mix: distinct kinds by falling count until they cover 95 % of the pods, shares renormalised."""
    counts = Counter(shape.kind for _, shape in pods)
    kept, covered = [], 0
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= TYPICAL_SHARE * len(pods):
            break
        kept.append((kind, count))
        covered += count
    return [Typical(*kind, count / covered) for kind, count in kept]
