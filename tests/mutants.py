"""`make mutants`: how many mutants of the engine do the tests kill? `python -m tests.mutants [--number 200] [--seed 1]`

mutmut writes every mutant of every function of `heliostat_scheduler.core`; a sample is drawn by seed. The tests are collected once and
run once to learn which of them enter which function. Then each mutant gets a forked process: there the code of the one function is
exchanged, and the tests that enter it run, recorded stories first, until one fails. No file is changed. (mutmut's own runner asks for
the active mutant in every call of every function, which makes this suite ten times slower.) Left out: the Hypothesis machine and most
seeds of the random tests (slow), the deliberate faults (they are mutants themselves), and what starts other processes.

Not drawn: mutants of what never runs or says nothing: docstrings, annotations, the words of assertions that hold, `assert_never`.

The last line is one JSON object: killed, and survived, each with its change and, where tests/mutants_survivors.json knows it, the reason
why no test can or need see it. A test that takes more than twenty times its processor time (and ten seconds) is in an endless loop: the
mutant is killed, and counted apart. One that only makes everything slower survives. Exit 1 below 85 %.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import hashlib
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import pytest
from heliostat_scheduler.simulator.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "scheduler" / "heliostat_scheduler" / "core"
TESTS = (
    "tests/scheduler/test_mutants_stories.py",
    "tests/scheduler",
    "tests/simulation/test_scenarios.py",
    "tests/simulation/test_estimates.py",
)
BY_SEED = (
    "tests/scheduler/test_exhaustive.py::test_the_engine_equals_a_scheduler_that_tries_everything",
    "tests/scheduler/test_starvation.py::test_under_any_crowd_it_starts_within_the_bound",
    "tests/scheduler/test_determinism.py::test_order_of_arrival_and_names_do_not_matter",
    "tests/scheduler/test_monotone.py::test_another_gpu_takes_none_away_from_the_highest_class",
    "tests/scheduler/test_reservation.py::test_with_exact_run_times_nobody_delays_a_reservation",
    "tests/scheduler/test_invariants.py::test_a_seeded_storm",
    "tests/scheduler/test_invariants.py::test_a_seeded_wide_storm",
)
"""Of these only seed 0 takes part: the others tell a mutant nothing that costs less elsewhere."""
LEFT_OUT = (
    "--deselect=tests/scheduler/test_invariants.py::TestInvariants",
    "--deselect=tests/scheduler/test_invariants.py::TestWideInvariants",
    "--ignore=tests/scheduler/test_invariants_fail.py",
    "--deselect=tests/scheduler/test_starvation.py::test_a_deadline_that_is_not_kept_is_found",
    "--deselect=tests/scheduler/test_policy.py::test_the_hash_seed_does_not_matter",
    *(f"--deselect={test}[{digit}" for test in BY_SEED for digit in range(1, 10)),
)
REASONS = ROOT / "tests" / "mutants_survivors.json"
"""[function, change, reason]: kept by function and change, because the numbers of mutants move with every edit."""
PASS_LINE = 0.85
SLOWER, SPARE_S = 20, 10
SURVIVED, KILLED, ENDLESS = 0, 1, 2
WRITTEN = ROOT / "mutants"
"""Mutants of a module are written once for each version of it; `make clean` removes them."""


@dataclass(frozen=True)
class Mutant:
    """`function`: module.Class.name below core. `new`: the mutated definition, `old`: the original one."""

    function: str
    number: int
    old: ast.FunctionDef
    new: ast.FunctionDef

    @property
    def name(self) -> str:
        return f"{self.function} {self.number}"

    @property
    def change(self) -> str:
        """Removed lines => added lines."""
        was, now = (ast.unparse(strip(node)).splitlines() for node in (self.old, self.new))
        lines = [line for line in difflib.ndiff(was, now) if line[:1] in "+-"]
        removed, added = (" ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+")
        return f"{removed} => {added}"

    def original(self) -> FunctionType:
        module, *path = self.function.split(".")
        found: object = importlib.import_module(f"heliostat_scheduler.core.{module}")
        for part in path:
            found = vars(found)[part]
        found = getattr(found, "__func__", found)  # of static and class methods
        assert isinstance(found, FunctionType), self.function
        return found

    def exchange(self) -> None:
        """Every reference to the function runs the mutant from now on, in this process."""
        original = self.original()
        flags = annotations.compiler_flag  # as in every module of the core
        scope: dict[str, object] = dict(original.__globals__)
        exec(compile(ast.Module([strip(self.new)], []), self.name, "exec", flags), scope)
        mutant = scope["function"]
        assert isinstance(mutant, FunctionType)
        original.__code__ = mutant.__code__
        original.__defaults__, original.__kwdefaults__ = mutant.__defaults__, mutant.__kwdefaults__


class Bare(ast.NodeTransformer):
    """A definition without what never runs or says nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in ("AssertionError", "assert_never"):
            node.args = []
        return self.generic_visit(node)


def changes_nothing(old: ast.FunctionDef, new: ast.FunctionDef) -> bool:
    one, other = (ast.dump(Bare().visit(copy.deepcopy(strip(node)))) for node in (old, new))
    return one == other


