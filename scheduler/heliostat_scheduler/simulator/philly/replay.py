"""Helios' and Lucid's replay semantics without their one-second clock: FIFO, SJF, SRTF and Tiresias on one node group.

Their engines tick every second; nothing changes between events, so only the instants that can change something are visited.
FIFO and SJF stop at the first job that does not fit. SRTF (every second) and Tiresias (every 60 s) hand out a GPU *count* in
priority order, ignoring fragmentation: a chosen job that finds no consolidated place keeps waiting while its share of the
count stays reserved for that decision. A preempted job pays 40 s (60 s above eight GPUs) of extra run time.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from heliostat_scheduler.simulator.philly.data import PhillyJob
from heliostat_scheduler.simulator.philly.nodes import Held, NodeGroup
from heliostat_scheduler.simulator.results import Finished
from heliostat_scheduler.simulator.spans import Span

TIRESIAS_THRESHOLD = 18_000
"""GPU-seconds of attained service that divide the two queues."""
TIRESIAS_ROUND_S = 60


@dataclass(slots=True, eq=False)
class Live:
    """A job inside the replay. While it runs, `end_s` is when it will complete."""

    job: PhillyJob
    order: int
    remaining_s: int
    held: Held = ()
    since_s: int = 0
    end_s: int = 0
    served: int = 0
    preemptions: int = 0
    running: bool = False


@dataclass(slots=True)
class Group:
    """State of one node group during a replay."""

    nodes: NodeGroup
    pending: list[tuple[int, int, Live]] = field(default_factory=list)
    running: dict[Live, None] = field(default_factory=dict)
    ends: list[tuple[int, int, Live]] = field(default_factory=list)
    used: Counter[str] = field(default_factory=Counter)
    done: list[Finished] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def start(self, live: Live, now: int) -> bool:
        held = self.nodes.take(live.job.gpus)
        if held is None:
            return False
        live.held, live.since_s, live.running = held, now, True
        live.end_s = now + live.remaining_s
        self.running[live] = None
        self.used[live.job.vc] += live.job.gpus
        heapq.heappush(self.ends, (live.end_s, live.order, live))
        return True

    def stop(self, live: Live, now: int) -> None:
        """Preempt: the restart cost is added to what remains."""
        self._release(live, now)
        live.preemptions += 1
        live.remaining_s = live.end_s - now + live.job.overhead_s

    def next_end(self) -> float:
        while self.ends and not self._current(self.ends[0]):
            heapq.heappop(self.ends)
        return self.ends[0][0] if self.ends else math.inf

    def finish(self, now: int) -> bool:
        any_ended = False
        while self.next_end() <= now:
            live = heapq.heappop(self.ends)[2]
            self._release(live, now)
            job = live.job
            self.done.append(Finished(job.id, job.vc, job.submit_s, job.duration_s, now, live.preemptions))
            any_ended = True
        return any_ended

    def _release(self, live: Live, now: int) -> None:
        self.spans.append(Span(live.job.id, live.job.vc, live.since_s, now, live.held))
        self.nodes.give_back(live.held)
        live.served += (now - live.since_s) * live.job.gpus
        live.running = False
        self.used[live.job.vc] -= live.job.gpus
        del self.running[live]

    @staticmethod
    def _current(entry: tuple[int, int, Live]) -> bool:
        return entry[2].running and entry[2].end_s == entry[0]


def _strict(group: Group, now: int) -> float:
    """FIFO or SJF, by the key under which jobs entered `pending`: stop at the first that finds no place."""
    started = 0
    for _, _, live in group.pending:
        if not group.start(live, now):
            break
        started += 1
    del group.pending[:started]
    return math.inf


def _apply(group: Group, now: int, chosen: list[Live], preempted: list[Live]) -> list[Live]:
    """Stop, then place in order. Returns the chosen jobs that found no place."""
    for live in preempted:
        group.stop(live, now)
    return [live for live in chosen if not group.start(live, now)]


def _srtf(group: Group, now: int) -> float:
    """Shortest remaining time; returns the next instant at which the order may change by itself."""
    quota = group.nodes.total
    if group.nodes.free >= sum(entry[2].job.gpus for entry in group.pending):
        chosen = [entry[2] for entry in group.pending]
        preempted: list[Live] = []
    else:
        chosen, preempted = _srtf_walk(group, now, quota)
    if not chosen and not preempted:
        return math.inf
    stuck = _apply(group, now, chosen, preempted)
    placed = {live for live in chosen if live.running}
    group.pending = [entry for entry in group.pending if entry[2] not in placed]
    for live in preempted:
        insort(group.pending, (live.remaining_s, live.order, live))
    if preempted or placed:
        return now + 1
    return min(
        (
            now + (r.end_s - now) - p.remaining_s + 1
            for p in stuck
            for r in group.running
            if r.end_s - now > p.remaining_s
        ),
        default=math.inf,
    )


def _srtf_walk(group: Group, now: int, quota: int) -> tuple[list[Live], list[Live]]:
    merged = heapq.merge(
        ((remaining, 0, order, live) for remaining, order, live in group.pending),
        sorted((live.end_s - now, 1, live.order, live) for live in group.running),
    )
    chosen: list[Live] = []
    preempted: list[Live] = []
    left = len(group.running)
    for _, _, _, live in merged:
        left -= live.running
        if live.job.gpus <= quota:
            quota -= live.job.gpus
            if not live.running:
                chosen.append(live)
        elif live.running:
            preempted.append(live)
        if quota == 0 and left == 0:
            break
    return chosen, preempted


def _tiresias(group: Group, now: int) -> float:
    """Two queues by attained service, first come first served inside; one decision per round."""
    if now % TIRESIAS_ROUND_S:
        return now + TIRESIAS_ROUND_S - now % TIRESIAS_ROUND_S
    ordered = sorted(
        [*group.running, *(entry[2] for entry in group.pending)],
        key=lambda live: (_served(live, now) > TIRESIAS_THRESHOLD, live.job.submit_s, not live.running, live.order),
    )
    quota = group.nodes.total
    chosen: list[Live] = []
    preempted: list[Live] = []
    for live in ordered:
        if live.job.gpus <= quota:
            quota -= live.job.gpus
            if not live.running:
                chosen.append(live)
        elif live.running:
            preempted.append(live)
    if chosen or preempted:
        _apply(group, now, chosen, preempted)
        placed = {live for live in chosen if live.running}
        group.pending = [entry for entry in group.pending if entry[2] not in placed]
        group.pending.extend((live.job.submit_s, live.order, live) for live in preempted)
        if placed or preempted:
            return now + TIRESIAS_ROUND_S
    crossings = (
        now + (TIRESIAS_THRESHOLD - _served(live, now)) // live.job.gpus + 1
        for live in group.running
        if _served(live, now) <= TIRESIAS_THRESHOLD
    )
    return min(crossings, default=math.inf) if group.pending else math.inf


def _served(live: Live, now: int) -> int:
    return live.served + ((now - live.since_s) * live.job.gpus if live.running else 0)


_DECIDE: dict[str, Callable[[Group, int], float]] = {
    "fifo": _strict,
    "sjf": _strict,
    "srtf": _srtf,
    "tiresias": _tiresias,
}


def waiting_in_order(group: Group, policy: str) -> list[Live]:
    """The waiting jobs as the policy ranks them."""
    if policy == "tiresias":
        return sorted(
            (entry[2] for entry in group.pending),
            key=lambda live: (live.served > TIRESIAS_THRESHOLD, live.job.submit_s, live.order),
        )
    return [entry[2] for entry in group.pending]


def replay(
    jobs: list[PhillyJob],
    nodes: int,
    policy: str,
    at: Callable[[int], None] = lambda _: None,
    watch: Callable[[int, Group], None] = lambda _, __: None,
) -> list[Finished]:
    """As `replay_group`; only the finished jobs."""
    return replay_group(jobs, nodes, policy, at, watch).done


def replay_group(
    jobs: list[PhillyJob], nodes: int, policy: str, at: Callable[[int], None], watch: Callable[[int, Group], None]
) -> Group:
    """Replay `jobs` (by submit time) on `nodes` empty nodes.

    `at` is told how many jobs are done; `watch` sees the group at every instant before anything changes.
    """
    group, decide = Group(NodeGroup(nodes)), _DECIDE[policy]
    by_duration = policy in ("sjf", "srtf")
    arrived, wake = 0, math.inf
    while arrived < len(jobs) or group.pending or group.running:
        arrival = jobs[arrived].submit_s if arrived < len(jobs) else math.inf
        now = int(min(arrival, group.next_end(), wake))
        watch(now, group)
        group.finish(now)
        while arrived < len(jobs) and jobs[arrived].submit_s == now:
            job = jobs[arrived]
            key = job.duration_s if by_duration else job.submit_s
            insort(group.pending, (key, arrived, Live(job, arrived, job.duration_s)))
            arrived += 1
        wake = decide(group, now)
        at(len(group.done))
    return group
