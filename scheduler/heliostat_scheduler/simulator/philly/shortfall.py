"""Entitled GPUs withheld while somebody borrows: the measure that tests quotas.

Between two events: used_v = GPUs that tenant v runs on; ent_v = used_v plus v's waiting jobs in policy order while
ent_v + g <= quota_v; the shortfall is min(sum(ent_v - used_v), sum(max(0, used_v - quota_v))), integrated over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Shortfall:
    """Integrates over virtual time. `waiting` gives a tenant's waiting GPU counts in policy order."""

    def __init__(self, quota: dict[str, int], waiting: Callable[[str], Iterable[int]]) -> None:
        self.quota = quota
        self.used = dict.fromkeys(quota, 0)
        self._waiting = waiting
        self._since = 0.0
        self.gpu_s = 0.0

    def until(self, now_s: float) -> None:
        """Account for the time since the last call; to be called before anything changes."""
        passed, self._since = now_s - self._since, now_s
        if passed <= 0:
            return
        borrowed = sum(max(0, used - self.quota[vc]) for vc, used in self.used.items())
        if borrowed:
            withheld = sum(self._gap(vc) for vc, used in self.used.items() if used < self.quota[vc])
            self.gpu_s += min(withheld, borrowed) * passed

    def _gap(self, vc: str) -> int:
        used = entitled = self.used[vc]
        quota = self.quota[vc]
        for gpus in self._waiting(vc):
            if entitled + gpus <= quota:
                entitled += gpus
                if entitled == quota:
                    break
        return entitled - used
