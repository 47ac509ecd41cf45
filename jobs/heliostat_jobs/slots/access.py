"""A process's door to the job's slot broker: slots for its plain tasks and actors, claims for trials and the trainers inside them.

Asking costs one round trip (about a millisecond) per GPU task. Right before it asks, a process looks which of its earlier tasks are
over, without fetching their results; a thread that watched them would still be in Ray when the program leaves it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import ray
from heliostat_scheduler.live.protocol import NAMESPACE, Lease, SlotRef
from ray.exceptions import RayActorError

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.errors import BrokenEnvironment, LeaseLost
from heliostat_jobs.slots.broker import SlotBroker
from heliostat_jobs.slots.ledger import WHOLE
from heliostat_jobs.slots.open_tasks import OpenTasks

ANSWER_S = 60.0


class SlotAccess:
    """One per process: see `slot_access`."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._handle: Any = None  # Any: an actor handle
        self._connection = ""
        self._open = OpenTasks()
        self._lock = threading.Lock()

    # ---- plain tasks and actors --------------------------------------------------------------------------------------

    def lease(self) -> Lease:
        lease: Lease = self.ask("lease")
        return lease

    def pick(self, gpus: float, node: str, stays: bool) -> tuple[int, SlotRef] | None:
        """(token, slot) for a task or (`stays`) an actor; None when the lease has none (on that node)."""
        found: tuple[int, SlotRef] | None = self.ask("pick", round(gpus * WHOLE), node, stays, self._finished())
        return found

    def watch_task(self, token: int, slot: str, reference: Any) -> None:  # Any: what RemoteFunction._remote returns
        """Count the task until its (first) result is there."""
        ref = reference[0] if isinstance(reference, list) and reference else reference
        if isinstance(ref, ray.ObjectRefGenerator):
            ref = ref.completed()
        if not isinstance(ref, ray.ObjectRef):
            self.give_back(token)
            return
        with self._lock:
            self._open.add(token, slot, ref)

    def give_back(self, token: int) -> None:
        """The request was never made, or leaves no trace that could be watched."""
        self.tell("finished", [token])

    def watch_actor(self, token: int, handle: Any) -> None:  # Any: an actor handle
        """Count the actor until it is dead."""
        self.tell("bind", token, handle._actor_id.hex())

    def _finished(self) -> list[int]:
        """Tokens of tasks that are over since the last look."""
        with self._lock:
            return self._open.over(_ready)

    # ---- both --------------------------------------------------------------------------------------------------------

    def ask(self, method: str, *args: Any, timeout_s: float | None = ANSWER_S) -> Any:  # Any: the broker's methods
        """The broker's answer."""
        try:
            return ray.get(getattr(self.broker(), method).remote(*args), timeout=timeout_s)
        except RayActorError as error:
            self._handle = None
            raise LeaseLost(
                f"Attempt {self._attempt.number} of job {self._attempt.job} hands out no slots any more ({error}).",
                "Its lease is gone: a later attempt of the job goes on from its last checkpoint.",
            ) from error

    def tell(self, method: str, *args: Any) -> None:
        """Say it without waiting."""
        getattr(self.broker(), method).remote(*args)

    def broker(self) -> Any:  # Any: an actor handle
        if not ray.is_initialized():
            ray.init()
        connection = ray.get_runtime_context().get_job_id()
        if self._handle is None or connection != self._connection:
            self._connection = connection
            self._open.clear()  # tasks of a connection that the program has closed
            name = f"heliostat-slots:{self._attempt.job}:{self._attempt.number}"
            options: dict[str, Any] = {
                "name": name,
                "namespace": NAMESPACE,
                "lifetime": "detached",
                "get_if_exists": True,
            }
            options["scheduling_strategy"] = "DEFAULT"  # in no trial's group: it would die with the trial
            actor = ray.remote(num_cpus=0, max_concurrency=1000)(SlotBroker)
            self._handle = actor.options(**options).remote(self._attempt.job, self._attempt.secret)
        return self._handle


def _ready(refs: Sequence[Any]) -> Sequence[Any]:  # Any: ObjectRefs
    ready: list[Any] = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)[0]
    return ready


@functools.cache
def slot_access() -> SlotAccess:
    """This process's access. Only inside a job."""
    attempt = Attempt.from_environment()
    if attempt is None:
        raise BrokenEnvironment(
            "This process belongs to no job.", "HELIOSTAT_JOB was cleared after the program had started."
        )
    return SlotAccess(attempt)
