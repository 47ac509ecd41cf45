"""A process's door to the job's slot broker: slots for its plain tasks and actors, claims for trials and the trainers inside them.

Asking costs one round trip (about a millisecond) per GPU task. Right before it asks, a process looks which of its earlier tasks are
over, without fetching their results; a thread that watched them would still be in Ray when the program leaves it.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Sequence
from typing import Any

import ray
from heliostat_scheduler.live.protocol import NAMESPACE, Lease, SlotRef
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.errors import BrokenEnvironment, BrokerLost
from heliostat_jobs.slots.asking import blocked
from heliostat_jobs.slots.broker import SlotBroker
from heliostat_jobs.slots.ledger import WHOLE
from heliostat_jobs.slots.open_tasks import OpenTasks
from heliostat_jobs.train.board_client import current_lease

logger = logging.getLogger(__name__)

ANSWER_S = 60.0
PATIENCE_S = 30.0
"""How long a trainer waits for its slots before it says for what."""


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

    # ---- claims ------------------------------------------------------------------------------------------------------

    def holder(self) -> str:
        """This process in Ray's tables. Its claims end with it."""
        return str(ray.get_runtime_context().get_worker_id())

    def try_claim(self, claim_id: str, share: int) -> tuple[SlotRef, ...] | None:
        """A share of one slot (in milli-GPU), if there is one now."""
        found: tuple[SlotRef, ...] | None = self.ask("try_claim", claim_id, self.holder(), share)
        return found

    def claim(self, claim_id: str, owner: str, fewest: int, most: int) -> Lease:
        """Slots for the trainer of a trial (`owner`), once there are as many. Raises NeverFits when the trials block each other."""
        while True:
            lease: Lease | None = self.ask(
                "claim", claim_id, owner, self.holder(), fewest, most, PATIENCE_S, timeout_s=None
            )
            if lease is not None:
                return lease
            holders, stuck = self.ask("waits_for", claim_id)
            who = ", ".join(f"{slot} by {' and '.join(owners)}" for slot, owners in sorted(holders.items())) or "nobody"
            if stuck:
                raise blocked(owner, fewest, who)
            logger.warning("The trainer in trial %s waits for %d free slots of its job; held: %s", owner, fewest, who)

    # ---- both --------------------------------------------------------------------------------------------------------

    def ask(self, method: str, *args: Any, timeout_s: float | None = ANSWER_S) -> Any:  # Any: the broker's methods
        """The broker's answer."""
        try:
            return ray.get(getattr(self.broker(), method).remote(*args), timeout=timeout_s)
        except RayActorError as error:
            current_lease(self._attempt)  # gone: that is why, and this says so
            raise BrokerLost(
                f"The actor that hands out the slots of job {self._attempt.job} has died ({str(error).splitlines()[0]}).",
                "Not the script's fault: the attempt ends as crashed and is tried again, from its last checkpoint.",
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
            self._handle = self._found() or self._made()
        return self._handle

    @property
    def _name(self) -> str:
        return f"heliostat-slots:{self._attempt.job}:{self._attempt.number}"

    def _found(self) -> Any:  # Any: an actor handle, or None
        try:
            return ray.get_actor(self._name, namespace=NAMESPACE)
        except ValueError:  # nobody has needed it yet
            return None

    def _made(self) -> Any:  # Any: an actor handle
        """On a node whose end the lease does not survive anyway, and in no trial's group: it would die with the trial."""
        slots = current_lease(self._attempt).slots
        options: dict[str, Any] = {
            "name": self._name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(slots[0].node, soft=True) if slots else "DEFAULT",
        }
        actor = ray.remote(num_cpus=0, max_concurrency=1000)(SlotBroker)
        return actor.options(**options).remote(self._attempt.job, self._attempt.secret)


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
