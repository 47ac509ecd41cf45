"""What the lease board remembers, without Ray: leases, and what their runners said last. The actor around it is in `board.py`.

The board decides nothing. Its content is a projection of the bridge's ledger plus the runners' acks; after the death of its
process it is empty and *not installed*, which is told apart from "this lease is gone": runners then wait instead of letting go.
Acks are kept until their lease goes, each with a rising sequence number, so that a reader that starts again at 0 misses nothing.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.protocol import Lease, LeaseGone

PROGRESS = "progress"


class BoardEmpty(Exception):
    """The board was started again and has not been filled yet: try again."""


class StaleTerm(Exception):
    """Somebody of a newer term owns the board."""


@dataclass(frozen=True, slots=True)
class Said:
    """One ack (or, with what = progress, the last report) of a job's runner."""

    seq: int
    job: str
    attempt: int
    epoch: int
    what: str
    facts: dict[str, Any] = field(default_factory=dict)  # Any: JSON


class BoardState:
    """Leases and acks. `term` fences writers: a bridge of an older term can neither write nor read on."""

    def __init__(self) -> None:
        self.installed = False
        self.term = 0
        self.seq = 0
        self.leases: dict[str, Lease] = {}
        self._said: dict[tuple[str, int, int, str], Said] = {}

    # ---- the bridge's side -------------------------------------------------------------------------------------------

    def install(self, term: int, leases: tuple[Lease, ...]) -> None:
        """Replace all leases. Acks of the attempts that go on are kept."""
        self.check_term(term)
        self.term = term
        self.leases = {lease.job: lease for lease in leases}
        self.installed = True
        attempts = {(lease.job, lease.attempt) for lease in leases}
        self._said = {key: said for key, said in self._said.items() if (said.job, said.attempt) in attempts}

    def put(self, term: int, lease: Lease) -> None:
        self.check_term(term)
        old = self.leases.get(lease.job)
        if old is not None and old.epoch > lease.epoch:
            return
        if old is not None and old.attempt != lease.attempt:
            self._forget_said(lease.job)
        self.leases[lease.job] = lease

    def drop(self, term: int, job: str) -> None:
        self.check_term(term)
        self.leases.pop(job, None)
        self._forget_said(job)

    def after(self, seq: int) -> tuple[Said, ...]:
        """Everything said after `seq`, in order."""
        return tuple(sorted((said for said in self._said.values() if said.seq > seq), key=lambda said: said.seq))

    def check_term(self, term: int) -> None:
        if term < self.term:
            raise StaleTerm(f"term {term} is older than {self.term}")

    # ---- the runners' side -------------------------------------------------------------------------------------------

    def get(self, job: str, secret: str) -> Lease:
        """The lease, for whoever knows its secret. Raises LeaseGone or BoardEmpty."""
        if not self.installed:
            raise BoardEmpty("the lease board was started again and is being filled")
        lease = self.leases.get(job)
        if lease is None or not hmac.compare_digest(lease.secret, secret):
            raise LeaseGone(f"{job} has no lease with this secret")
        if lease.order == protocol.REVOKED:
            raise LeaseGone(f"the lease of {job} was revoked at epoch {lease.epoch}")
        return lease

    def ack(self, job: str, secret: str, epoch: int, what: str, facts: dict[str, Any]) -> None:  # Any: JSON
        """Keep what a runner says. The same words again change nothing, so they may be repeated freely."""
        try:
            attempt = self.get(job, secret).attempt
        except LeaseGone:
            lease = self.leases.get(job)
            if lease is None or not hmac.compare_digest(lease.secret, secret) or what == PROGRESS:
                raise
            attempt = lease.attempt  # revoked: its last words (`exited`) still count
        key = (job, attempt, 0 if what == PROGRESS else epoch, what)
        old = self._said.get(key)
        if old is not None and old.facts == facts:
            return
        self.seq += 1
        self._said[key] = Said(self.seq, job, attempt, epoch, what, facts)

    def said(self, job: str, secret: str, what: str) -> dict[str, Any] | None:  # Any: JSON
        """The facts of the latest ack of this kind, or None."""
        self.get(job, secret)
        found = [said for said in self._said.values() if said.job == job and said.what == what]
        return max(found, key=lambda said: said.seq).facts if found else None

    def _forget_said(self, job: str) -> None:
        self._said = {key: said for key, said in self._said.items() if said.job != job}
