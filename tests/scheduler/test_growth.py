"""Growth by learned goodput keeps every rule that a start keeps: one node, one domain, quota of what may not stop, lending limits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from heliostat_scheduler.core import JobSpec, NodeSpec, Policy, QueueSpec
from heliostat_scheduler.core import events as ev

from tests.scheduler.world import FIXED, SEMI, World, job, node, queue

POLICY = Policy(cooldown_ms=0, resize_interval_ms=0, aging_step_ms=0)
LINEAR = tuple((tasks, 1000 * tasks) for tasks in range(1, 9))
GROWING = job("x", 2, max_tasks=4, elastic=True)


@dataclass(frozen=True)
class Case:
    """The job runs with what is free at first, then the closed nodes open and its goodput is known. `tasks`: what it has in the end."""

    say: str
    spec: JobSpec
    tasks: int
    nodes: tuple[NodeSpec, ...] = (node("n0", 4), node("n1", 4))
    queues: list[QueueSpec] = field(default_factory=lambda: [queue("default", -1)])


def rack(name: str, gpus: int, where: str) -> NodeSpec:
    return replace(node(name, gpus), labels=(("rack", where),))


CASES = [
    Case("it grows as far as it scales", GROWING, 4),
    Case("on one node", replace(GROWING, spread="one_node"), 2),
    Case("inside one rack", replace(GROWING, spread="rack"), 3,
         (rack("n0", 2, "r0"), rack("n1", 4, "r1"), rack("n2", 2, "r1"), rack("n3", 4, "r2"))),
    Case("what may not stop does not borrow", replace(GROWING, preemptibility=FIXED), 2, queues=[queue("default", 4)]),
    Case("the surplus of a core may", replace(GROWING, preemptibility=SEMI), 4, queues=[queue("default", 4)]),
    Case("not what another queue does not lend", GROWING, 3, queues=[queue("default", 4), queue("other", 4, lending_limit=2)]),
    Case("not above a limit", GROWING, 3, queues=[queue("default", 4, limit=6)]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.say)
def test_growth(case: Case) -> None:
    made = World(list(case.nodes), case.queues, POLICY, at=1_000)
    for spec in case.nodes[1:]:
        made.apply(ev.NodeCordoned(spec.id))
    made.submit(replace(case.spec, max_tasks=1))
    made.settle()
    made.apply(ev.JobChanged(case.spec))
    made.specs["x"] = case.spec
    made.apply(ev.Estimated("x", goodput_milli=LINEAR))
    for spec in case.nodes[1:]:
        made.apply(ev.NodeUncordoned(spec.id))
    for _ in range(5):
        made.now += 1_000
        made.settle()
    assert made.tasks("x") == case.tasks
