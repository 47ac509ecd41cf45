"""Who will be submitted: what was submitted lately, again. Blocks of past hours are drawn with a seed and laid end to end.

Submissions come in bursts, and a burst goes on: the last hour comes again with GOES_ON, and again after that, until a draw ends it; from
then on blocks are drawn from all. So what comes in the k-th hour is above the mean by GOES_ON^k of what came in the last one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.forecast.future import Arrival

BLOCK_MS = 3_600_000
GOES_ON = 0.55
"""Correlation of the GPUs asked for in an hour and in the next one, each as a difference from the day before (Philly's tenants on days
without waiting: 0.56, 0.29, 0.22 one, two, three hours on)."""


def like_before(
    past: Sequence[JobSpec],
    rest: Callable[[JobSpec, int], int],
    now_ms: int,
    horizon_ms: int,
    seed: int,
    block_ms: int = BLOCK_MS,
) -> list[Arrival]:
    """Submissions between now and `now_ms + horizon_ms`, drawn from the blocks between the oldest of `past` and now.

    Each drawn job is a new one (its id begins with `~`), of the same queue, size and class, without the dependencies of its model.
    """
    if not past:
        return []
    rng = random.Random(f"{seed} arrivals")
    oldest = min(spec.submitted_at_ms for spec in past)
    blocks = max(1, -(-(now_ms - oldest) // block_ms))
    by_block: dict[int, list[JobSpec]] = {}
    for spec in past:
        by_block.setdefault((now_ms - 1 - spec.submitted_at_ms) // block_ms, []).append(spec)
    found, lasts = [], True
    for index in range(-(-horizon_ms // block_ms)):
        lasts = lasts and rng.random() < GOES_ON
        chosen = 0 if lasts else rng.randrange(blocks)
        begin = now_ms - (chosen + 1) * block_ms
        for number, spec in enumerate(by_block.get(chosen, ())):
            at_ms = now_ms + index * block_ms + max(1, spec.submitted_at_ms - begin)
            if at_ms <= now_ms + horizon_ms:
                new = replace(spec, id=f"~{seed}.{index}.{number}", submitted_at_ms=at_ms, dependencies=())
                found.append(Arrival(at_ms, new, rest(new, 0)))
    return found
