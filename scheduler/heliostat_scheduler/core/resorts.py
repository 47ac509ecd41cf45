"""What a search tries when taking the mildest victim again and again came to nothing.

The mildest loss may be the wrong one: it can use up the right to a loss that alone would have been enough, and where lower work of the
own queue has to go before anything may be reclaimed, that work may run on nodes that are of no use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import Unit
from heliostat_scheduler.core.sites import by_sites

if TYPE_CHECKING:
    from heliostat_scheduler.core.recovery import Search

TRIES = 8


def right_first(search: Search, units: list[Unit]) -> bool:
    """Lower work of the own queue until it may reclaim, then sites."""
    own = [unit for unit in units if unit.leaf is search.wish.leaf and unit.evict]
    return bool(own) and not search.in_share() and search.greedy(own, search.in_share) and by_sites(search, units)


def one_alone(search: Search, units: list[Unit]) -> bool:
    """A single job whose going is enough, the mildest such; what was tried before is undone."""
    search.undo()
    wish = search.wish
    gap = wish.spec.shape.gpu_milli * wish.count - search.book.soon.free_milli.get(wish.flavor, 0)
    if not wish.flavor or not any(unit.evict and unit.leaf is not wish.leaf for unit in units):
        return False
    large = [unit for unit in units if unit.evict and unit.amounts[0][1] >= gap]
    ranked = [(key, index) for index, unit in enumerate(large) if (key := search.key(unit)) is not None]
    for _, index in sorted(ranked)[:TRIES]:
        search.take(large[index])
        if search.fits() is not None:
            return True
        search.put_back(large[index])
    return False
