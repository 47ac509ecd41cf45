"""The goodput model of Pollux (OSDI 2021): how fast training advances as a function of GPUs, fitted online to what a job measured.

Throughput: an accumulation step on a batch of m per GPU takes a_c + b_c m; synchronisation takes 0 on one GPU,
a_r + b_r (K - 2) inside a node and a_n + b_n (K - 2) across nodes; an optimizer step takes (T_acc^g + T_sync^g)^(1/g), 1 <= g <= 10.
Efficiency of a total batch B is (phi + B0) / (phi + B) with phi = B0 var / sqr of the gradient. Goodput is their product.
What was never tried is taken for free (no synchronisation cost), which is what makes a policy try it.
The fit works on log parameters with Levenberg-Marquardt (1-2 ms a fit) and is repeated only when the newest measurement is
mispredicted by more than a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TINY = 1e-8
GAMMA_MAX = 10.0
REFIT_ERROR = 0.1
GRID = 50
_START = np.array([0.1, 0.01, 0.1, 0.01, 0.1, 0.01])
_PRIOR = 1e-3
_GSTART = 0.5
_NEGLIGIBLE = 1e-4
"""Seconds below which a parameter is not worth starting from: in log space its gradient is nil, and it would never grow again."""
_GAMMA_PRIOR = 0.005
_RATIO_PRIOR = 0.02
_ALPHA_C, _BETA_C, _ALPHA_N, _BETA_N, _ALPHA_R, _BETA_R = range(6)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may do with its batch. `fixed`: the total batch that is never changed, or None."""

    init_batch: int
    max_batch: int
    min_local: int
    max_local: int
    fixed: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The best way to run at one size."""

    goodput: float
    local_batch: int
    accumulation: int


@dataclass(slots=True)
class GoodputModel:
    """One job's model. Feed `measured` and `gradient`; ask `choose` and `curve`. `gpus_per_node` shapes untried sizes.

    overhead: the share of a step that does not shrink with the batch, as long as only one batch was measured.
    """

    limits: Limits
    gpus_per_node: int
    points: dict[tuple[int, int, int], tuple[float, float]] = field(default_factory=dict)
    params: Floats | None = None
    gamma: float = 1.0
    noise: float = 0.0
    version: int = 0
    overhead: float = 0.5

    def measured(self, nodes: int, replicas: int, local_batch: int, step_s: float, sync_s: float) -> None:
        """A step time at a point of the configuration space (the first measurement of a point counts)."""
        key = (nodes, replicas, local_batch)
        if key in self.points:
            return
        self.points[key] = (step_s, step_s - sync_s)
        if self.params is None or self._error(key) > REFIT_ERROR:
            self._fit()
            self.version += 1

    def gradient(self, sqr: float, var: float) -> None:
        """Squared norm and variance of the gradient at the initial batch size."""
        noise = self.limits.init_batch * var / sqr if sqr > 0 else 0.0
        if noise != self.noise:
            self.noise = noise
            self.version += 1

    def choose(self, replicas: int, nodes: int | None = None) -> Choice:
        """The best batch at this size, by the model; before any measurement the initial batch."""
        limits = self.limits
        if limits.fixed is not None or self.params is None:
            batch = limits.fixed or max(limits.init_batch, limits.min_local * replicas)
            local, accumulation = self._split(np.array([float(batch)]), np.array([float(replicas)]))
            return Choice(0.0, int(local[0, 0]), int(accumulation[0, 0]))
        best, local, accumulation = self._search(np.array([replicas]), None if nodes is None else np.array([nodes]))
        return Choice(float(best[0]), int(local[0]), int(accumulation[0]))

    def curve(self, sizes: Sequence[int]) -> list[float]:
        """Best goodput (samples at full efficiency per second) at each size, placed on as few nodes as possible."""
        if self.params is None:
            return [float(size) for size in sizes]
        return [float(value) for value in self._search(np.array(sizes))[0]]

    def _search(self, replicas: Ints, nodes: Ints | None = None) -> tuple[Floats, Ints, Ints]:
        limits = self.limits
        nodes = -(-replicas // self.gpus_per_node) if nodes is None else nodes
        if limits.fixed is not None:
            batch = np.full((1, len(replicas)), float(limits.fixed))
        else:
            low = np.maximum(limits.init_batch, limits.min_local * replicas).astype(float)
            batch = np.geomspace(np.minimum(low, limits.max_batch), limits.max_batch, GRID)
        local, accumulation = self._split(batch, replicas.astype(float))
        total = replicas * local * (accumulation + 1)
        accum_s, step_s = self._predict(
            np.broadcast_to(nodes, local.shape), np.broadcast_to(replicas, local.shape), local
        )
        efficiency = (self.noise + limits.init_batch) / (self.noise + total)
        goodput = total / (step_s + accumulation * accum_s) * efficiency
        goodput = np.where((local >= limits.min_local) & (local <= limits.max_local), goodput, 0.0)
        best = goodput.argmax(axis=0)
        column = np.arange(len(replicas))
        return goodput[best, column], local[best, column], accumulation[best, column]

    def _split(self, batch: Floats, replicas: Floats) -> tuple[Ints, Ints]:
        """Total batch -> (local batch, accumulation steps). One GPU above the initial batch accumulates at least once."""
        limits = self.limits
        local = np.atleast_2d(batch / replicas)
        accumulation = np.ceil(local / limits.max_local - TINY) - 1
        alone = (replicas == 1) & (local > limits.init_batch + TINY)
        accumulation = np.where(alone, np.maximum(accumulation, 1), accumulation)
        local = np.ceil(local / (accumulation + 1) - TINY)
        cap = np.floor(limits.max_batch / (replicas * (accumulation + 1)))
        return np.minimum(local, cap).astype(np.int64), accumulation.astype(np.int64)

    def _predict(self, nodes: Ints, replicas: Ints, local: Ints) -> tuple[Floats, Floats]:
        assert self.params is not None
        return _times(self.params, self.gamma, nodes, replicas, local)

    def _error(self, key: tuple[int, int, int]) -> float:
        nodes, replicas, local = (np.array([part]) for part in key)
        step, accum = self.points[key]
        accum_s, step_s = self._predict(nodes, replicas, local)
        return max(abs(float(step_s[0]) / step - 1), abs(float(accum_s[0]) / accum - 1))

    def _fit(self) -> None:
        table = np.array([[*key, *value] for key, value in self.points.items()])
        nodes, replicas, local, step, accum = table.T
        fixed = _unseen(nodes, replicas, local, accum, self.overhead)
        free = [i for i in range(6) if i not in fixed]
        base = _START.copy()
        base[list(fixed)] = list(fixed.values())
        default = np.append(np.log(base[free]), _GSTART)
        starts = [default]
        if self.params is not None:
            known = np.where(self.params[free] > _NEGLIGIBLE, self.params[free], base[free])
            starts.append(np.append(np.log(known), max(_GSTART, np.sqrt(self.gamma - 1))))

        def unpack(x: Floats) -> tuple[Floats, float]:
            params = base.copy()
            params[free] = np.exp(np.clip(x[:-1], -18, 8))
            return params, 1.0 + min(float(x[-1]) ** 2, GAMMA_MAX - 1)

        def residuals(x: Floats) -> Floats:
            params, gamma = unpack(x)
            accum_s, step_s = _times(params, gamma, nodes, replicas, local)
            share = 1 / np.sqrt(len(step))
            return np.concatenate([
                np.log(accum_s / accum) * share,
                np.log(step_s / step) * share,
                [_GAMMA_PRIOR * (gamma - 1), _RATIO_PRIOR * params[_BETA_N] / params[_ALPHA_N], _RATIO_PRIOR * params[_BETA_R] / params[_ALPHA_R]],
                _PRIOR * (x - default),
            ])  # fmt: skip

        fits = [least_squares(residuals, start, method="lm", max_nfev=200) for start in starts]
        found = min(fits, key=lambda fit: float(fit.cost))
        params, self.gamma = unpack(found.x)
        if not np.any(nodes > 1):
            params[_ALPHA_N] = max(params[_ALPHA_N], 1.1 * params[_ALPHA_R])
            params[_BETA_N] = max(params[_BETA_N], 1.1 * params[_BETA_R])
        self.params = params


def _unseen(nodes: Floats, replicas: Floats, local: Floats, accum: Floats, overhead: float) -> dict[int, float]:
    """Parameters the measurements say nothing about, and the optimistic value each is held at."""
    fixed: dict[int, float] = {}
    if len(np.unique(local)) == 1:
        fixed[_ALPHA_C] = max(TINY, float(accum.mean()) * overhead)
    if not np.any(nodes > 1):
        fixed[_ALPHA_N] = fixed[_BETA_N] = TINY
    if not np.any((nodes == 1) & (replicas > 1)):
        fixed[_ALPHA_R] = fixed[_BETA_R] = TINY
    if not np.any(replicas > 2):
        fixed[_BETA_N] = fixed[_BETA_R] = TINY
    return fixed


def _times(
    params: Floats, gamma: float, nodes: Ints | Floats, replicas: Ints | Floats, local: Ints | Floats
) -> tuple[Floats, Floats]:
    """(accumulation step, optimizer step) seconds."""
    accum = params[_ALPHA_C] + params[_BETA_C] * local
    across, inside = nodes > 1, replicas > 1
    constant = np.where(across, params[_ALPHA_N], np.where(inside, params[_ALPHA_R], TINY))
    growth = np.where(across, params[_BETA_N], np.where(inside, params[_BETA_R], TINY))
    sync = constant + growth * np.maximum(replicas - 2, TINY)
    larger = np.maximum(accum, sync)
    step = larger * ((accum / larger) ** gamma + (sync / larger) ** gamma) ** (1 / gamma)
    return accum, step
