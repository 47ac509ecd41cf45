"""Digests of policy and state.

The state's digest is a hash over the small parts and a sum of per-job hashes, so that a cycle pays for the jobs it touched and
not for all that wait.
"""

from __future__ import annotations

import hashlib

from heliostat_scheduler.core.book import JobRec
from heliostat_scheduler.core.codec import to_json
from heliostat_scheduler.core.model import JobSpec, Policy
from heliostat_scheduler.core.snapshot import moving_record, node_record, supply_record
from heliostat_scheduler.core.state import State

_MODULUS = 1 << 256


def policy_digest(policy: Policy) -> str:
    return hashlib.sha256(to_json(policy).encode()).hexdigest()


class Digest:
    """Remembers the hash of every job, and which state it belongs to."""

    def __init__(self) -> None:
        self._jobs: dict[str, int] = {}
        self._specs: dict[str, tuple[JobSpec, str]] = {}
        self._frozen: dict[str, tuple[object, str]] = {}
        self._sum = 0
        self._state: State | None = None

    def of(self, state: State) -> str:
        book = state.book
        if self._state is not state:
            self._jobs, self._sum, self._state = {}, 0, state
            touched = set(book.jobs)
        else:
            touched = book.touched
        for job_id in touched:
            self._sum -= self._jobs.pop(job_id, 0)
            rec = book.jobs.get(job_id)
            if rec is None:
                self._specs.pop(job_id, None)
            else:
                value = self._job_hash(rec)
                self._jobs[job_id] = value
                self._sum += value
        self._sum %= _MODULUS
        book.touched = set()
        small = {
            "policy": self.kept("policy", state.policy),
            "queues": self.kept("queues", book.tree.specs),
            "usage": {name: node.usage for name, node in sorted(book.tree.by_name.items()) if node.usage},
            "users": [[*owner, used] for owner, used in sorted(state.user_usage.items())],
            "nodes": self._nodes(state),
            "blocked": book.blocked,
            "failed": state.failed,
            "losses": state.losses,
            "mix": self.kept("mix", state.mix),
            **supply_record(state),
            "jobs": self._sum,
            "cycle": state.cycle,
            "now_ms": state.now_ms,
        }
        return hashlib.sha256(to_json(small).encode()).hexdigest()

    def kept(self, name: str, value: object) -> str:
        """The hash of a frozen record, which changes only by another one taking its place."""
        known = self._frozen.get(name)
        if known is None or known[0] is not value:
            known = self._frozen[name] = (value, hashlib.sha256(to_json(value).encode()).hexdigest())
        return known[1]

    def _job_hash(self, rec: JobRec) -> int:
        """The specification rarely changes, so its hash is kept."""
        known = self._specs.get(rec.id)
        if known is None or known[0] is not rec.spec:
            known = self._specs[rec.id] = (rec.spec, hashlib.sha256(to_json(rec.spec).encode()).hexdigest())
        body = to_json(moving_record(rec)) + known[1]
        return int.from_bytes(hashlib.sha256(body.encode()).digest(), "big")

    def _nodes(self, state: State) -> str:
        rows = state.book.node_hashes
        for node_id in sorted(state.book.nodes_touched):
            rec = state.book.nodes.get(node_id)
            rows.pop(node_id, None)
            if rec is not None:
                rows[node_id] = int.from_bytes(hashlib.sha256(to_json(node_record(rec)).encode()).digest(), "big")
        state.book.nodes_touched = set()
        return str(sum(rows.values()) % _MODULUS)
