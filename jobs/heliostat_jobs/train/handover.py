"""Warm handover: which processes of the running group, and which that were started beside it, the next group begins with.

    shrink    the ranks that keep their slots save, leave their loop, and meet again in the smaller world: no process starts
    growth    processes start in the added slots first (warm.py); then the same, in the larger world
    neither   a slot is swapped: those that stay are kept, the others start after the checkpoint
    plain     every process ends and starts anew: the order of a script that does not leave its loop, of a job that chose so, of a
              framework other than PyTorch, of a group that did not answer its order; and after anything here has failed

Always true: processes that are kept train nothing until their next group starts, and are ended when it is not to start, or not in
their slot. What a kept process breaks is not the script's failure: the group starts anew, plainly, and so do all after it.
"""

from __future__ import annotations

import logging
from typing import Any

import ray
from heliostat_scheduler.live.protocol import Lease
from ray.exceptions import RayError

from heliostat_jobs.train.leave import leave
from heliostat_jobs.train.places import may_run
from heliostat_jobs.train.ray_train_private import BackendConfig
from heliostat_jobs.train.slot_workers import Ready, SlotWorkerGroup
from heliostat_jobs.train.warm import WarmGroup, only_grows

logger = logging.getLogger(__name__)

LEAVE_PATIENCE_S = 5.0
ANSWER_S = LEAVE_PATIENCE_S + 3.0
CHOSE_PLAIN = "the job chose plain restarts"


class Handover:
    """Of one run. used_kept, used_warm: how many processes of either kind the running group began with."""

    def __init__(self, wanted: bool, backend_config: Any) -> None:
        self._keeps = wanted and keeps_processes(backend_config)
        unable = f"{type(backend_config).__name__} cannot begin again in the same process"
        self._why_always_plain = "" if self._keeps else unable if wanted else CHOSE_PLAIN
        self._warms = wanted
        self._warm: WarmGroup | None = None
        self._kept = Ready()
        self._leaving: list[Any] = []  # Any: ObjectRefs
        self.used_kept = self.used_warm = 0
        self._why_last_plain = ""

    # ---- before the mark ---------------------------------------------------------------------------------------------

    def is_warming(self, before: Lease | None, lease: Lease, group: SlotWorkerGroup, train_fn_ref: Any) -> bool:
        """Whether an order should wait for new workers to be up. Only growth does."""
        if not self._warms or not may_run(lease) or before is None or not only_grows(before, lease):
            self.drop_warm()
            return False
        if self._warm is None or not self._warm.fits(lease):
            self.drop_warm()
            self._warm = WarmGroup(before, lease, group, train_fn_ref)
            logger.info(
                "growing at epoch %d: %d workers start beside the running ones", lease.epoch, len(self._warm.actors)
            )
        return self._warm.starting()

    def drop_warm(self) -> None:
        """End warm workers that will not be used."""
        if self._warm is not None:
            self._warm.drop()
            self._warm = None

    # ---- from one group to the next ----------------------------------------------------------------------------------

    @property
    def has_warm(self) -> bool:
        return self._warm is not None

    def keep(self, group: SlotWorkerGroup, lease: Lease | None) -> None:
        """End the group, except what this lease's group can use of it (None: nothing). `settle` hears from those that stay."""
        slots = {slot.slot for slot in lease.slots} if lease is not None and self._keeps and may_run(lease) else set()
        staying = {slot: actor for slot, actor in group.workers_by_slot().items() if slot in slots} if slots else {}
        self._leaving = [actor.execute.remote(leave, LEAVE_PATIENCE_S) for actor in staying.values()]
        self._kept = group.let_go(staying)

    def settle(self) -> bool:
        """Wait until the kept processes have left their loops, and whether there are any. If one has not, none is kept."""
        if not self._leaving:
            return False
        try:
            answers = ray.get(self._leaving, timeout=ANSWER_S)
            why = next((answer for answer in answers if answer), "")
        except RayError as error:
            why = f"a worker did not leave: {error}"
        self._leaving = []
        if why:
            self._note(why)
            self._keep_only(set())
        return not why

    def only_in(self, lease: Lease | None) -> None:
        """End kept and warm processes outside of this lease's slots (None: all of them)."""
        self._keep_only({slot.slot for slot in lease.slots} if lease is not None and may_run(lease) else set())
        if lease is None or (self._warm is not None and not self._warm.fits(lease)):
            self.drop_warm()

    def _keep_only(self, slots: set[str]) -> None:
        left = {slot: actor for slot, actor in self._kept.workers.items() if slot in slots}
        for slot, actor in self._kept.workers.items():
            if slot not in left:
                ray.kill(actor)
        if self._kept.sync_actor is not None and not left:
            ray.kill(self._kept.sync_actor)
        self._kept = Ready(left, self._kept.sync_actor if left else None)

    def take(self, lease: Lease) -> Ready:
        """What the group that starts on this lease finds at hand. From now on it is the group's."""
        self.only_in(lease)
        warm = self._warm.actors if self._warm is not None and not self._warm.failed else {}
        self.used_kept, self.used_warm = len(self._kept.workers), len(warm)
        taken = Ready({**self._kept.workers, **warm}, self._kept.sync_actor)
        self._kept, self._warm = Ready(), None
        return taken

    # ---- when it does not work ---------------------------------------------------------------------------------------

    def blamed(self, what: str) -> bool:
        """A group failed at its start or before its first report; whether its kept processes are to blame, and no more are kept."""
        if not self.used_kept:
            return False
        self._keeps, self.used_kept = False, 0
        self._why_always_plain = what
        self._note(what)
        return True

    def facts(self) -> dict[str, Any]:  # Any: JSON
        """How the running group began, for the lease board. Clears the reason of a plain restart."""
        why, self._why_last_plain = self._why_last_plain or self._why_always_plain, ""
        found: dict[str, Any] = {"kept": self.used_kept, "warm": self.used_warm}
        return found if self.used_kept else found | {"plain_because": why}

    def _note(self, why: str) -> None:
        logger.warning("the restart is plain: %s", why)
        self._why_last_plain = why


def keeps_processes(backend_config: Any) -> bool:  # Any: ray.train's BackendConfig
    """Whether a framework's workers can begin again in their process: PyTorch's, and those of no framework."""
    if type(backend_config) is BackendConfig:
        return True
    torch = type(backend_config)
    return (torch.__module__, torch.__name__) == ("ray.train.torch.config", "TorchConfig")
