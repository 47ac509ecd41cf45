"""Rows of Ray's own tables, as this package reads them. Plain data: what judges them is tested without Ray."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from heliostat_scheduler.live import protocol

HOLDER_PREFIX = "heliostat-holder:"
_SUBMISSION = re.compile(r"^(?P<job>.+)-a(?P<attempt>\d+)$")
_GROUP_KEY = re.compile(r"^(?P<what>.+?)_group_(?:\d+_)?(?P<group>[0-9a-f]{36})$")
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node that is alive."""

    id: str
    ip: str
    raylet: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    is_head: bool = False


@dataclass(frozen=True, slots=True)
class ActorRow:
    """An actor that is not dead. group: the placement group it was scheduled into ("" for none). devices: GPU indices it holds."""

    id: str
    name: str
    namespace: str
    class_name: str
    state: str
    job_id: str
    node: str
    pid: int
    group: str
    requires: Mapping[str, float] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[int, ...] = ()

    def groups(self) -> set[str]:
        """Every placement group whose resources it holds or asks for, by strategy or by resource name."""
        named = {match["group"] for key in self.requires if (match := _GROUP_KEY.match(key))}
        return named | ({self.group} if self.group else set())

    def asks_for_gpu(self) -> bool:
        return any(
            amount > 0 and (key == "GPU" or key.startswith("GPU_group_")) for key, amount in self.requires.items()
        )

    def asks_by_name(self) -> bool:
        """It names a group's resources itself instead of being scheduled into the group."""
        return not self.group and any(_GROUP_KEY.match(key) for key in self.requires)


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A placement group that was not removed. bundles: what each asks for; nodes: where each is ("" while it waits)."""

    id: str
    name: str
    state: str
    bundles: tuple[Mapping[str, float], ...]
    nodes: tuple[str, ...] = ()

    def wants_gpu(self) -> bool:
        return any(key == "GPU" and amount > 0 for bundle in self.bundles for key, amount in bundle.items())

    def inside_of(self) -> set[str]:
        """Groups whose resources this one is made of: a group inside a group."""
        return {match["group"] for bundle in self.bundles for key in bundle if (match := _GROUP_KEY.match(key))}


@dataclass(frozen=True, slots=True)
class JobRow:
    """A Ray job (a driver): its submission id, if it came through the Jobs API, and its runtime_env's variables."""

    id: str
    submission_id: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker process of one node and what it uses now: tasks and actors alike. executed: tasks it ever ran."""

    pid: int
    actor: str
    job_id: str
    used: tuple[str, ...]
    executed: int = 0
    driver: bool = False


Owner = tuple[str, int]


def owner_of(actor: ActorRow, jobs: Mapping[str, JobRow]) -> Owner | None:
    """The (job, attempt) that an actor belongs to: its name (holders), its own environment, or its driver's. None: nobody's."""
    if actor.namespace == protocol.NAMESPACE and (parsed := parse_holder(actor.name)):
        return parsed[0], parsed[1]
    job = jobs.get(actor.job_id)
    for env in (actor.env, job.env if job else {}):
        attempt = env.get(protocol.ENV_ATTEMPT, "")
        if env.get(protocol.ENV_JOB) and attempt.isdigit():
            return env[protocol.ENV_JOB], int(attempt)
    if job and (match := _SUBMISSION.match(job.submission_id)):
        return match["job"], int(match["attempt"])
    return None


def holder_name(job: str, attempt: int, place: str) -> str:
    return f"{HOLDER_PREFIX}{job}:{attempt}:{place}"


def parse_holder(name: str) -> tuple[str, int, str] | None:
    """(job, attempt, place) of a holder's name."""
    if not name.startswith(HOLDER_PREFIX):
        return None
    job, _, rest = name.removeprefix(HOLDER_PREFIX).partition(":")
    attempt, _, place = rest.partition(":")
    return (job, int(attempt), place) if attempt.isdigit() else None


def group_is_free(group: str, total: Mapping[str, float], available: Mapping[str, float]) -> bool:
    """Whether nothing uses the group's bundle 0. total: what the bundle holds (GPU, CPU, memory)."""
    expected = {**total, "bundle": 1000.0}
    return all(
        available.get(f"{key}_group_0_{group}", 0.0) >= amount - EPSILON
        and available.get(f"{key}_group_{group}", 0.0) >= amount - EPSILON
        for key, amount in expected.items()
        if amount > 0
    )
