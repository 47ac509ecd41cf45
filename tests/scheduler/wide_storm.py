"""A storm in which more may happen: two flavors, racks, limits of users, preemption budgets, and jobs, queues and policy that are changed.

`Storm` stays as it is beside it: its seeds are known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heliostat_scheduler.core import JobSpec, QueueSpec
from heliostat_scheduler.core import events as ev
from heliostat_scheduler.core.model import UNLIMITED, Amounts, NodeSpec

from tests.scheduler.books import owned, planned
from tests.scheduler.storm import ACTIONS, LEAVES, Storm
from tests.scheduler.world import FIXED, SEMI, node

FLAVORS = ("gpu", "old")
ACCEPTED = ((), (), ("gpu",), ("old",), ("gpu", "old"), ("old", "gpu"))
WIDE_ACTIONS = (*ACTIONS, *("change",) * 3, *("queues",) * 2, "policy")
SWITCHES = ("reclaim", "preempt", "grow", "rotate", "rotate_across", "consolidate", "backfill")


class WideStorm(Storm):
    def _nodes(self) -> list[NodeSpec]:
        choose = self.choose
        return [
            node(f"n{i}", choose((1, 2, 3, 4)), choose(FLAVORS), cpu_milli=2_000, labels=(("rack", choose(("r0", "r1"))),))
            for i in range(choose((2, 3, 4)))
        ]  # fmt: skip

    def _tree(self) -> list[QueueSpec]:
        old = {name: self.choose((0, 0, 1_000, 2_000)) for name in LEAVES}
        old["p"] = old["a"] + old["b"]
        return [self._both(spec, old[spec.name]) for spec in super()._tree()]

    def _both(self, spec: QueueSpec, old: int) -> QueueSpec:
        """What the queue says of one flavor, and something else of the other; what it gives one user, and may lose."""
        choose = self.choose
        some: dict[str, Any] = {
            "quota": (*spec.quota, ("old", old)),
            "limit": (*spec.limit, *choose(((), (), (), (("old", 1_000),), (("old", 2_000),)))),
            "lending_limit": (*spec.lending_limit, *choose(((),) * 7 + ((("old", 0),),))),
        }
        if spec.name in LEAVES:
            some["user_limit"] = choose(
                ((), (), (("gpu", 1_000),), (("gpu", 2_000), ("old", 2_000)), (("old", 1_000),))
            )
        return replace(spec, **some, preemption_budget=choose((UNLIMITED, UNLIMITED, UNLIMITED, 0, 1)))

    def _spec(self) -> JobSpec:
        choose = self.choose
        spec = super()._spec()
        spread = choose((spec.spread, spec.spread, spec.spread, "rack"))
        return replace(
            spec, flavors=choose(ACCEPTED), spread=spread, restart_cost_ms=choose((10_000, 10_000, 0, 1_800_000))
        )

    # -- what may happen beside

    def do_change(self) -> None:
        """A waiting job is edited; of one that runs only the class may change."""
        world, choose = self.world, self.choose
        if not world.specs:
            return
        spec = world.specs[choose(sorted(world.specs))]
        what = choose(("priority", "size", "queue", "flavors", "kind")) if spec.id not in world.held else "priority"
        if what == "priority":
            spec = replace(spec, priority=choose((50, 100, 150)))
        elif what == "size":
            tasks = choose((1, 2, 3))
            spec = replace(spec, min_tasks=tasks, max_tasks=tasks + choose((0, 1, 2)))
        elif what == "queue":
            spec = replace(spec, queue=choose(LEAVES))
        elif what == "flavors":
            spec = replace(spec, flavors=choose(ACCEPTED))
        else:
            spec = replace(spec, preemptibility=choose((FIXED, SEMI)))
        world.change(spec)

    def do_queues(self) -> None:
        """One queue says something else."""
        world, choose = self.world, self.choose
        specs = list(world.engine.state.book.tree.specs)
        at = choose(range(len(specs)))
        spec, flavor = specs[at], choose(FLAVORS)
        what = choose(("quota", "limit", "lending_limit", "user_limit", "weight", "preemption_budget", "rotate"))
        if what == "user_limit" and spec.name not in LEAVES:
            what = "weight"
        if what == "weight":
            spec = replace(spec, weight=choose((0, 1, 2)))
        elif what == "preemption_budget":
            spec = replace(spec, preemption_budget=choose((UNLIMITED, 0, 1)))
        elif what == "rotate":
            spec = replace(spec, rotate=not spec.rotate)
        else:
            amount = choose((0, 1_000, 2_000, 4_000) if what == "quota" else (None, 0, 1_000, 3_000))
            spec = replace(spec, **_only(what, _with(getattr(spec, what), flavor, amount)))
        specs[at] = spec
        world.over = self._held_now()
        world.apply(ev.QueuesChanged(tuple(specs)))

    def _held_now(self) -> dict[tuple[str, str, str], int]:
        """What queues and users have: a new limit ends nothing."""
        world, found = self.world, {}
        for flavor in world.flavors():
            used, plan = world.queue_used(flavor), planned(world, flavor)
            for name in {*used, *plan}:
                found[name, "", flavor] = max(used.get(name, 0), plan.get(name, 0))
            for job_id, spec in world.specs.items():
                whose = (spec.queue, spec.user, flavor)
                found[whose] = found.get(whose, 0) + owned(world, job_id, flavor)
        return found

    def do_policy(self) -> None:
        policy, choose = self.world.engine.state.policy, self.choose
        what = choose((*SWITCHES, "min_runtime_ms", "starvation_ms", "aging_step_ms"))
        value = not getattr(policy, what) if what in SWITCHES else choose((0, 5_000, 20_000))
        self.world.apply(ev.PolicyChanged(replace(policy, **_only(what, value))))


def _only(what: str, value: object) -> dict[str, Any]:
    return {what: value}


def _with(amounts: Amounts, key: str, amount: int | None) -> Amounts:
    """None: the queue says nothing of it."""
    kept = {name: value for name, value in amounts if name != key}
    return tuple(sorted((kept if amount is None else {**kept, key: amount}).items()))
