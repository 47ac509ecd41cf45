"""A process counts its own tasks without holding all of their results."""

from __future__ import annotations

from collections.abc import Sequence

from heliostat_jobs.slots.open_tasks import WATCHED, OpenTasks

A, B = "n/0", "n/1"


class Looks:
    """Ray, as far as `over` asks: what is there, and how many references were looked at."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.looked_at: list[int] = []

    def __call__(self, refs: Sequence[str]) -> list[str]:
        self.looked_at.append(len(refs))
        return [ref for ref in refs if ref in self.there]


def test_a_task_counts_until_its_result_is_there() -> None:
    tasks, looks = OpenTasks(), Looks()
    for token in (1, 2):
        tasks.add(token, A, f"ref-{token}")
    assert tasks.over(looks) == []
    looks.there = {"ref-2"}
    assert tasks.over(looks) == [2]
    looks.there = {"ref-1", "ref-2"}
    assert tasks.over(looks) == [1]
    assert tasks.over(looks) == []


def test_no_more_references_are_held_or_looked_at_than_some_hundred() -> None:
    tasks, looks = OpenTasks(), Looks()
    for token in range(1, 5001):
        tasks.add(token, A, f"ref-{token}")
        tasks.over(looks)
    assert max(looks.looked_at) == WATCHED == len(tasks._watched)


def test_older_tasks_of_the_slot_are_over_when_a_watched_one_is() -> None:
    tasks, looks = OpenTasks(), Looks()
    last = WATCHED + 4
    for token in range(1, last + 1):
        tasks.add(token, A if token % 2 else B, f"ref-{token}")
    looks.there = {f"ref-{token}" for token in range(1, WATCHED + 1)}
    assert tasks.over(looks) == list(range(1, WATCHED + 1))
    tasks.add(last + 1, A, "newest")
    looks.there.add("newest")
    assert tasks.over(looks) == [last + 1, last - 3, last - 1], "those in the other slot stay open"


def test_a_stream_longer_than_what_is_watched_leaves_no_trail() -> None:
    """Always 500 tasks wait in one slot; 3,000 pass through it in order."""
    tasks, done, open_now = OpenTasks(), 0, []
    for token in range(1, 3001):
        tasks.add(token, A, token)
        done += len(tasks.over(lambda refs, newest=token - 500: [ref for ref in refs if ref <= newest]))  # type: ignore[misc]
        open_now.append(token - done)
    assert max(open_now) <= 1000, "twice what really waits, and not more with time"
