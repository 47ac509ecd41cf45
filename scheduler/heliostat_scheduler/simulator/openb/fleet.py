"""The fleet as arrays: what is free, what fits, and FGD's fragmentation of every node.

free: (node, device) -> idle milli of the device, 0 where a node has fewer devices. A node's fragment for a demand kind is the
sum of leftovers too small for it, or all its idle milli when the kind cannot run there at all; F is the mean over the mix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heliostat_scheduler.simulator.openb.data import GPU_MILLI, Node, Shape, Typical

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Mix:
    """The demand mix prepared for whole arrays of nodes."""

    def __init__(self, kinds: list[Typical], models: list[str]) -> None:
        self.share = np.array([kind.share for kind in kinds])
        self.cpu = np.array([kind.cpu_milli for kind in kinds])
        self.gpus = np.array([kind.gpus for kind in kinds])
        self.levels = sorted({kind.milli for kind in kinds if kind.gpus})
        level = {milli: i for i, milli in enumerate(self.levels)}
        self.level = np.array([level.get(kind.milli, 0) for kind in kinds])
        self.allowed = np.array([[not kind.models or model in kind.models for kind in kinds] for model in models])

    def fragments(self, free: Ints, cpu: Ints, model: Ints) -> Floats:
        """F per row: free (m, devices), cpu (m,), model (m,) -> (m,)."""
        total = free.sum(axis=1)
        enough = np.stack([(free >= milli).sum(axis=1) for milli in self.levels], axis=1)
        small = np.stack([np.where(free < milli, free, 0).sum(axis=1) for milli in self.levels], axis=1)
        runs = (cpu[:, None] >= self.cpu) & self.allowed[model] & (enough[:, self.level] >= self.gpus) & (self.gpus > 0)
        fragment = np.where(runs, small[:, self.level], total[:, None])
        return np.asarray(fragment @ self.share)


class Fleet:
    """Free resources of all nodes; nodes are indexed in name order."""

    def __init__(self, nodes: list[Node], kinds: list[Typical]) -> None:
        self.names = [node.name for node in nodes]
        self.models = sorted({node.model for node in nodes})
        self.devices = np.array([node.gpus for node in nodes])
        width = int(self.devices.max())
        self.free: Ints = np.where(np.arange(width) < self.devices[:, None], GPU_MILLI, 0).astype(np.int64)
        self.cpu: Ints = np.array([node.cpu_milli for node in nodes], dtype=np.int64)
        self.memory: Ints = np.array([node.memory_mib for node in nodes], dtype=np.int64)
        self.model: Ints = np.array([self.models.index(node.model) for node in nodes], dtype=np.int64)
        self.capacity = int(self.devices.sum()) * GPU_MILLI
        self.mix = Mix(kinds, self.models)

    def fits(self, shape: Shape, rows: Ints) -> Bools:
        """Which of the nodes `rows` could take the pod now."""
        ok: Bools = (self.cpu[rows] >= shape.cpu_milli) & (self.memory[rows] >= shape.memory_mib)
        if shape.gpus:
            ok &= (self.free[rows] >= shape.milli).sum(axis=1) >= shape.gpus
        if shape.models:
            ok &= np.array([name in shape.models for name in self.models])[self.model[rows]]
        return ok

    def place(self, node: int, shape: Shape, device: int) -> None:
        """Take the pod's resources; `device` matters for pods of one GPU."""
        self.cpu[node] -= shape.cpu_milli
        self.memory[node] -= shape.memory_mib
        if shape.gpus == 1:
            self.free[node, device] -= shape.milli
        elif shape.gpus:
            whole = np.flatnonzero(self.free[node] == GPU_MILLI)[: shape.gpus]
            self.free[node, whole] = 0

    def idle_milli(self) -> int:
        return int(self.free.sum())

    def fragmented_milli(self) -> float:
        return float(self.mix.fragments(self.free, self.cpu, self.model).sum())

    def after(self, shape: Shape, rows: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Every way to place the pod on nodes that fit it: (node, device, free after, CPU after), one row per way."""
        free = self.free[rows]
        if shape.gpus == 1:
            way, device = np.nonzero(free >= shape.milli)
            changed = free[way].copy()
            changed[np.arange(len(way)), device] -= shape.milli
            return rows[way], device, changed, self.cpu[rows[way]] - shape.cpu_milli
        changed = free.copy()
        if shape.gpus:
            idle = changed == GPU_MILLI
            changed[idle & (idle.cumsum(axis=1) <= shape.gpus)] = 0
        return rows, np.zeros(len(rows), dtype=np.int64), changed, self.cpu[rows] - shape.cpu_milli
