"""docs/examples/first_job.ipynb in a real kernel, against a platform of its own on this machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from heliostat import local
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


def test_the_notebook_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HELIOSTAT_URL", "HELIOSTAT_TOKEN", "HELIOSTAT_TOKEN_FILE", "HELIOSTAT_PROFILE", "HELIOSTAT_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HELIOSTAT_HOME", str(home))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=180, kernel_name="python3").execute()
    shown = json.dumps(notebook)
    assert shown.count("succeeded") >= 2
    assert "step 2" in shown and "text/html" in shown
    assert (home / "token").read_text().strip() not in shown
