"""Warm handover, the new half: when a run grows, its further workers start and import while the present ones still train.

What a growth costs is process start and imports. So a process is started in each slot that the order adds, and only when all have
imported what training needs are the running workers marked; those save, leave their loop and stay (handover.py).

Only growth goes this way: nobody waits for a slot then. An order that takes a slot away is obeyed at once. A warm start that fails or
takes too long is dropped, and the new workers start after the checkpoint.

Always true: warm processes are in slots of the newest lease only, and in none of the running group's.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from typing import Any

import ray
from heliostat_scheduler.live.protocol import Lease
from ray.exceptions import RayError

from heliostat_jobs.train.places import Place, places_of
from heliostat_jobs.train.slot_workers import SlotWorkerGroup, StartGuard

logger = logging.getLogger(__name__)

PATIENCE_S = 150.0
"""Training goes on meanwhile and nobody waits for a slot, so an overloaded machine may take its time."""


class WarmGroup:
    """The further workers of the next group, on their way. `starting` is asked in every step of the controller."""

    def __init__(self, before: Lease, lease: Lease, group: SlotWorkerGroup, train_fn_ref: Any) -> None:
        self.lease = lease
        self.guard = StartGuard()
        self.actors = {place.slot: group.start_beside(place, self.guard) for place in added(before, lease)}
        loaded = group.get_workers()[0].actor.execute.remote(loaded_modules)
        self._waiting = [actor.execute.remote(prepare, train_fn_ref, loaded) for actor in self.actors.values()]
        self._give_up_s = time.time() + PATIENCE_S
        self.failed = ""

    def starting(self) -> bool:
        """Whether the present workers should train on. False: all are up, or it has failed (and everything is dropped)."""
        if self.failed or not self._waiting:
            return False
        ready, self._waiting = ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0)
        try:
            ray.get(ready)
        except RayError as error:
            self._fail(f"a new worker could not be prepared: {error}")
        if self._waiting and time.time() >= self._give_up_s:
            self._fail("the new workers were not up in time")
        return bool(self._waiting) and not self.failed

    def fits(self, lease: Lease) -> bool:
        """Whether these are workers for this lease."""
        return places_of(self.lease) == places_of(lease)

    def drop(self) -> None:
        """End all of them."""
        self.guard.kill()

    def _fail(self, why: str) -> None:
        logger.warning("no warm start: %s", why)
        self.failed = why
        self.drop()


def added(before: Lease, lease: Lease) -> tuple[Place, ...]:
    """The places that the newer lease has and the older had not."""
    old = {slot.slot for slot in before.slots}
    return tuple(place for place in places_of(lease) if place.slot not in old)


def only_grows(before: Lease | None, lease: Lease) -> bool:
    """Whether the change is pure growth of a run on GPUs."""
    if before is None or not lease.slots:
        return False
    old, new = {slot.slot for slot in before.slots}, {slot.slot for slot in lease.slots}
    return bool(old) and old < new


def loaded_modules() -> list[str]:
    """In a worker that trains: what it has imported by now, also what torch and the script import only when it is first needed."""
    return sorted(name for name in sys.modules if not name.startswith("__"))


def prepare(train_fn_ref: Any, modules: list[str]) -> None:
    """In a warm worker: import what training needs."""
    train_fn_ref.get()
    absent = 0
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001  # made at run time over there, or not importable by its name: training will see
            absent += 1
    logger.info("prepared: %d modules, %d only in the other process", len(modules), absent)
