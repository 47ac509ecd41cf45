"""The states of a deployment and the table of legal moves; everything else is a programming error.

    waiting -> starting -> checking -> ready -> retiring -> gone
         \\________\\__________\\______\\-> failed -> retiring

`waiting`: its serving job waits in the queue for its replicas' GPUs or CPUs. `starting`: granted; Serve has been told, its
replicas load the model. `checking`: it runs, and a smoke request is on its way to it. `ready`: it may have traffic. A grant
that is taken away (preemption, loss of Ray) leads from each of them back to `waiting`; its weight is kept meanwhile.
`failed`: its replica cannot start or its smoke request failed; it never gets traffic. `retiring`: no traffic any more, its
replicas end. `gone`: nothing of it is left.
"""

from __future__ import annotations

from enum import StrEnum


class DeploymentState(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    CHECKING = "checking"
    READY = "ready"
    FAILED = "failed"
    RETIRING = "retiring"
    GONE = "gone"


S = DeploymentState

MOVES: dict[DeploymentState, frozenset[DeploymentState]] = {
    S.WAITING: frozenset({S.STARTING, S.FAILED, S.RETIRING}),
    S.STARTING: frozenset({S.CHECKING, S.WAITING, S.FAILED, S.RETIRING}),
    S.CHECKING: frozenset({S.READY, S.STARTING, S.WAITING, S.FAILED, S.RETIRING}),
    S.READY: frozenset({S.WAITING, S.STARTING, S.FAILED, S.RETIRING}),
    S.FAILED: frozenset({S.RETIRING}),
    S.RETIRING: frozenset({S.GONE}),
    S.GONE: frozenset(),
}
UNDER_WAY = frozenset({S.WAITING, S.STARTING, S.CHECKING})
SERVED = frozenset({S.STARTING, S.CHECKING, S.READY})
"""States in which Serve has the version."""
ROUTED = frozenset({S.CHECKING, S.READY})
"""States in which the gateway knows it."""


class IllegalDeploymentMove(Exception):
    """A deployment was asked to make a move that the table does not know."""


def check(what: str, old: DeploymentState, new: DeploymentState) -> None:
    if new not in MOVES[old]:
        raise IllegalDeploymentMove(f"{what} cannot move from {old} to {new}.")
