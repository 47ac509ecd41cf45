"""What queues and users have used lately: GPU-time that counts half after one half-life.

Usage is the integral of what is occupied, in milli-GPU x ms, and is decayed in steps: 1,024 ticks of a fixed grid make a half-life.
Between two ticks it is a plain sum, so it does not matter at which instants somebody looked. Weights and orders use the value of the last
tick (`pull` of a queue, `user_step` of a job), so that they move at ticks only; who is owed a device that cannot be divided goes by `usage`
itself, and moves only what nobody holds. A job that holds GPUs idly within its quota is not ended for it: its time counts more than once
(*idle debt*), and its queue's claim on the next such device falls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat_scheduler.core.book import JobRec

if TYPE_CHECKING:
    from heliostat_scheduler.core.state import State

TICKS = 1024
SHIFT = 32
KEEP = 4_292_061_010
"""2 ** (-1/1024) in units of 2 ** -32."""

FORGOTTEN = 40
"""Half-lives after which nothing is left."""

USER_UNIT = 1000 * 60_000
"""One GPU-minute: a user's usage below it is step 0; each doubling is one step more."""


def tick_ms(state: State) -> int:
    return max(1, state.policy.usage_half_life_ms // TICKS)


def advance(state: State, now_ms: int) -> None:
    """Count what was occupied until now."""
    if now_ms <= state.usage_at:
        return
    half_life = state.policy.usage_half_life_ms
    if half_life <= 0 or not _anything(state) or now_ms - state.usage_at > FORGOTTEN * half_life:
        _forget(state)
        state.usage_at = now_ms
        return
    step = tick_ms(state)
    while state.usage_at < now_ms:
        tick = (state.usage_at // step + 1) * step
        end = min(now_ms, tick)
        _add(state, end - state.usage_at)
        state.usage_at = end
        if end == tick:
            _decay(state)


def _anything(state: State) -> bool:
    nodes = state.book.tree.by_name.values()
    return bool(state.book.holding) or bool(state.user_usage) or any(node.usage for node in nodes)


def _forget(state: State) -> None:
    for node in state.book.tree.by_name.values():
        if node.usage or node.pull:
            node.usage, node.pull = {}, {}
    state.user_usage = {}


def _add(state: State, passed_ms: int) -> None:
    for node in state.book.tree.by_name.values():
        for key, amount in node.used.items():
            if amount:
                node.usage[key] = node.usage.get(key, 0) + amount * passed_ms
    for owner, amount in state.book.user_used.items():
        if amount:
            state.user_usage[owner] = state.user_usage.get(owner, 0) + amount * passed_ms
    if state.policy.idle_debt:
        for job_id in state.idle:
            rec = state.book.jobs[job_id]
            idle_ms = min(passed_ms, rec.idle_until - state.usage_at)
            if idle_ms > 0:
                _charge(state, rec, idle_ms * state.policy.idle_debt)


def _charge(state: State, rec: JobRec, weighted_ms: int) -> None:
    for key, amount in rec.counted[0]:
        for node in state.book.leaf_of(rec).chain:
            node.usage[key] = node.usage.get(key, 0) + amount * weighted_ms


def _decay(state: State) -> None:
    for node in state.book.tree.by_name.values():
        if node.usage or node.pull:
            node.usage = {key: left for key, amount in node.usage.items() if (left := amount * KEEP >> SHIFT)}
            node.pull = node.usage.copy()
    state.user_usage = {owner: left for owner, amount in state.user_usage.items() if (left := amount * KEEP >> SHIFT)}
    _reorder(state)


def user_step(state: State, queue: str, user: str) -> int:
    """How much this user has used in this queue, on a scale where each doubling is one step."""
    return state.user_steps.get((queue, user), 0)


def _reorder(state: State) -> None:
    """Users whose step has moved: their waiting jobs find their new place."""
    if not state.policy.user_fairness:
        return
    steps = {owner: step for owner, used in state.user_usage.items() if (step := (used // USER_UNIT).bit_length())}
    moved = {owner for owner in {*steps, *state.user_steps} if steps.get(owner) != state.user_steps.get(owner)}
    state.user_steps = steps
    if not moved:
        return
    for job_id in sorted(state.book.jobs):
        rec = state.book.jobs[job_id]
        owner = (rec.spec.queue, rec.spec.user)
        if owner in moved:
            rec.user_step = steps.get(owner, 0)
            state.book.touched.add(job_id)
            if job_id in state.waiting.keys:
                state.waiting.rekey(rec, state.order_key(rec, state.usage_at))
                state.stale = True
