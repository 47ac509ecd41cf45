"""Tune's resource manager inside a lease: a trial's GPU is a slot of the lease, everything else is as Ray does it.

Trials without a GPU get the placement groups they always get (CPU only). Those with one get a claim at the job's slot broker, so
that trials, the trainers inside trials and plain GPU tasks of one job never meet in a slot.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from heliostat_scheduler.live.protocol import SlotRef
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from heliostat_jobs.slots.access import SlotAccess
from heliostat_jobs.slots.asking import options_in_slot
from heliostat_jobs.tune.demand import check, gpus_of_trial, share_of
from heliostat_jobs.tune.tune_private import (
    AcquiredResources,
    PlacementGroupResourceManager,
    ResourceManager,
    ResourceRequest,
)

ASK_EVERY_S = 0.2


@dataclass
class AcquiredSlot(AcquiredResources):  # type: ignore[misc]  # Ray is untyped here
    """One claim on one slot, or on a share of it."""

    claim: str
    slot: SlotRef
    gpus: float

    def _annotate_remote_entity(self, entity: Any, bundle: dict[str, float], bundle_index: int) -> Any:
        asked = {"num_cpus": bundle.get("CPU", 0), "memory": bundle.get("memory", 0)}
        changed, _ = options_in_slot(asked, self.slot, self.gpus)
        group = PlacementGroup(ray.PlacementGroupID(bytes.fromhex(self.slot.group)))
        strategy = PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=0, placement_group_capture_child_tasks=False
        )
        return entity.options(
            scheduling_strategy=strategy,
            num_cpus=changed["num_cpus"],
            num_gpus=self.gpus,
            memory=changed.get("memory") or 0,
        )


class LeaseResourceManager(ResourceManager):  # type: ignore[misc]
    """See the module's head. Used by one TuneController. on_demand: called before the first request for a GPU, with its part of one."""

    def __init__(self, access: SlotAccess, on_demand: Callable[[float], None]) -> None:
        self._access = access
        self._on_demand = on_demand
        self._demanded = False
        self._without_gpus = PlacementGroupResourceManager()
        self._waiting: Counter[ResourceRequest] = Counter()
        self._ready: dict[ResourceRequest, list[AcquiredSlot]] = {}
        self._asked_at_s: dict[ResourceRequest, float] = {}
        self.held: dict[str, AcquiredSlot] = {}

    def request_resources(self, resource_request: ResourceRequest) -> None:
        gpus = gpus_of_trial(_bundles(resource_request))
        if gpus == 0:
            self._without_gpus.request_resources(resource_request)
            return
        if not self._demanded:
            self._demanded = True
            self._on_demand(gpus)
            check(gpus, self._access.lease())
        self._waiting[resource_request] += 1

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        if not _has_gpu(resource_request):
            self._without_gpus.cancel_resource_request(resource_request)
            return
        ready = self._ready.get(resource_request, [])
        if ready and self._waiting[resource_request] <= len(ready):
            self._release(ready.pop())
        self._waiting[resource_request] -= 1

    def has_resources_ready(self, resource_request: ResourceRequest) -> bool:
        if not _has_gpu(resource_request):
            return bool(self._without_gpus.has_resources_ready(resource_request))
        ready = self._ready.setdefault(resource_request, [])
        if not ready and self._waiting[resource_request] > 0:
            now_s = time.monotonic()
            if now_s - self._asked_at_s.get(resource_request, 0.0) >= ASK_EVERY_S:
                self._asked_at_s[resource_request] = now_s
                ready += self._claim(resource_request)
        return bool(ready)

    def acquire_resources(self, resource_request: ResourceRequest) -> Any:
        if not _has_gpu(resource_request):
            return self._without_gpus.acquire_resources(resource_request)
        if not self.has_resources_ready(resource_request):
            return None
        acquired = self._ready[resource_request].pop()
        self._waiting[resource_request] -= 1
        self._asked_at_s.pop(resource_request, None)
        return acquired

    def free_resources(self, acquired_resource: Any) -> None:
        if isinstance(acquired_resource, AcquiredSlot):
            self._move_or_release(acquired_resource)
        else:
            self._without_gpus.free_resources(acquired_resource)

    def get_resource_futures(self) -> list[Any]:
        return list(self._without_gpus.get_resource_futures())

    def update_state(self) -> None:
        self._without_gpus.update_state()

    def clear(self) -> None:
        self._without_gpus.clear()
        for acquired in list(self.held.values()):
            self._release(acquired)
        self._waiting.clear()
        self._ready.clear()

    def give_up_ready(self) -> None:
        """Let go of slots that are claimed but not used yet: the lease has changed."""
        for ready in self._ready.values():
            while ready:
                self._release(ready.pop())

    def _claim(self, resource_request: ResourceRequest) -> list[AcquiredSlot]:
        gpus = gpus_of_trial(_bundles(resource_request))
        claim = f"trial-{uuid.uuid4().hex[:12]}"
        slots = self._access.try_claim(claim, share_of(gpus))
        if not slots:
            return []
        acquired = AcquiredSlot(resource_request, claim, slots[0], gpus)
        self.held[claim] = acquired
        return [acquired]

    def _move_or_release(self, acquired: AcquiredSlot) -> None:
        """A trial that has left its slot because its place is now another one keeps that place: whoever waits first gets it."""
        request = acquired.resource_request
        ready = self._ready.setdefault(request, [])
        if self.held.get(acquired.claim) is not acquired or self._waiting[request] <= len(ready):
            self._release(acquired)
            return
        slots: tuple[SlotRef, ...] = self._access.ask("move", acquired.claim)
        del self.held[acquired.claim]
        if slots:
            moved = self.held[acquired.claim] = AcquiredSlot(request, acquired.claim, slots[0], acquired.gpus)
            ready.append(moved)

    def _release(self, acquired: AcquiredSlot) -> None:
        if self.held.pop(acquired.claim, None) is not None:
            self._access.ask("release", acquired.claim)


def _bundles(request: ResourceRequest) -> list[dict[str, float]]:
    """The trial's own bundle first, also when it is empty."""
    bundles = list(request.bundles)
    return [{}, *bundles] if request.head_bundle_is_empty else bundles


def _has_gpu(request: ResourceRequest) -> bool:
    return any(bundle.get("GPU", 0) > 0 for bundle in request.bundles)
