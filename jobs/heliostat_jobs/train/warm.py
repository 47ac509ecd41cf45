"""Warm handover: when a run grows, its next workers start and import while the present ones still train.

What a resize costs is process start and imports. So the whole next group is started first, one process in each of its slots, beside the
running worker where there is one: it asks for no GPU then (the slot's is taken) and learns its device from us. Only when all are up
are the old workers marked; they checkpoint, end, and the new ones begin with the rendezvous.

Only growth goes this way: nobody waits for a slot then. An order that takes a slot away is obeyed at once. A warm start that fails or
takes too long is dropped, and the restart is plain.

Always true: warm processes are in slots of the newest lease only; they hold no memory of a GPU before the old workers are gone (nothing
touches CUDA before the process group is set up).
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from heliostat_scheduler.live.protocol import Lease
from ray.exceptions import RayError

from heliostat_jobs.train.places import places_of
from heliostat_jobs.train.slot_workers import SlotWorkerGroup, StartGuard

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0
BEFORE_DEADLINE_S = 15.0
"""So much of the order's time is left for the checkpoint."""


class WarmGroup:
    """The workers of the next group, on their way. `starting` is asked in every step of the controller."""

    def __init__(self, lease: Lease, group: SlotWorkerGroup, train_fn_ref: Any) -> None:
        self.lease = lease
        self.places = places_of(lease)
        self.guard = StartGuard()
        self.actors = tuple(group.start_beside(place, self.guard) for place in self.places)
        loaded = group.get_workers()[0].actor.execute.remote(loaded_modules)
        self._waiting = [
            actor.execute.remote(prepare, place.device, train_fn_ref, loaded)
            for actor, place in zip(self.actors, self.places, strict=True)
        ]
        patience_s = time.time() + PATIENCE_S
        in_time_s = lease.deadline_ms / 1000 - BEFORE_DEADLINE_S if lease.deadline_ms else patience_s
        self._give_up_s = min(patience_s, in_time_s)
        self.failed = False

    def starting(self) -> bool:
        """Whether the present workers should train on. False: all are up, or it has failed (and everything is dropped)."""
        if self.failed or not self._waiting:
            return False
        ready, self._waiting = ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0)
        try:
            ray.get(ready)
        except RayError as error:
            self._fail(f"a worker could not be prepared: {error}")
        if self._waiting and time.time() >= self._give_up_s:
            self._fail("the new workers were not up in time")
        return bool(self._waiting) and not self.failed

    def fits(self, lease: Lease) -> bool:
        """Whether these are the workers of this lease."""
        return not self.failed and self.places == places_of(lease)

    def drop(self) -> None:
        """End all of them."""
        self.failed = True
        self.guard.kill()

    def _fail(self, why: str) -> None:
        logger.warning("no warm handover, the restart is plain: %s", why)
        self.drop()


def can_warm(running_on: Lease | None, lease: Lease) -> bool:
    """Whether the change is pure growth of a run on GPUs."""
    if running_on is None or not lease.slots:
        return False
    before, after = {slot.slot for slot in running_on.slots}, {slot.slot for slot in lease.slots}
    return bool(before) and before < after


def loaded_modules() -> list[str]:
    """In a worker that trains: what it has imported by now, also what torch and the script import only when it is first needed."""
    return sorted(name for name in sys.modules if not name.startswith("__"))


def prepare(device: int, train_fn_ref: Any, modules: list[str]) -> None:
    """In a warm worker: know the slot's GPU, import what training needs. Touches no GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = str(device)
    ray.get_gpu_ids = _answering([device])
    train_fn_ref.get()
    absent = 0
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001  # made at run time over there, or not importable by its name: training will see
            absent += 1
    logger.info("prepared for device %d: %d modules, %d only in the other process", device, len(modules), absent)


def _answering(devices: list[int]) -> Callable[[], list[int]]:
    return lambda: list(devices)
