"""What `explain` advises works: for every code that a waiting job can have, in the words that a person would type.

APPLY: the first remedy's command is read by the parser of the real `helio`, turned into the events that the control plane would send,
and the job starts within one cycle: in the next plan, or, if others are told to leave, in the plan right after they have left. Exactly
the jobs that the remedy names lose GPUs. WAIT: the clock is set to the time that was told, nothing else happens, and the job starts.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from heliostat_scheduler import core
from heliostat_scheduler.core import (
    PRIORITY_CLASSES,
    Explanation,
    JobSpec,
    ReasonCode,
    Remedy,
    RemedyKind,
)
from heliostat_scheduler.core import events as ev

from tests.scheduler.typed import starts, typed
from tests.scheduler.waiting import (
    APPLY,
    CODE,
    ME,
    WAIT,
    Build,
    Row,
    cpu_job,
    cpu_world,
    failed_start,
    fixed,
    me,
    runs,
    waits,
    world,
)  # fmt: skip
from tests.scheduler.world import FIXED, World, job, node, queue


def told(made: World) -> Explanation:
    before = made.engine.digest(), made.engine.snapshot()
    explanation = made.engine.explain(ME, made.now)
    assert (made.engine.digest(), made.engine.snapshot()) == before, "an explanation changes nothing"
    return explanation


# -- codes whose remedy somebody can apply


def rows(table: list[Row]) -> list[ParameterSet]:
    return [pytest.param(code, build, id=f"{code}: {name}") for name, code, build in table]


@pytest.mark.parametrize(("code", "build"), rows(APPLY))
def test_the_first_remedy_starts_the_job(code: ReasonCode, build: Build) -> None:
    made = build()
    explanation = told(made)
    assert explanation.reason.code is code, explanation.reason
    assert explanation.reason == made.engine.reason(ME)
    first = explanation.remedies[0]
    assert first.kind is RemedyKind.APPLY and first.command, explanation.remedies
    typed(made, first.command)
    assert starts(made, ME) == set(first.evicts), first


@pytest.mark.parametrize(("code", "build"), rows(APPLY))
def test_every_other_remedy_with_a_command_works_too(code: ReasonCode, build: Build) -> None:
    for index, remedy in enumerate(told(build()).remedies):
        if remedy.command:
            made = build()
            assert told(made).remedies[index] == remedy, "the same world, the same advice"
            typed(made, remedy.command)
            assert starts(made, ME) == set(remedy.evicts), remedy


@pytest.mark.parametrize(("code", "build"), rows(APPLY))
def test_whom_it_disturbs_least_comes_first(code: ReasonCode, build: Build) -> None:
    typeable = [remedy for remedy in told(build()).remedies if remedy.command]
    assert [bool(remedy.evicts) for remedy in typeable] == sorted(bool(remedy.evicts) for remedy in typeable)


@pytest.mark.parametrize(("code", "build"), rows(APPLY))
def test_nobody_else_is_cancelled_while_a_change_of_the_job_would_do(code: ReasonCode, build: Build) -> None:
    first = told(build()).remedies[0]
    if "helio cancel" not in first.command:
        return
    prefix = [part for part in first.command.split(" && ") if "cancel" not in part]
    for spec in _changes(build().specs[ME], build()):
        made = build()
        for part in prefix:
            typed(made, part)
        base = made.specs[ME]
        made.specs[ME] = replace(
            base, queue=spec.queue, priority=spec.priority, min_tasks=spec.min_tasks, max_tasks=spec.max_tasks
        )
        made.apply(ev.JobChanged(made.specs[ME]))
        made.step()
        made.step()
        assert not made.runs(ME), f"{spec} would have done"


def _changes(spec: JobSpec, made: World) -> Iterator[JobSpec]:
    """Every size, in every queue, of every class, all together."""
    leaves = [leaf.name for leaf in made.engine.state.book.tree.leaves]
    for size in range(1, min(spec.min_tasks, 4) + 1):
        for name in leaves:
            for priority in (spec.priority, *PRIORITY_CLASSES.values()):
                yield replace(spec, min_tasks=size, max_tasks=size, queue=name, priority=priority)


# -- codes that time resolves


@pytest.mark.parametrize(("code", "build"), rows(WAIT))
def test_it_starts_at_the_time_told(code: ReasonCode, build: Build) -> None:
    made = build()
    explanation = told(made)
    assert explanation.reason.code is code, explanation.reason
    first = explanation.remedies[0]
    assert first.kind is RemedyKind.WAIT and first.at_ms is not None
    assert explanation.estimated_start_ms == first.at_ms
    if code in (CODE.WAITING_FOR_VICTIMS, CODE.PENDING_EVALUATION):
        made.decide()  # the plan that the explanation is about
        made.now = first.at_ms
        made.answer_all()
    elif first.at_ms > made.now:
        made.now = first.at_ms - 1
        made.settle()
        assert not made.runs(ME), "not before"
        wakeup = made.engine.next_wakeup_ms()
        assert wakeup is not None and wakeup <= first.at_ms, "nobody would look at it then"
        made.now = first.at_ms
    starts(made, ME)


def test_a_time_after_which_it_would_still_wait_is_no_promise() -> None:
    made = failed_start(world())
    runs(made, fixed("a", 4))
    explanation = told(made)
    assert explanation.reason.code is CODE.BACKOFF and explanation.estimated_start_ms is None
    first = explanation.remedies[0]
    assert first.at_ms == explanation.reason.until_ms
    assert "needs 1 GPU, 0 GPU free" in first.text


# -- codes that an event resolves


def test_a_predecessor_succeeds() -> None:
    made = waits(runs(world(), job("a")), me(dependencies=("a",)))
    explanation = told(made)
    assert explanation.reason.code is CODE.DEPENDENCY_WAIT and explanation.reason.blockers == ("a",)
    assert [(remedy.kind, remedy.command) for remedy in explanation.remedies] == [(RemedyKind.WAIT, "")]
    made.finish("a")
    assert starts(made, ME) == set()


def test_the_first_node_joins() -> None:
    made = waits(world(nodes=[]), me())
    explanation = told(made)
    assert explanation.reason.code is CODE.NO_CAPACITY_YET
    assert [remedy.kind for remedy in explanation.remedies] == [RemedyKind.WAIT]
    made.node_up(node("n0"))
    assert starts(made, ME) == set()


# -- nothing is left out

DECIDED = {
    CODE.PLACED, CODE.GREW, CODE.SHRUNK_FOR, CODE.RECLAIMED_FOR, CODE.PREEMPTED_FOR, CODE.ROTATED_FOR, CODE.MIGRATED_FOR,
    CODE.IDLE, CODE.STARVED_FOR, CODE.ASKED_BACK_FOR, CODE.CANCEL_REQUESTED, CODE.TIME_LIMIT, CODE.NODE_LOST, CODE.DRAINED,
}  # fmt: skip
"""Reasons of decisions about jobs that hold GPUs: nobody waits for them."""

ELSEWHERE = {CODE.NODE_JOINING}
"""Reasons of work that waits for nodes on their way: tests/scheduler/test_fleet.py has them."""

NOT_YET: set[ReasonCode] = set()
"""Named for what is to come: nothing at present."""


def test_every_code_that_a_waiting_job_can_have_is_in_a_table() -> None:
    tried = {code for _, code, _ in (*APPLY, *WAIT)}
    assert tried | DECIDED | ELSEWHERE | NOT_YET == set(ReasonCode)
    assert not tried & DECIDED and not tried & NOT_YET


def test_what_is_said_to_come_later_is_not_emitted_yet() -> None:
    assert emitted() & NOT_YET == set()
    assert emitted() >= {code for _, code, _ in (*APPLY, *WAIT)} | DECIDED


def emitted() -> set[ReasonCode]:
    """Codes that the engine's source makes reasons of: every `ReasonCode.X` outside the list itself and the sets of codes."""
    folder = Path(inspect.getfile(core)).parent
    found: set[ReasonCode] = set()
    for path in sorted(folder.glob("*.py")):
        if path.name in ("reasons.py", "trial.py"):
            continue
        for part in ast.walk(ast.parse(path.read_text())):
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "ReasonCode":
                found.add(ReasonCode[part.attr])
    return found


