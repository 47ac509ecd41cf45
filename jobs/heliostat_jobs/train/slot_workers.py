"""Train's worker group on slots: worker i is an actor in place i; no placement group is made or removed.

What differs from stock, each for a measured reason: the group's "placement group" is a list of permanent ones whose shutdown
does nothing (a slot outlives every job); waiting for it is trivially true, so the wait for the actors themselves gets the
timeout (an occupied slot would block the controller for ever); the wait looks at the lease, so that an order is obeyed while
workers are still starting; workers that leave a slot are killed, not asked to leave their process group, which waits
for peers that may hang in a collective; and processes that the last group left in a slot, or that were started there beforehand, are used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat_jobs.train.places import Place, clipped, cuts
from heliostat_jobs.train.ray_train_private import (
    BackendSetupCallback,
    PlacementGroupHandle,
    Worker,
    WorkerGroup,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    bundle_to_remote_args,
    worker_group_module,
)

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1


Actors = Mapping[str, Any]
"""Ray's actor handles by the slot that they are in."""


@dataclass(frozen=True)
class Ready:
    """What a new group need not start: workers by slot, and the actor that its ranks meet at (None: a new one)."""

    workers: Actors = field(default_factory=dict)
    sync_actor: Any = None  # Any: an actor handle


class StartGuard:
    """The actors of the group that is starting or running, so that another thread can end them at once."""

    def __init__(self) -> None:
        self._actors: list[Any] = []  # Any: Ray's actor handles
        self.closed = False

    def add(self, actor: Any) -> None:
        self._actors.append(actor)
        if self.closed:
            ray.kill(actor)

    def kill(self, kept: Sequence[Any] = ()) -> None:
        """End every actor that was added (except those), and those that still will be."""
        self.closed = True
        for actor in list(self._actors):
            if actor not in kept:
                ray.kill(actor)


