"""A victim set without anybody who need not be in it: whoever can be returned is returned, the most harmful first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.harm import Unit, within

if TYPE_CHECKING:
    from heliostat_scheduler.core.recovery import Search


def give_back(search: Search) -> None:
    """Return every victim that is not needed, the most harmful first."""
    order = sorted(search.taken, key=lambda u: (not u.evict, -u.rec.spec.priority, -u.lost, u.rec.id))
    for unit in order:
        if unit not in search.taken:  # its job was taken whole instead
            continue
        search.put_back(unit)
        if search.fits() is None or not _still_legal(search, unit):
            search.take(unit)


def _still_legal(search: Search, returned: Unit) -> bool:
    if search.state.policy.reclaim_rule == "share" or returned.leaf is not search.wish.leaf:
        return True
    for unit in search.taken:
        if unit.leaf is search.wish.leaf:
            continue
        mine = search.wish.below(search.book.tree, unit.leaf)[0]
        by_share = any(within(mine, search.wish.need, quota) for quota in (True, False))
        if not by_share and not (unit.evict and search.my_turn(unit.leaf, unit.rec)):
            return False
    return True