def test_when_nothing_that_was_tried_starts_it_the_first_step_says_so() -> None:
    made = waits(runs(world(gpus=(10,)), *(fixed(f"a{i}") for i in range(10))), me(11))
    explanation = told(made)
    assert explanation.reason.code is CODE.NEVER_FITS
    first = explanation.remedies[0]
    assert first.command == f"helio edit {ME} --gpus 10"
    assert first.text == "ask for 10 GPU; it would then wait: needs 10 GPU, 0 GPU free, 10 GPU short"


def test_an_added_node_is_named_last_and_has_no_command() -> None:
    remedies: tuple[Remedy, ...] = told(waits(runs(world(), fixed("a", 4)), me())).remedies
    assert [remedy.action for remedy in remedies] == ["cancel_other", "add_nodes", "wait"]
    assert remedies[1].command == ""


@pytest.mark.parametrize(
    ("made", "command"),
    [
        pytest.param(
            lambda: waits(world(queue("default", 0), queue("other", 2)), me(2, preemptibility=FIXED)),
            "helio edit me --preemptibility preemptible", id="nothing is guaranteed to fixed work",
        ),
        pytest.param(lambda: waits(cpu_world(8, limit=5), cpu_job(ME, 7)), "helio edit me --cpus 5", id="a limit of CPUs"),
        pytest.param(
            lambda: waits(runs(cpu_world(4), cpu_job("a", 4, preemptibility=FIXED)), cpu_job(ME, 16)),
            "helio edit me --cpus 4 && helio cancel a", id="more CPUs than a node that is taken",
        ),
    ],
)  # fmt: skip
def test_what_never_fits_is_offered_the_least_change(made: Build, command: str) -> None:
    assert told(made()).remedies[0].command == command
