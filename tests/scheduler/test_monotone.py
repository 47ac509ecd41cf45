"""S19: more never means less. A larger quota never lowers a queue's share, nobody with a guarantee that can be kept gets less than it, and
another GPU never takes one away from the highest class."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from heliostat_scheduler.core import Policy, QueueSpec, entitlement
from heliostat_scheduler.core.entitlement import entitle
from heliostat_scheduler.core.tree import QueueNode, QueueTree

from tests.scheduler.world import GPU, World, job, node, queue

SEEDS = 1_500
WHOLE = 1000
POLICY = Policy(cooldown_ms=0, resize_interval_ms=0, aging_step_ms=0)


def draw(rng: random.Random) -> tuple[list[QueueSpec], dict[str, int], int]:
    """Two or three queues, two of them maybe below a parent, what each wants, and what there is."""
    top = [
        queue("p", rng.randint(0, 8), weight=rng.randint(0, 3)),
        queue("c", rng.randint(0, 8), weight=rng.randint(0, 3)),
    ]
    below = [
        queue(name, rng.randint(0, 6), parent="p", weight=rng.randint(0, 3), priority=rng.choice((100, 100, 110)),
              **({"limit": rng.randint(1, 8)} if rng.random() < 0.2 else {}))
        for name in "ab"
    ]  # fmt: skip
    wants = {name: rng.choice((0, 500, 1000, 2000, 5000, 20_000)) for name in "abc"}
    return top + below, wants, WHOLE * rng.randint(1, 16)


def shares(queues: list[QueueSpec], wants: dict[str, int], capacity: int, whole: bool) -> dict[str, int]:
    """With something of what is wanted held already, and used for some time."""
    tree = QueueTree(queues)
    rng = random.Random(repr(sorted(wants.items())) + str(capacity))
    for name, want in wants.items():
        tree.add(tree.by_name[name], "want", ((GPU, want),), 1)
        tree.add(tree.by_name[name], "plan", ((GPU, min(want, 500 * rng.randint(0, 10))),), 1)
        tree.add(tree.by_name[name], "usage", ((GPU, rng.randint(0, 4)),), 1)
    entitle(tree, {GPU: capacity}, whole, 0)
    return {name: found.entitled.get(GPU, 0) for name, found in tree.by_name.items()}


def quota(spec: QueueSpec) -> int:
    return dict(spec.quota)[GPU]


def raised(queues: list[QueueSpec], name: str, more: int) -> list[QueueSpec]:
    return [replace(spec, quota=((GPU, quota(spec) + more),)) if spec.name == name else spec for spec in queues]


def a_larger_quota_never_lowers_a_share(seed: int) -> None:
    rng = random.Random(seed)
    queues, wants, capacity = draw(rng)
    whole = rng.random() < 0.5
    name, more = rng.choice("abc"), WHOLE * rng.randint(1, 4)
    before = shares(queues, wants, capacity, whole)
    after = shares(raised(queues, name, more), wants, capacity, whole)
    assert after[name] >= before[name], (
        f"S19: seed {seed}: {name} had {before[name]}, with {more} more quota {after[name]}"
    )


def a_guarantee_is_worth_having(seed: int) -> None:
    """Where all quotas can be kept together, each queue is entitled to its quota as far as it wants it."""
    rng = random.Random(seed)
    queues, wants, capacity = draw(rng)
    by_name = {spec.name: spec for spec in queues}
    top, below = quota(by_name["p"]) + quota(by_name["c"]), quota(by_name["a"]) + quota(by_name["b"])
    if top > capacity or below > quota(by_name["p"]):
        return
    found = shares(queues, wants, capacity, whole=True)
    for name, want in wants.items():
        limit = dict(by_name[name].limit).get(GPU, want)
        assert found[name] >= min(quota(by_name[name]), want, limit), (
            f"S19: seed {seed}: {name} is entitled to {found[name]}"
        )


@pytest.mark.parametrize("check", [a_larger_quota_never_lowers_a_share, a_guarantee_is_worth_having])
def test_shares(check: Callable[[int], None]) -> None:
    for seed in range(SEEDS):
        check(seed)


@pytest.mark.parametrize("check", [a_larger_quota_never_lowers_a_share, a_guarantee_is_worth_having])
def test_shares_that_punish_are_found(check: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above can fail: here a queue counts as smaller the more it is guaranteed."""
    share = entitlement._share

    def fault(found: QueueNode, key: str, *more: Any) -> Any:  # Any: the arguments and the result of _share
        made = share(found, key, *more)
        made.base = max(0, made.base - 2 * found.quota_of(key, 0) // 3)
        made.weight = made.weight // (1 + found.quota_of(key, 0) // WHOLE)
        return made

    monkeypatch.setattr(entitlement, "_share", fault)
    with pytest.raises(AssertionError, match=r"^S19: "):
        for seed in range(SEEDS):
            check(seed)


def high_running(seed: int, gpus: int) -> int:
    """Single-GPU work of three classes in two queues; how many GPUs the highest class has at rest."""
    rng = random.Random(seed)
    queues = [
        queue("a", rng.randint(0, 4), weight=rng.randint(1, 3)),
        queue("b", rng.randint(0, 4), weight=rng.randint(1, 3)),
    ]
    made = World([node(f"n{i}", 1) for i in range(gpus)], queues, POLICY, at=1_000)
    for number in range(12):
        made.submit(job(f"j{number:02d}", 1, rng.choice("ab"), at=number, priority=rng.choice((50, 100, 150))))
        if rng.random() < 0.5:
            made.settle()
    made.settle()
    return sum(made.specs[job_id].priority == 150 for job_id in made.running())


@pytest.mark.parametrize("seed", range(25))
def test_another_gpu_takes_none_away_from_the_highest_class(seed: int) -> None:
    counts = [high_running(seed, gpus) for gpus in range(1, 13)]
    assert counts == sorted(counts) and counts[-1] > 0, f"S19: seed {seed}: {counts}"
