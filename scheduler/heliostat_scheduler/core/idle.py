"""Active, suspect, idle: what measured GPU activity and the job's own progress say about a lease.

Low activity *without* progress for a while makes a job suspect, for longer idle. Progress, or activity above the high mark, makes it
active at once; activity between the marks changes nothing, so a signal around a mark does not flap. No reading means unknown, never
idle; a reading is good for two windows. A pause of ours (start, resize) is not the job's idleness.

Being idle has consequences only while somebody waits: surplus of an idle job, and an idle job above its queue's quota as a whole, may be
asked for first, by an equal class too. Idle work inside its quota keeps its GPUs; its queue pays (`usage`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec, Phase
from heliostat_scheduler.core.events import Utilized
from heliostat_scheduler.core.model import Policy

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

ACTIVE, SUSPECT, IDLE = "", "suspect", "idle"
WINDOWS_VALID = 2


def observe(state: State, rec: JobRec, event: Utilized, now_ms: int) -> None:
    """One window of telemetry."""
    policy = state.policy
    before = rec.idle_state
    activity = event.activity_permille
    if rec.phase is not Phase.RUNNING or activity is None or event.progressed or activity >= policy.idle_high_permille:
        reset(state, rec)
    else:
        rec.idle_until = now_ms + WINDOWS_VALID * event.window_ms
        if activity <= policy.idle_low_permille:
            _low(policy, rec, event.window_ms, now_ms)
    (state.idle.add if rec.idle_state == IDLE else state.idle.discard)(rec.id)
    state.book.touched.add(rec.id)
    if rec.idle_state == IDLE and before != IDLE:
        rec.idle_since = now_ms
        state.book.bump(rec)
        state.stale = True


def _low(policy: Policy, rec: JobRec, window_ms: int, now_ms: int) -> None:
    settled = max(rec.running_at, rec.resized_at) + policy.idle_warmup_ms
    if rec.low_since == 0:
        rec.low_since = max(now_ms - window_ms, settled, 1)
    lasted = now_ms - rec.low_since
    if lasted >= policy.idle_after_ms:
        rec.idle_state = IDLE
    elif lasted >= policy.suspect_after_ms and rec.idle_state == ACTIVE:
        rec.idle_state = SUSPECT


def reset(state: State, rec: JobRec) -> None:
    """Active, or nothing is known."""
    rec.idle_state, rec.low_since, rec.idle_since, rec.idle_until = ACTIVE, 0, 0, 0
    state.idle.discard(rec.id)


def is_idle(rec: JobRec, now_ms: int) -> bool:
    """Whether the job counts as idle now: found idle, and the last reading is not too old."""
    return rec.idle_state == IDLE and rec.phase is Phase.RUNNING and now_ms <= rec.idle_until
