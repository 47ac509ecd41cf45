"""`make mutants`: how many mutants of the engine do the tests kill? `python -m tests.mutants [--number 200] [--seed 1]`

mutmut writes every mutant of `heliostat_scheduler.core`; a sample drawn by seed is run against the engine's unit tests and the shared
scenarios, each in a forked process. mutmut notes which tests enter which function, so that a mutant meets only the tests that can see
it. Left out: the random state machine (other examples in every run) and the test that starts other processes. It works on a copy in a
temporary folder, so the working tree is never touched. The last line is one JSON object: killed, survived (each with its change and,
where tests/mutants_survivors.json knows it, the reason why no test can or need see it); timeouts count as killed. Exit 1 below 85 %.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = {
    "scheduler/heliostat_scheduler": "heliostat_scheduler",  # at the top: mutmut names mutants after paths
    "platform/heliostat": "heliostat",  # the tests of remedies parse commands with helio itself
    "jobs/heliostat_jobs": "heliostat_jobs",
    "tests/scheduler": "tests/scheduler",
    "tests/simulation": "tests/simulation",
}
REASONS = ROOT / "tests" / "mutants_survivors.json"
"""[function, change, reason]: kept by function and change, because the numbers of mutants move with every edit."""
PASS_LINE = 0.85
SURVIVED = 0
NO_TESTS = 33
TIMED_OUT = (24, -24, 36, 152, 255)
MUTMUT = str(Path(sys.executable).parent / "mutmut")
CONFIG = """
[tool.mutmut]
source_paths = ["heliostat_scheduler"]
only_mutate = ["heliostat_scheduler/core/*"]
pytest_add_cli_args_test_selection = ["tests/scheduler", "tests/simulation/test_scenarios.py"]
pytest_add_cli_args = [
  "-p", "no:cacheprovider", "--ignore=tests/scheduler/test_invariants.py",
  "--deselect=tests/scheduler/test_policy.py::test_the_hash_seed_does_not_matter",
]
also_copy = ["heliostat", "heliostat_jobs"]
use_git_change_detection = false
track_dependencies = false

[tool.pytest.ini_options]
addopts = "--import-mode=importlib"
pythonpath = ["."]
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1, help="mutants tested at a time")
    parser.add_argument(
        "--folder", type=Path, help="work here and keep it: a run that was cut off goes on where it was"
    )
    parser.add_argument("--batch", type=int, default=10**6, help="test at most this many now; exit 3 if some are left")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="heliostat-mutants-"))
    try:
        if not (folder / "mutants").is_dir():
            copy_to(folder)
            run_mutmut(folder, ["no_such_mutant"], 1)  # writes all mutants, runs none
        names = sorted(exit_codes(folder))
        chosen = sorted(random.Random(options.seed).sample(names, min(options.number, len(names))))
        todo = [name for name in chosen if exit_codes(folder)[name] is None][: options.batch]
        if todo:
            run_mutmut(folder, todo, options.children)
        codes = {name: code for name, code in exit_codes(folder).items() if name in set(chosen)}
        if all(codes[name] is None for name in todo or chosen):
            raise SystemExit(f"mutmut ran no mutant:\n{(folder / 'mutmut.log').read_text()[-3000:]}")
        return report(folder, len(names), options.seed, codes)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


def report(folder: Path, mutants: int, seed: int, codes: dict[str, int | None]) -> int:
    """Print the result so far; the exit status of the command."""
    tested = {name: code for name, code in codes.items() if code is not None}
    survivors = [survivor(folder, name) for name, code in sorted(tested.items()) if code in (SURVIVED, NO_TESTS)]
    share = 1 - len(survivors) / len(tested)
    found = {
        "mutants": mutants,
        "drawn": len(codes),
        "seed": seed,
        "tested": len(tested),
        "timeouts": sum(code in TIMED_OUT for code in tested.values()),
        "killed": len(tested) - len(survivors),
        "killed_share": round(share, 3),
        "survived": survivors,
    }
    print(json.dumps(found))
    if len(tested) < len(codes):
        return 3
    return 0 if share >= PASS_LINE else 1


def copy_to(folder: Path) -> None:
    for source, target in COPIED.items():
        shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(CONFIG)


def survivor(folder: Path, name: str) -> dict[str, str]:
    """Name, function, change (removed lines => added lines) and the reason on file."""
    shown = subprocess.run([MUTMUT, "show", name], cwd=folder, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    old, new = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    found = {"name": name, "function": function_of(name), "change": f"{old} => {new}"}
    reasons = {(function, change): why for function, change, why in json.loads(REASONS.read_text())}
    return found | {"reason": reasons.get((found["function"], found["change"]), "none on file")}


def function_of(name: str) -> str:
    """heliostat_scheduler.core.space.xǁSpaceǁcopy__mutmut_3 -> space.Space.copy"""
    module, _, rest = name.removeprefix("heliostat_scheduler.core.").partition(".x")
    return f"{module}." + re.sub(r"__mutmut_\d+$", "", rest).strip("_ǁ").replace("ǁ", ".")


def run_mutmut(folder: Path, names: list[str], children: int) -> None:
    """mutmut's own exit code says little (1 also when mutants survive); its results are in the .meta files."""
    command = [MUTMUT, "run", "--max-children", str(children), *names]
    path = str(folder / "mutants")
    with (folder / "mutmut.log").open("w") as log:
        subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not any((folder / "mutants").rglob("*.meta")):
        raise SystemExit(f"mutmut wrote no mutants:\n{(folder / 'mutmut.log').read_text()[-3000:]}")


def exit_codes(folder: Path) -> dict[str, int | None]:
    """Mutant name -> exit code of its test run; None when it was not run."""
    codes: dict[str, int | None] = {}
    for meta in sorted((folder / "mutants").rglob("*.meta")):
        codes |= json.loads(meta.read_text())["exit_code_by_key"]
    return codes


if __name__ == "__main__":
    sys.exit(main())
