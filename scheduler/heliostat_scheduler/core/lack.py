"""What a waiting gang lacks, by the numbers of the moment at which it was judged.

A cycle judges thousands of groups and few of the answers are read, so a judgement keeps numbers only; the reason is made of them when
somebody asks.
"""

from __future__ import annotations

from typing import NamedTuple

from heliostat_scheduler.core.book import reason as make_reason
from heliostat_scheduler.core.model import JobSpec
from heliostat_scheduler.core.reasons import Reason, ReasonCode


class Standing(NamedTuple):
    """How a queue stands for one resource: what a reason says about it, frozen.

    share_left: what could still be added before some queue of its chain is above its share.
    """

    queue: str
    key: str
    free: int
    share_left: int
    entitled: int
    used: int
    others_hold: bool
    blockers: list[str]
    max_nodes: int | None = None
    """That no more nodes of the flavor can be had, where others could be until now."""


class Lack(NamedTuple):
    """What is missing for a gang, by the numbers of the moment at which it was judged. fits: how many of its tasks would fit; first: the
    highest class that waits in its queue."""

    code: ReasonCode
    standing: Standing
    spec: JobSpec
    needs: int
    fits: int = 0
    first: int = 0

    def reason(self) -> Reason:
        at, spec, code = self.standing, self.spec, self.code
        facts: tuple[tuple[str, int | str], ...] = (
            ("needs", self.needs), ("free", at.free), ("gap", max(0, self.needs - at.free)), ("resource", at.key),
            ("tasks", spec.min_tasks), ("queue", at.queue),
        )  # fmt: skip
        if code in (ReasonCode.FRAGMENTED, ReasonCode.TOPOLOGY_UNSATISFIED):
            facts += (("best", self.fits), ("spread", spec.spread))
        elif at.max_nodes is not None:
            facts += (("max_nodes", at.max_nodes),)
        if code is ReasonCode.BELOW_PRIORITY:
            facts += (("priority", spec.priority), ("first", self.first))
        elif code is ReasonCode.FAIR_SHARE_EXCEEDED:
            facts += (("entitled", at.entitled), ("used", at.used))
        elif code is ReasonCode.GANG_INCOMPLETE:
            facts += (("ready", self.fits),)
        return make_reason(code, *facts, blockers=at.blockers)
