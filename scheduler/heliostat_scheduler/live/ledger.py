"""Which commands about leases are still valid: the rules that make every command safe to repeat. Pure, ray-free.

The ledger is the bridge's copy of what the control plane decided. A lease has an epoch that only rises; whatever names an older
one is refused, so a command that was delayed can never touch a GPU that already belongs to somebody else. A lease that was freed
leaves its last epoch behind, so that a repeated grant cannot bring it back. Two leases never name the same slot.
The fake bridge of the unit tests uses this very class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Lease, SlotRef

REMEMBERED_FREED = 10_000


class Refused(Exception):
    """The command is not carried out. `code` is the word for Reply.code."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Ledger:
    """Leases by job, the term, and the last epoch of jobs whose lease was freed."""

    def __init__(self) -> None:
        self.term = 0
        self.leases: dict[str, Lease] = {}
        self._freed: dict[str, int] = {}

    def greet(self, term: int, leases: Iterable[Lease]) -> None:
        """Hello: from now on these leases are the truth."""
        if term < self.term:
            raise Refused(protocol.STALE_TERM, f"term {term} is older than {self.term}")
        self.term = term
        self.leases = {lease.job: lease for lease in leases}
        self._freed.clear()

    def check_term(self, term: int) -> None:
        if self.term == 0:
            raise Refused(protocol.NO_HELLO, "the first command must be Hello")
        if term != self.term:
            raise Refused(protocol.STALE_TERM, f"term {term} does not match {self.term}; say Hello first")

    def put(self, lease: Lease, slots: Mapping[str, SlotRef]) -> bool:
        """Take the lease. False: it was there already, word for word. `slots`: the usable ones by id."""
        old = self.leases.get(lease.job)
        last = max(old.epoch if old else 0, self._freed.get(lease.job, 0))
        if lease.epoch < last or (old is None and lease.epoch == last):
            raise Refused(protocol.STALE_EPOCH, f"{lease.job}: epoch {lease.epoch} comes after {last}")
        if old is not None and old.order == protocol.REVOKED:
            raise Refused(protocol.STALE_EPOCH, f"{lease.job}: the lease was revoked at epoch {old.epoch}")
        if old is not None and lease.epoch == old.epoch:
            if _same(old, lease):
                return False
            raise Refused(
                protocol.STALE_EPOCH, f"{lease.job}: epoch {lease.epoch} was already written with other content"
            )
        if old is not None and old.attempt != lease.attempt:
            raise Refused(protocol.SLOT_LEASED, f"{lease.job}: attempt {old.attempt} was not freed yet")
        self._check_slots(lease, slots)
        if old is not None and not lease.cpu_group and lease.node == old.node and not lease.slots:
            lease = replace(lease, cpu_group=old.cpu_group)
        self.leases[lease.job] = lease
        return True

    def set_cpu_group(self, job: str, group: str) -> Lease:
        lease = replace(self.leases[job], cpu_group=group)
        self.leases[job] = lease
        return lease

    def left(self, job: str, epoch: int) -> Lease | None:
        """The slots that the lease leaves are verified free: they are anybody's. None when the lease has moved on."""
        lease = self.leases.get(job)
        if lease is None or lease.epoch != epoch:
            return None
        self.leases[job] = replace(lease, leaving=())
        return self.leases[job]

    def to_start(self, job: str, attempt: int, epoch: int) -> Lease:
        """The lease in which a command may be started now."""
        lease = self.leases.get(job)
        if lease is None:
            raise Refused(protocol.NO_LEASE, f"{job} has no lease")
        if lease.attempt != attempt or lease.epoch != epoch or lease.order != protocol.RUN:
            raise Refused(
                protocol.STALE_EPOCH,
                f"{job}: asked to start attempt {attempt} of epoch {epoch}, the lease is attempt {lease.attempt}, "
                f"epoch {lease.epoch}, order {lease.order}",
            )
        return lease

    def to_end(self, job: str, epoch: int) -> Lease | None:
        """The lease that this HardStop or DropLease speaks of. None: it is gone already."""
        lease = self.leases.get(job)
        if lease is not None and epoch < lease.epoch:
            raise Refused(protocol.STALE_EPOCH, f"{job}: epoch {epoch} is older than {lease.epoch}")
        return lease

    def revoke(self, job: str, epoch: int) -> Lease | None:
        """Mark the lease REVOKED under the given epoch."""
        lease = self.to_end(job, epoch)
        if lease is None:
            return None
        revoked = replace(lease, order=protocol.REVOKED, epoch=epoch, deadline_ms=0)
        self.leases[job] = revoked
        return revoked

    def forget(self, job: str, epoch: int) -> None:
        """The lease's slots are verified free."""
        lease = self.leases.get(job)
        if lease is not None and lease.epoch <= epoch:
            del self.leases[job]
        self._freed[job] = max(epoch, self._freed.pop(job, 0))
        while len(self._freed) > REMEMBERED_FREED:
            del self._freed[next(iter(self._freed))]

    def lease_of_slot(self, slot: str) -> Lease | None:
        return next((lease for lease in self.leases.values() if any(ref.slot == slot for ref in lease.held)), None)

    def leases_on(self, node: str) -> list[Lease]:
        """Leases that name a slot, or the CPUs, of this node."""
        found = (
            lease for lease in self.leases.values() if lease.node == node or any(s.node == node for s in lease.held)
        )
        return sorted(found, key=lambda lease: lease.job)

    def _check_slots(self, lease: Lease, slots: Mapping[str, SlotRef]) -> None:
        taken = {ref.slot: other.job for other in self.leases.values() if other.job != lease.job for ref in other.held}
        for ref in lease.slots:
            known = slots.get(ref.slot)
            if known is None or known.group != ref.group:
                raise Refused(
                    protocol.UNKNOWN_SLOT, f"{lease.job}: slot {ref.slot} (group {ref.group[:12]}) is not there"
                )
            if ref.slot in taken:
                raise Refused(protocol.SLOT_LEASED, f"{lease.job}: slot {ref.slot} is leased to {taken[ref.slot]}")


def _same(old: Lease, new: Lease) -> bool:
    """Whether it is the same lease again. What it has left meanwhile, and its CPU group, the control plane may not know yet."""
    return old == replace(new, cpu_group=new.cpu_group or old.cpu_group, leaving=new.leaving if old.leaving else ())
