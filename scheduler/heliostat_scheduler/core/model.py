"""What the engine knows: nodes and slots, queues, jobs, policy. Plain frozen data, integers only.

GPUs are counted in milli-GPU (1000 = one device), CPUs in milli-CPU, memory in bytes, time in milliseconds. A *slot* is one
physical GPU. GPU amounts in queues are keyed by flavor name; `cpu` and `memory` are keys beside them, so that on a machine
without GPUs the same engine shares the CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

UNLIMITED = -1
"""As a quota, limit or lending limit: no bound."""

CPU = "cpu"
MEMORY = "memory"
DEFAULT_FLAVOR = "gpu"

PRIORITY_CLASSES: dict[str, int] = {"low": 50, "normal": 100, "high": 150, "critical": 200}


class Preemptibility(StrEnum):
    """Whether running work may be stopped by the scheduler."""

    PREEMPTIBLE = "preemptible"
    SEMI_PREEMPTIBLE = "semi-preemptible"
    NON_PREEMPTIBLE = "non-preemptible"


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """One GPU of a node. `device` is its index there."""

    id: str
    device: int


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One machine. `cpu_milli` and `memory_bytes` are the *floating* parts: what CPU-only jobs may use.

    slot_cpu_milli, slot_memory_bytes: the share that goes with each slot.
    slot_cpu_milli 0 means that the node is not divided: GPU tasks then draw CPU and memory from the floating part too.
    labels: (key, value) pairs, sorted; topology domains are labels.
    """

    id: str
    flavor: str
    slots: tuple[SlotSpec, ...] = ()
    cpu_milli: int = 0
    memory_bytes: int = 0
    slot_cpu_milli: int = 1000
    slot_memory_bytes: int = 0
    gpu_memory_bytes: int = 0
    labels: tuple[tuple[str, str], ...] = ()


Amounts = tuple[tuple[str, int], ...]
"""(resource key, amount) pairs, sorted by key: a flavor in milli-GPU, `cpu` in milli-CPU, `memory` in bytes."""


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A node of the queue tree. Jobs enter at leaves.

    quota: guaranteed amounts; a key that is absent has quota 0. limit: hard bound; absent = none.
    lending_limit: how much of the unused quota others may borrow; absent = all.
    weight: share of the surplus among siblings. priority: among queues, higher first.
    preemption_budget: GPU-hours of its work that turns, moves and shares may throw away a day.
    """

    name: str
    parent: str = ""
    quota: Amounts = ()
    limit: Amounts = ()
    lending_limit: Amounts = ()
    weight: int = 1
    priority: int = 100
    rotate: bool = True
    user_limit: Amounts = ()
    preemption_budget: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class TaskShape:
    """What one task (worker) of a job needs, all on one node.

    gpu_milli: 0 for none, 1..999 for a fraction of one device, a multiple of 1000 for whole devices.
    """

    gpu_milli: int = 0
    cpu_milli: int = 0
    memory_bytes: int = 0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What the engine is told about a job. Everything that decides is in here; names and commands are not.

    min_tasks: gang minimum. max_tasks: elastic maximum. sizes: the valid task counts in between (empty: every one).
    flavors: acceptable flavors, best first (empty: any). spread: `any`, `one_node`, or a label key that all tasks must share.
    max_runtime_ms: declared limit (None: none). expected_runtime_ms: learned estimate of the remaining work, or None.
    template: what history is keyed by (user and name pattern).
    elastic: may be resized while it runs.
    preemption_delay_ms: how long it waits before it may take GPUs from others (None: the policy's).
    saves_on_order: it is known to write a checkpoint when told to leave, so that an eviction costs the restart only.
    """

    id: str
    queue: str
    submitted_at_ms: int
    shape: TaskShape = TaskShape()
    min_tasks: int = 1
    max_tasks: int = 1
    sizes: tuple[int, ...] = ()
    priority: int = 100
    preemptibility: Preemptibility = Preemptibility.PREEMPTIBLE
    flavors: tuple[str, ...] = ()
    spread: str = "any"
    user: str = ""
    project: str = ""
    kind: str = "ray"
    template: str = ""
    elastic: bool = False
    max_runtime_ms: int | None = None
    expected_runtime_ms: int | None = None
    grace_ms: int = 30_000
    restart_cost_ms: int = 10_000
    dependencies: tuple[str, ...] = ()
    preemption_delay_ms: int | None = None
    saves_on_order: bool = False


@dataclass(frozen=True, slots=True)
class DemandKind:
    """A kind of task that arrives and its share of all arrivals. gpu_milli as in TaskShape; flavors: acceptable (empty: any)."""

    cpu_milli: int
    gpu_milli: int
    weight_ppm: int
    flavors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodePool:
    """Nodes of one flavor that can be had. `node`: what one looks like; its id is empty.

    max_nodes, min_nodes: how many of the flavor there may be, and how many are kept, those that are there included.
    idle_ms: how long one is kept without work. join_ms: how long one may take to join.
    """

    node: NodeSpec
    max_nodes: int
    min_nodes: int = 0
    idle_ms: int = 600_000
    join_ms: int = 900_000

    @property
    def flavor(self) -> str:
        return self.node.flavor


@dataclass(frozen=True, slots=True)
class NodeComing:
    """Nodes that were asked for and have not joined yet. by_ms: when they are expected; late: when they are asked for again.

    tries: how often in a row. jobs: who waits for them.
    """

    flavor: str
    nodes: int
    by_ms: int
    jobs: tuple[str, ...] = ()
    tries: int = 1
    late: bool = False


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Where one task runs. `slots` is empty for CPU-only tasks; more than one only for a task of several whole GPUs."""

    node: str
    slots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Every number that changes a decision. Its digest is part of each log record."""

    name: str = "default"
    reclaim: bool = True
    preempt: bool = True
    grow: bool = True
    backfill: bool = True
    rotate: bool = True
    consolidate: bool = True
    min_runtime_ms: int = 0
    cooldown_ms: int = 30_000
    cooldown_max_ms: int = 600_000
    preemption_delay_ms: int = 0
    usage_half_life_ms: int = 7 * 24 * 3_600_000
    usage_strength_milli: int = 0
    user_fairness: bool = True
    idle_actions: bool = True
    idle_low_permille: int = 50
    idle_high_permille: int = 200
    idle_warmup_ms: int = 120_000
    suspect_after_ms: int = 300_000
    idle_after_ms: int = 900_000
    idle_debt: int = 1
    aging_step_ms: int = 3_600_000
    aging_step_priority: int = 5
    aging_max_priority: int = 45
    starvation_ms: int = 24 * 3_600_000
    starvation_by_class: tuple[tuple[int, int], ...] = ()
    starvation_turn_ms: int = 3_600_000
    reservations: int = 4
    work_budget: int = 10_000
    stale_gang_ms: int = 60_000
    forget_down_ms: int = 3_600_000
    resize_interval_ms: int = 30_000
    whole_device_shares: bool = True
    reclaim_rule: str = "entitlement"
    migrate_max_lost_ms: int = 600_000
    rotate_hysteresis_milli: int = 2000
    rotate_across: bool = True
    resize_horizon_ms: int = 300_000
    extra: tuple[tuple[str, int | str], ...] = field(default=())
