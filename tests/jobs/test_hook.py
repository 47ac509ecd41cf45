"""The import hook: nothing outside a job, nothing but itself inside one, and a patch before anybody can take a name."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PTH = ROOT / "jobs/heliostat_jobs/boot/heliostat.pth"
BUDGET_MS = 2.0

LOADED = "import sys, json; print(json.dumps(sorted(m for m in sys.modules if m.split('.')[0] in ('heliostat_jobs', 'ray', 'heliostat_scheduler'))))"
COST = """
import os, sys, time
os.environ["HELIOSTAT_JOB"] = "job-1"
started = time.perf_counter()
exec(open(sys.argv[1]).read())
print((time.perf_counter() - started) * 1000)
"""


def python(code: str, *args: str, executable: str = sys.executable, **environment: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("HELIOSTAT_")} | environment
    done = subprocess.run(
        [executable, "-c", code, *args], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_outside_a_job_nothing_is_loaded() -> None:
    assert json.loads(python(LOADED)) == []


def test_inside_a_job_only_the_hook_is_loaded() -> None:
    assert json.loads(python(LOADED, HELIOSTAT_JOB="job-1")) == [
        "heliostat_jobs",
        "heliostat_jobs.boot",
        "heliostat_jobs.boot.hook",
    ]


def test_a_command_is_left_alone() -> None:
    finders = "import sys; print(type(sys.meta_path[0]).__name__)"
    assert python(finders, HELIOSTAT_JOB="job-1").strip() == "PatchFinder"
    assert python(finders, HELIOSTAT_JOB="job-1", HELIOSTAT_KIND="command").strip() != "PatchFinder"


def test_a_child_of_a_shell_line_is_covered() -> None:
    finders = "import sys; print([type(f).__name__ for f in sys.meta_path][0])"
    env = {**os.environ, "HELIOSTAT_JOB": "job-1"}
    line = ["sh", "-c", f"true && '{sys.executable}' -c '{finders}'"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "PatchFinder"


def test_the_hook_costs_less_than_two_milliseconds(tmp_path: Path) -> None:
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}  # as pip leaves an installed wheel
    costs = [float(python(COST, str(PTH), **compiled)) for _ in range(6)]
    assert min(costs) < BUDGET_MS, costs


def test_the_patch_runs_before_the_importer_can_take_a_name(tmp_path: Path) -> None:
    (tmp_path / "watched_module.py").write_text("def greet():\n    return 'stock'\n")
    (tmp_path / "its_patch.py").write_text("def change(module):\n    module.greet = lambda: 'patched'\n")
    code = (
        "from heliostat_jobs.boot import hook\n"
        "hook.PATCHES['watched_module'] = ('its_patch', 'change')\n"
        "hook.install()\n"
        "from watched_module import greet\n"
        "import watched_module, inspect\n"
        "print(greet(), type(watched_module.__loader__).__name__, type(watched_module.__spec__.loader).__name__)\n"
    )
    assert python(code, PYTHONPATH=str(tmp_path)).split() == ["patched", "SourceFileLoader", "SourceFileLoader"]


def test_a_module_that_is_loaded_already_is_patched_at_once(tmp_path: Path) -> None:
    (tmp_path / "watched_module.py").write_text("VALUE = 'stock'\n")
    (tmp_path / "its_patch.py").write_text("def change(module):\n    module.VALUE = 'patched'\n")
    code = (
        "import watched_module\n"
        "from heliostat_jobs.boot import hook\n"
        "hook.PATCHES['watched_module'] = ('its_patch', 'change')\n"
        "hook.install(); hook.install()\n"
        "print(watched_module.VALUE, sum(isinstance(f, hook.PatchFinder) for f in __import__('sys').meta_path))\n"
    )
    assert python(code, PYTHONPATH=str(tmp_path)).split() == ["patched", "1"]


def test_a_patch_that_fails_fails_the_import(tmp_path: Path) -> None:
    (tmp_path / "watched_module.py").write_text("")
    (tmp_path / "its_patch.py").write_text("def change(module):\n    raise RuntimeError('another Ray')\n")
    code = (
        "from heliostat_jobs.boot import hook\n"
        "hook.PATCHES['watched_module'] = ('its_patch', 'change')\n"
        "hook.install()\n"
        "try:\n    import watched_module\n"
        "except RuntimeError as error:\n    print(error)\n"
    )
    assert python(code, PYTHONPATH=str(tmp_path)).strip() == "another Ray"


def test_the_wheel_carries_the_hook_into_a_fresh_environment(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    wheel = next(tmp_path.glob("heliostat-*.whl"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True, timeout=60)
    site_packages = next((tmp_path / "env").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    fresh = str(tmp_path / "env/bin/python")
    assert (site_packages / "heliostat.pth").read_text() == PTH.read_text()
    assert json.loads(python(LOADED, executable=fresh)) == []
    assert "heliostat_jobs.boot.hook" in json.loads(python(LOADED, executable=fresh, HELIOSTAT_JOB="job-1"))
