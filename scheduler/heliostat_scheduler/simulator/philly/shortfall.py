"""Entitled GPUs withheld while somebody borrows: the measure that tests quotas.

Between two events: used_v = GPUs that tenant v runs on; ent_v = used_v plus v's waiting jobs in policy order while
ent_v + g <= quota_v; the shortfall is min(sum(ent_v - used_v), sum(max(0, used_v - quota_v))), integrated over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping


class Shortfall:
    """Integrates over virtual time. `used`: GPUs by tenant, kept by the caller."""

    def __init__(self, quota: dict[str, int]) -> None:
        self.quota = quota
        self.used: dict[str, int] = dict.fromkeys(quota, 0)
        self._since = 0.0
        self.gpu_s = 0.0

    @property
    def gpu_h(self) -> float:
        return round(self.gpu_s / 3600, 2)

    def until(self, now_s: float, waiting: Callable[[], Mapping[str, Iterable[int]]]) -> None:
        """Account for the time since the last call; to be called before anything changes.

        `waiting` gives each tenant's waiting GPU counts in policy order; it is asked only where somebody borrows.
        """
        passed, self._since = now_s - self._since, now_s
        if passed <= 0:
            return
        borrowed = sum(max(0, self.used.get(vc, 0) - quota) for vc, quota in self.quota.items())
        if borrowed:
            found = waiting()
            withheld = sum(
                self._gap(vc, found.get(vc, ())) for vc, quota in self.quota.items() if self.used.get(vc, 0) < quota
            )
            self.gpu_s += min(withheld, borrowed) * passed

    def _gap(self, vc: str, waiting: Iterable[int]) -> int:
        used = entitled = self.used.get(vc, 0)
        quota = self.quota[vc]
        for gpus in waiting:
            if entitled + gpus <= quota:
                entitled += gpus
                if entitled == quota:
                    break
        return entitled - used
