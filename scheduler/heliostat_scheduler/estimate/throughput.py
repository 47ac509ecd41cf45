"""From what a job reports while it trains to a curve: work per second by number of tasks, optimistic about what was never tried.

`Meter` keeps, by size, the throughput that was measured (samples per second, else epochs): the median of the last reports of a size, the
first one after each change left out (processes start, kernels are built). A size counts once enough was heard of it. `curve` puts the
model of Pollux (`goodput`) through the measured sizes at a batch that stays the same: what one task needs for a step is shared by the
others, and what is lost against that is synchronisation. Without gradient statistics the efficiency is 1. Measured sizes keep their
measured value; others get the model's, up to twice the largest size tried. Of a job of which nothing was measured nothing is believed.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heliostat_scheduler.estimate.goodput import GoodputModel, Limits

SAMPLES, EPOCHS = "samples", "epochs"
FEWEST_REPORTS = 5
FEWEST_S = 60.0
"""A size counts after so many reports over so long a time."""
LATEST = 15
LONGEST_GAP_S = 600.0
SLOWEST, FASTEST = 1e-9, 1e8
"""Work per second beyond which a report is not believed."""
BATCH = 720_720
"""Divided among tasks; every number up to 16 divides it."""
ALL_UP_TO = 32
"""Above, sizes are whole nodes."""


@dataclass(slots=True)
class Size:
    """What was heard at one number of tasks."""

    reports: int = 0
    seconds: float = 0.0
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))

    @property
    def per_s(self) -> float:
        return statistics.median(self.rates)

    @property
    def counts(self) -> bool:
        return self.reports >= FEWEST_REPORTS and self.seconds >= FEWEST_S


@dataclass(slots=True)
class Meter:
    """One job's reports. unit: of work; it is chosen by the first report that names one, and a report in another unit begins anew."""

    unit: str = ""
    sizes: dict[int, Size] = field(default_factory=dict)
    _stretch: tuple[int, int] = (0, 0)
    _last_s: float = 0.0
    _epoch: float = 0.0

    def heard(
        self, attempt: int, tasks: int, at_s: float, samples_per_s: float | None = None, epoch: float | None = None
    ) -> None:
        unit = SAMPLES if samples_per_s is not None else EPOCHS if epoch is not None else ""
        if not unit or tasks <= 0:
            return
        if unit != self.unit:
            self.unit, self.sizes, self._stretch = unit, {}, (0, 0)
        if self._stretch != (attempt, tasks):
            self._stretch, self._last_s, self._epoch = (attempt, tasks), at_s, epoch or 0.0
            return
        passed_s = at_s - self._last_s
        rate = samples_per_s
        if rate is None and epoch is not None:
            if epoch <= self._epoch:
                return
            rate = (epoch - self._epoch) / passed_s if passed_s > 0 else None
        if passed_s <= 0 or rate is None or not SLOWEST <= rate <= FASTEST:
            return
        self._last_s, self._epoch = at_s, epoch or 0.0
        size = self.sizes.setdefault(tasks, Size())
        size.reports += 1
        size.seconds += min(passed_s, LONGEST_GAP_S)
        size.rates.append(rate)

    def measured(self) -> dict[int, float]:
        """Work per second at each size of which enough was heard."""
        return {tasks: size.per_s for tasks, size in sorted(self.sizes.items()) if size.counts}

    def done(self) -> float:
        """Work done while it was listened to."""
        return sum(size.per_s * size.seconds for size in self.sizes.values() if size.rates)


def curve(measured: Mapping[int, float], sizes: Sequence[int], gpus_per_node: int) -> list[tuple[int, float]]:
    """(tasks, work per second), ascending. measured: at least one size."""
    model = GoodputModel(Limits(BATCH, BATCH, 1, BATCH, fixed=BATCH), gpus_per_node, overhead=0.0)
    fewest = min(measured)
    alone_s = fewest * BATCH / measured[fewest]
    for tasks, per_s in sorted(measured.items()):
        step_s = BATCH / per_s
        compute_s = min(step_s, alone_s / tasks)
        model.measured(-(-tasks // gpus_per_node), tasks, -(-BATCH // tasks), step_s, step_s - compute_s)
    told = dict(zip(sizes, model.curve(sizes), strict=True)) | {
        size: measured[size] for size in sizes if size in measured
    }
    return sorted(told.items())


def sizes_of(fewest: int, most: int, held: int, tried: int, gpus_per_node: int) -> list[int]:
    """The sizes that a curve speaks of: the valid ones up to twice the largest tried, above ALL_UP_TO whole nodes; and the present one."""
    largest = min(most, max(2 * tried, held, fewest))
    found = {size for size in range(fewest, largest + 1) if size <= ALL_UP_TO or size % gpus_per_node == 0}
    return sorted(found | {fewest} | ({held} if held else set()))