class SlotHandle(PlacementGroupHandle):  # type: ignore[misc]  # Ray is untyped here
    """The places of a lease in the shape that Train expects of a placement group."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)

    @property
    def placement_group(self) -> tuple[Place, ...]:
        return self.places

    def ready(self) -> Any:  # Any: an ObjectRef
        return ray.put(True)

    def wait(self, timeout_seconds: float = 30) -> bool:
        return True

    def shutdown(self) -> None:
        """Nothing: slots are permanent."""


class SlotWorkerGroup(WorkerGroup):  # type: ignore[misc]
    """One worker in each place. `bound_to` gives the class its places: Train creates groups through the class."""

    _callbacks: list[Any]  # Any: Ray's callbacks, untyped there
    places: tuple[Place, ...] = ()
    guard: StartGuard
    is_wanted: Callable[[], bool]
    at_hand: Ready = Ready()
    _worker_group_state: Any  # Any: Ray's WorkerGroupState

    @classmethod
    def bound_to(
        cls, places: Sequence[Place], guard: StartGuard, is_wanted: Callable[[], bool], at_hand: Ready
    ) -> type[SlotWorkerGroup]:
        """A subclass for one start. is_wanted: false as soon as an order makes the start pointless."""
        bound = {"places": tuple(places), "guard": guard, "is_wanted": staticmethod(is_wanted), "at_hand": at_hand}
        return type("BoundSlotWorkerGroup", (cls,), bound)

    def _start_impl(self, worker_group_state_builder: Any) -> None:
        with _meeting_at(self.at_hand.sync_actor):
            super()._start_impl(worker_group_state_builder)

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> SlotHandle:
        return SlotHandle(self.places)

    def _create_workers(
        self,
        num_workers: int,
        placement_group: Sequence[Place],
        resources_per_worker: dict[str, float],
        placement_group_bundle_indices: list[int] | None = None,
        starting_world_rank: int = 0,
        world_size: int | None = None,
        replica_group_size: int | None = None,
    ) -> list[Any]:
        indices = placement_group_bundle_indices or list(range(num_workers))
        if cut := cuts(resources_per_worker, placement_group[indices[0]]):
            logger.warning("a worker gets no more than its slot holds: %s", cut)
        actors = [self._worker_in(placement_group[index], resources_per_worker) for index in indices]
        metadatas = self._wait_for(actors)
        workers = [
            Worker(actor, metadata, resources_per_worker, placement_group_bundle_index=index)
            for index, actor, metadata in zip(indices, actors, metadatas, strict=True)
        ]
        return list(WorkerGroup._assign_worker_ranks(workers, starting_world_rank, world_size, replica_group_size))

    def start_beside(self, place: Place, guard: StartGuard) -> Any:  # Any: an actor handle
        """A process for the next group in a place that is free."""
        actor = self._actor_in(place, clipped(self._worker_group_context.resources_per_worker, place))
        guard.add(actor)
        return actor

    def workers_by_slot(self) -> dict[str, Any]:  # Any: an actor handle
        """The group's actors, by the slot that each is in."""
        return {self.places[w.placement_group_bundle_index].slot: w.actor for w in self.get_workers()}

    def _worker_in(self, place: Place, asked: dict[str, float]) -> Any:  # Any: an actor handle
        actor = self.at_hand.workers.get(place.slot) or self._actor_in(place, clipped(asked, place))
        self.guard.add(actor)
        return actor

    def _actor_in(self, place: Place, resources: dict[str, float]) -> Any:  # Any: as above
        runtime_env = self._get_worker_runtime_env(
            custom_runtime_env=self._train_run_context.run_config.worker_runtime_env
        )
        worker_class = ray.remote(runtime_env=runtime_env, **bundle_to_remote_args(resources))(self._worker_cls)
        group = PlacementGroup(ray.PlacementGroupID(bytes.fromhex(place.group)))
        strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
        return worker_class.options(scheduling_strategy=strategy).remote()

    def _wait_for(self, actors: list[Any]) -> list[Any]:
        """Each worker's metadata, once all processes are up."""
        refs = [actor.get_metadata.remote() for actor in actors]
        deadline = time.monotonic() + self._worker_group_start_timeout_s
        waiting = refs
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=LOOK_EVERY_S)
            if waiting and not self.is_wanted():
                self.guard.kill()
                raise WorkerGroupStartupFailedError("An order of the scheduler ended the start of the workers.")
            if waiting and time.monotonic() > deadline:
                self.guard.kill()
                raise WorkerGroupStartupTimeoutError(num_workers=len(actors))
        try:
            return list(ray.get(refs))
        except RayActorError as error:
            self.guard.kill()
            raise WorkerGroupStartupFailedError(f"A worker died while it started: {error}") from error

    def let_go(self, kept: Actors | None = None) -> Ready:
        """End the workers now, except those that are kept, and tidy up. Their last checkpoint is committed, or they are not worth one."""
        workers, sync_actor = dict(kept or {}), self._worker_group_state.sync_actor
        self.guard.kill(list(workers.values()))
        self._callbacks = [callback for callback in self._callbacks if not isinstance(callback, BackendSetupCallback)]
        if workers:
            sync_actor.reset.remote()  # a rank that died or leaves may still stand at the barrier
            sync_actor.set_required_ranks.remote(None)
            self._worker_group_state = SimpleNamespace(workers=[], shutdown=_nothing)
        self.shutdown()
        return Ready(workers, sync_actor if workers else None)


def _nothing() -> None:
    """The workers are ended already, and the actor that they met at is used again."""


@contextmanager
def _meeting_at(sync_actor: Any) -> Iterator[None]:  # Any: an actor handle, or None
    """While inside, Ray Train's group takes this actor where it would start a process for one."""
    if sync_actor is None:
        yield
        return
    stock = worker_group_module.SynchronizationActor
    made = SimpleNamespace(remote=lambda **_: sync_actor)
    worker_group_module.SynchronizationActor = SimpleNamespace(options=lambda **_: made)
    try:
        yield
    finally:
        worker_group_module.SynchronizationActor = stock
