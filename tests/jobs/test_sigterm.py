"""A driver inside fit() ends at once on SIGTERM, with what it printed; a script's own handler stays."""

import subprocess
import sys

CODE = """
import os, signal, sys
from heliostat_jobs.train.sigterm import ended_at_once
{setup}
sys.stdout.write("before ")
with ended_at_once():
    os.kill(os.getpid(), signal.SIGTERM)
    signal.sigtimedwait([], 5)
print("after")
"""


def run(setup: str = "") -> subprocess.CompletedProcess[str]:
    code = CODE.format(setup=setup)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_it_ends_at_once_and_loses_no_line() -> None:
    done = run("import atexit; atexit.register(print, 'slow')")
    assert (done.returncode, done.stdout) == (143, "before ")


def test_rays_handler_gives_way() -> None:
    setup = "def handler(*_): sys.exit(15)\nhandler.__module__ = 'ray._private.worker'\nsignal.signal(signal.SIGTERM, handler)"
    assert run(setup).returncode == 143


def test_the_scripts_own_handler_stays() -> None:
    done = run("signal.signal(signal.SIGTERM, lambda *_: print('mine ', end=''))")
    assert (done.returncode, done.stdout) == (0, "before mine after\n")


def test_the_old_handler_comes_back() -> None:
    code = (
        "import signal\nfrom heliostat_jobs.train.sigterm import ended_at_once\n"
        "with ended_at_once():\n    pass\nprint(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True"
