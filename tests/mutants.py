"""`make mutants`: how many mutants of the engine do the tests kill? `python -m tests.mutants [--number 200] [--seed 1]`

mutmut writes every mutant of `heliostat_scheduler.core`; a sample drawn by seed is run against the engine's unit tests and the shared
scenarios, each in a forked process. It works on a copy in a temporary folder, so the working tree is never touched. The last line is one
JSON object: killed, survived (names), timeouts count as killed. Exit 1 below 85 %.
"""

from __future__ import annotations

import argparse
import json
import os
import random
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
PASS_LINE = 0.85
SURVIVED = 0
NO_TESTS = 33
CONFIG = """
[tool.mutmut]
source_paths = ["heliostat_scheduler"]
only_mutate = ["heliostat_scheduler/core/*"]
pytest_add_cli_args_test_selection = ["tests/scheduler", "tests/simulation/test_scenarios.py"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
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
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="heliostat-mutants-"))
    try:
        copy_to(folder)
        run_mutmut(folder, ["no_such_mutant"])  # writes all mutants, runs none
        names = sorted(exit_codes(folder))
        chosen = sorted(random.Random(options.seed).sample(names, min(options.number, len(names))))
        run_mutmut(folder, chosen)
        codes = exit_codes(folder)
        if all(codes[name] is None for name in chosen):
            raise SystemExit(f"mutmut ran no mutant:\n{(folder / 'mutmut.log').read_text()[-3000:]}")
        survivors = [name for name in chosen if codes[name] in (None, SURVIVED, NO_TESTS)]
    finally:
        shutil.rmtree(folder)
    killed = len(chosen) - len(survivors)
    share = killed / len(chosen)
    print(
        json.dumps(
            {
                "mutants": len(names),
                "drawn": len(chosen),
                "seed": options.seed,
                "killed": killed,
                "killed_share": round(share, 3),
                "survived": survivors,
            }
        )
    )
    return 0 if share >= PASS_LINE else 1


def copy_to(folder: Path) -> None:
    for source, target in COPIED.items():
        shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text(CONFIG)


def run_mutmut(folder: Path, names: list[str]) -> None:
    """mutmut's own exit code says little (1 also when mutants survive); its results are in the .meta files."""
    command = [str(Path(sys.executable).parent / "mutmut"), "run", *names]
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
