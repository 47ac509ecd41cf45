"""The stage: a temporary installation with its own home, port and Ray, and the processes that act on it. All of it is gone after.

Nothing of the user's own installation is touched: the home is a fresh folder, the port a free one, and the commands that the
demo types get an environment that names both.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from heliostat import local
from heliostat.client.client import Client
from heliostat.local import ports
from heliostat.settings import Settings, environment, load

GPUS = 4
OBJECT_STORE_BYTES = 200 * 1024**2
QUEUES = """\
# Act one: research may use two GPUs; production is guaranteed all four and takes them back when it needs them.
default: research
queues:
  research:
    limit: {gpu: 2}
  production:
    quota: {gpu: 4}
    priority: 200
"""
ELASTIC_QUEUES = """\
# Act two: production is guaranteed two GPUs; research may borrow whatever is free.
default: research
queues:
  research:
    weight: 1
  production:
    quota: {gpu: 2}
    priority: 200
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """settings: of the temporary installation. client: talks to it. children: commands that were started and may still run."""

    settings: Settings
    client: Client
    children: list[Child]

    def ray_job_submit(self, job_id: str, metadata: Mapping[str, str], command: list[str], gpus: int = 0) -> Child:
        """Ray's own command line, unmodified; only the address is ours. gpus 0: what it needs stands in the metadata."""
        line = ["ray", "job", "submit", "--address", self.settings.url, "--submission-id", job_id]
        line += ["--entrypoint-num-gpus", str(gpus)] if gpus else []
        return self.start([*line, "--metadata-json", json.dumps(dict(metadata)), "--", *command])

    def helio_submit(self, options: list[str], command: list[str]) -> Child:
        return self.start(["helio", "submit", *options, "--", *command])

    def start(self, line: list[str]) -> Child:
        """Start one of this environment's commands; its output goes to a file."""
        binary = Path(sys.executable).parent / line[0]
        output = self.settings.home / f"command-{len(self.children) + 1}.log"
        with output.open("wb") as out:
            process = subprocess.Popen(
                [str(binary), *line[1:]],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_command_environment(self.settings),
                cwd=self.settings.home,
                start_new_session=True,
            )
        child = Child(" ".join(_shown(word) for word in line), process, output)
        self.children.append(child)
        return child

    def run_dir(self, job_id: str) -> Path:
        return self.settings.runs_dir / job_id


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A command that was typed: the line, the process, the file with what it printed."""

    line: str
    process: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def scene(progress: local.Progress, port: int, keep: bool) -> Iterator[Scene]:
    """Bring the installation up; whatever happens, end its processes, and remove its folder unless it tells what went wrong."""
    home = Path(tempfile.mkdtemp(prefix="helio-demo-", dir="/tmp"))
    chosen = port or ports.choose(("control",), {})["control"]
    settings = dataclasses.replace(load(home=home, environ={}), port=chosen, url=f"http://127.0.0.1:{chosen}")
    children: list[Child] = []
    kept = keep
    with _termination_as_exit():
        try:
            options = local.UpOptions(
                gpus=GPUS, object_store_bytes=OBJECT_STORE_BYTES, port=chosen, i_have_a_firewall=True
            )
            local.up(settings, options, progress)
            client = Client(load(home=home, environ={}))
            client.apply_queues(QUEUES)
            yield Scene(client.settings, client, children)
        except Exception:
            kept = True  # its logs tell why; after Ctrl-C nobody asks
            raise
        finally:
            with _undisturbed():
                for child in children:
                    child.end()
                local.down(settings)
                progress(local.Step("sweep", "done", "no process of the demo is left"))
                if not kept:
                    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half of the processes behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C does, so that the clean-up runs."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _command_environment(settings: Settings) -> dict[str, str]:
    """This process's environment without its Heliostat and Ray settings, with those of the temporary installation."""
    env = {key: value for key, value in environment().items() if not key.startswith(("HELIOSTAT_", "RAY_"))}
    return env | {
        "HELIOSTAT_HOME": str(settings.home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(settings.admin_token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _shown(word: str) -> str:
    return f"'{word}'" if " " in word or "{" in word else word
