"""The client against a running platform of its own: the notebook in a real kernel, Ray's client by `heliostat://`, the CLI."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from heliostat import local
from heliostat.client.client import Client
from heliostat.local import ports
from heliostat.settings import load
from nbclient import NotebookClient

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "examples" / "first_job.ipynb"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A running platform with two logical GPUs."""
    with tempfile.TemporaryDirectory(prefix="helio-nb-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        settings = load(home=Path(folder), environ={})
        port = ports.choose(("control",), {})["control"]
        try:
            local.up(
                settings, local.UpOptions(gpus=2, port=port, object_store_bytes=200 * 1024**2, i_have_a_firewall=True)
            )
            yield settings.home
        finally:
            local.down(settings)


@pytest.fixture(autouse=True)
def only_this_platform(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HELIOSTAT_URL", "HELIOSTAT_TOKEN", "HELIOSTAT_TOKEN_FILE", "HELIOSTAT_PROFILE", "HELIOSTAT_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HELIOSTAT_HOME", str(home))


def typed(*words: str) -> subprocess.CompletedProcess[str]:
    """One of this environment's commands, to its end."""
    command = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_rays_client_finds_the_platform_by_its_module_address() -> None:
    told = typed("ray", "job", "submit", "--address", "heliostat://default", "--", "echo", "through the module address")
    assert told.returncode == 0, told.stderr
    assert "through the module address" in told.stdout + told.stderr


def test_a_folder_travels_and_the_exit_code_is_the_jobs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import os, sys\nprint(open('data.txt').read(), os.environ['A'])\nsys.exit(3)\n")
    (tmp_path / "data.txt").write_text("it came along")
    told = typed(
        "helio", "submit", "--working-dir", str(tmp_path), "--env", "A=1", "--follow", "--", "python", "train.py"
    )
    assert told.returncode == 1, "the job failed, and says so"
    assert "it came along 1" in told.stdout
    shown = typed("helio", "ps", told.stdout.split()[0], "--json")
    assert json.loads(shown.stdout)["exit_code"] == 3
    assert "exit code 3" in typed("helio", "ps", "-a").stdout


def test_an_explanations_command_starts_the_job() -> None:
    held = typed("helio", "submit", "--hold", "--", "echo", "now").stdout.strip()
    told = json.loads(typed("helio", "explain", held, "--json").stdout)
    first = next(remedy for remedy in told["remedies"] if remedy["kind"] == "apply")
    assert typed(*shlex.split(first["command"])).returncode == 0
    assert typed("helio", "logs", "-f", held).stdout.splitlines()[-1] == "now"


def test_a_recipe_becomes_a_model_and_its_registration_is_told() -> None:
    told = typed(
        "helio", "train", "wine-forest", "--trees", "20", "--register", "wine", "--alias", "champion", "--wait"
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "wine:1"
    shown = json.loads(typed("helio", "model", "show", "wine@champion", "--json").stdout)
    assert shown["format"] == "skops" and shown["metrics"]["accuracy"] >= 0.9
    lineage = json.loads(typed("helio", "model", "lineage", "wine", "--json").stdout)
    assert lineage["job"]["known"] and lineage["params"]["trees"] == 20 and lineage["data_digest"]


def test_a_result_that_leaves_its_folder_is_an_event_of_a_job_that_succeeded() -> None:
    body = json.dumps({"metrics": {}, "model": {"path": "../other"}})
    script = f"import os; open(os.environ['HELIOSTAT_RUN_DIR'] + '/result.json', 'w').write({body!r})"
    command = ["helio", "submit", "--metadata", "register=stolen", "--wait", "--", "python", "-c", script]
    told = typed(*command)
    assert told.returncode == 0, told.stderr
    events = [
        json.loads(line) for line in typed("helio", "events", told.stdout.split()[0], "--json").stdout.splitlines()
    ]
    assert [event["data"]["code"] for event in events if event["kind"] == "result_refused"] == ["bad_result"]
    assert typed("helio", "model", "show", "stolen").returncode == 3


@pytest.mark.slow
def test_a_function_is_trained_and_its_checkpoint_becomes_a_model(home: Path, tmp_path: Path) -> None:
    job = Client(load(home=home, environ={})).train(reports_a_model, config={"width": 4}, register="made")
    version = job.model()
    assert version.metrics["loss"] == 1.5 and version.lineage()["params"] == {"width": 4}
    out = version.download(tmp_path / "out")
    assert json.loads((out / "model.json").read_text())["args"] == {"width": 4}


def reports_a_model(config: dict[str, int]) -> None:
    """Runs in a worker: no training, a model all the same."""
    import tempfile
    from pathlib import Path

    import ray.train
    from heliostat_jobs.recipes.digits_artifact import save
    from heliostat_jobs.recipes.digits_model import DigitsCNN

    with tempfile.TemporaryDirectory() as folder:
        save(DigitsCNN(config["width"]).state_dict(), Path(folder), config["width"])
        ray.train.report({"loss": 1.5}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def test_the_notebook_runs(home: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=180, kernel_name="python3").execute()
    shown = json.dumps(notebook)
    assert shown.count("succeeded") >= 2
    assert "step 2" in shown and "text/html" in shown
    assert (home / "token").read_text().strip() not in shown