def strip(node: ast.FunctionDef) -> ast.FunctionDef:
    """Without decorators (they are on the original already) and under one name."""
    bare = copy.copy(node)
    bare.name, bare.decorator_list = "function", []
    return bare


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a module, as mutmut writes them: beside each original `_orig`, the mutants 1, 2, ..."""
    tree = ast.parse(written(path))
    found: list[Mutant] = []
    originals: dict[str, ast.FunctionDef] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name:
            mangled, _, number = node.name.rpartition("__mutmut_")
            function = f"{path.stem}." + (
                mangled[1:].strip("ǁ").replace("ǁ", ".") if mangled.startswith("xǁ") else mangled[2:]
            )
            if number == "orig":
                originals[function] = node
            else:
                found.append(Mutant(function, int(number), node, node))
    made = [Mutant(m.function, m.number, originals[m.function], m.new) for m in found]
    return [mutant for mutant in made if not changes_nothing(mutant.old, mutant.new)]


def written(path: Path) -> str:
    """The module with all mutants of each function beside it."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    source = path.read_text()
    kept = WRITTEN / f"{path.stem}-{hashlib.sha256((version('mutmut') + source).encode()).hexdigest()[:16]}.py"
    if not kept.exists():
        WRITTEN.mkdir(exist_ok=True)
        kept.write_text(mutate_file_contents(str(path), source).code)
    return kept.read_text()


def all_mutants() -> list[Mutant]:
    """Of all modules of the core. mutmut looks for its settings in the current folder, and wants some."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text('[tool.mutmut]\nsource_paths = ["."]\n')
        os.chdir(folder)
        paths = sorted(CORE.glob("*.py"))
        found: list[Mutant] = []
        with Progress("writing mutants", len(paths)) as bar:
            for path in paths:
                found += mutants_of(path)
                bar.at(paths.index(path))
        os.chdir(ROOT)
    return found


class Runner:
    """A pytest plugin in whose test loop the mutants are tried."""

    def __init__(self, chosen: list[Mutant], minutes: float) -> None:
        self.chosen = chosen
        self.minutes = minutes
        self.survived: list[Mutant] = []
        self.endless = 0
        self.tried = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        codes = {mutant.original().__code__ for mutant in self.chosen}
        began = time.monotonic()
        seen_by, took = self.look(session, codes)
        if session.testsfailed:
            raise SystemExit("the tests fail without any mutant")
        print(f"{len(session.items)} tests looked at in {time.monotonic() - began:.0f} s", file=sys.stderr)
        with Progress("mutants", len(self.chosen)) as bar:
            for mutant in self.chosen:
                if time.monotonic() - began > self.minutes * 60:
                    break
                items = seen_by.get(mutant.original().__code__, [])
                items.sort(key=lambda item: ("test_mutants_stories" not in item.nodeid, took[item.nodeid]))
                end = self.fork(session, mutant, items, took) if items else SURVIVED
                if end == SURVIVED:
                    self.survived.append(mutant)
                self.endless += end == ENDLESS
                self.tried += 1
                bar.at(self.tried)
        return True

    def look(
        self, session: pytest.Session, codes: set[CodeType]
    ) -> tuple[dict[CodeType, list[pytest.Item]], dict[str, float]]:
        """Run everything once: which tests enter which function, and how long each takes."""
        seen_by: dict[CodeType, list[pytest.Item]] = {}
        took: dict[str, float] = {}
        for item in session.items:
            seen: set[CodeType] = set()
            began = time.process_time()
            sys.setprofile(recorder(codes, seen))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            sys.setprofile(None)
            took[item.nodeid] = time.process_time() - began
            for code in seen:
                seen_by.setdefault(code, []).append(item)
        return seen_by, took

    def fork(self, session: pytest.Session, mutant: Mutant, items: list[pytest.Item], took: dict[str, float]) -> int:
        """SURVIVED, KILLED (a failed test or a crash) or ENDLESS."""
        child = os.fork()
        if child == 0:
            try:
                os._exit(fate(session, mutant, items, took))
            finally:  # whatever got out of the tests
                os._exit(KILLED)
        status = os.waitpid(child, 0)[1]
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else KILLED


def fate(session: pytest.Session, mutant: Mutant, items: list[pytest.Item], took: dict[str, float]) -> int:
    silence()
    signal.signal(signal.SIGPROF, lambda *_: os._exit(ENDLESS))
    mutant.exchange()
    for item in items:
        signal.setitimer(signal.ITIMER_PROF, SPARE_S + SLOWER * took[item.nodeid])
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        if session.testsfailed:
            return KILLED
    return SURVIVED


def recorder(codes: set[CodeType], seen: set[CodeType]) -> Callable[[FrameType, str, object], None]:
    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in codes:
            seen.add(frame.f_code)

    return record


def silence() -> None:
    """What a mutant prints is of no interest."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", nargs="+", default=list(TESTS), help="other tests than the usual ones")
    parser.add_argument(
        "--minutes", type=float, default=24 * 60, help="stop after so long with the mutants tried so far"
    )
    options = parser.parse_args()
    everything = all_mutants()
    chosen = random.Random(options.seed).sample(everything, min(options.number, len(everything)))
    runner = Runner(chosen, options.minutes)
    pytest.main(
        [*options.tests, *LEFT_OUT, "-q", "--no-header", "-p", "no:cacheprovider"],
        plugins=[runner],
    )
    if not runner.tried:
        raise SystemExit("the tests could not be run")
    reasons = {(function, change): why for function, change, why in json.loads(REASONS.read_text())}
    survived = [
        {"mutant": m.name, "change": m.change, "reason": reasons.get((m.function, m.change), "none on file")}
        for m in sorted(runner.survived, key=lambda mutant: mutant.name)
    ]
    share = 1 - len(survived) / runner.tried
    found = {
        "mutants": len(everything),
        "drawn": len(chosen),
        "tried": runner.tried,
        "seed": options.seed,
        "killed": runner.tried - len(survived),
        "killed_in_an_endless_loop": runner.endless,
    }
    print(json.dumps(found | {"killed_share": round(share, 3), "survived": survived}))
    return 0 if share >= PASS_LINE else 1


if __name__ == "__main__":
    sys.exit(main())
