"""Refuses layouts that break Python or Ray in ways that are hard to trace (see docs/decisions/0001-layout.md).

Run as `python -m tests.layout_guard`; prints every finding and exits 1 if there is one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = {
    "scheduler": "heliostat_scheduler",
    "jobs": "heliostat_jobs",
    "serving": "heliostat_serving",
    "platform": "heliostat",
}
VAGUE_NAMES = {"utils", "helpers", "common", "manager", "misc"}
TOP_LEVEL = {
    "README.md",
    "pyproject.toml",
    "cluster.yaml",
    "Makefile",
    "constraints.txt",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
}


def findings(root: Path, files: list[str]) -> list[str]:
    """One sentence for each broken rule among `files` (paths relative to `root`)."""
    paths = [Path(name) for name in files]
    problems = [f"{name} is missing at the top level" for name in sorted(TOP_LEVEL) if not (root / name).exists()]
    for path in paths:
        problems += _about_source_root(path)
        if path.suffix == ".py":
            problems += _about_module(path)
    return problems


def _about_source_root(path: Path) -> list[str]:
    package = SOURCE_ROOTS.get(path.parts[0])
    if package is None or len(path.parts) < 2:
        return []
    if path.parts == (path.parts[0], "__init__.py"):
        return [
            f"{path}: no source root gets an __init__.py; platform/__init__.py shadows Python's own platform module"
        ]
    if path.parts[1] != package:
        return [f"{path}: {path.parts[0]}/ holds exactly one package, {package}"]
    return []


def _about_module(path: Path) -> list[str]:
    problems = []
    is_test = path.name.startswith("test_") or path.name in {"conftest.py"}
    if is_test and path.parts[0] != "tests":
        problems.append(f"{path}: tests live in tests/ only")
    if path.parts[0] in SOURCE_ROOTS and path.stem in VAGUE_NAMES:
        problems.append(f"{path}: name the file after its idea, not {path.stem}")
    if path.parts[0] in SOURCE_ROOTS and path.stem in sys.stdlib_module_names and len(path.parts) == 2:
        problems.append(f"{path}: shadows the standard library's {path.stem}")
    if path.name == "conftest.py" and len(path.parts) == 1:
        problems.append(f"{path}: fixtures live under tests/")
    return problems


def tracked_files(root: Path) -> list[str]:
    """What git tracks or would add, relative to `root`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    return [line for line in listed.stdout.splitlines() if (root / line).exists()]


def main() -> int:
    problems = findings(ROOT, tracked_files(ROOT))
    for problem in problems:
        print(problem)
    print(f"layout: {len(problems)} findings")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
