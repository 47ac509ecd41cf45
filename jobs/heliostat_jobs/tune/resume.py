"""How the next attempt of a job finds the search that this one began: a fixed name and place, and a list of what was begun.

A search is resumed only when an earlier attempt of this very job began it (the list in the job's run folder says so) and has left
a state. A script that chose its own name and place keeps them; a search of yesterday under that name is not touched.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow.fs

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.tune.tune_private import STATE_FILES

LIST = "searches.json"


def default_run_config(run_config: Any, attempt: Attempt, nth: int) -> Any:  # Any: ray.tune.RunConfig
    """The script's RunConfig with the job's name and storage where it chose none. The n-th search is `<job>-tune-<n>`."""
    from ray.train.constants import DEFAULT_STORAGE_PATH
    from ray.tune import RunConfig

    config = copy.copy(run_config) if run_config is not None else RunConfig()
    config.name = config.name or f"{attempt.job}-tune-{nth}"
    if config.storage_path is None or str(config.storage_path) == str(DEFAULT_STORAGE_PATH):
        config.storage_path = str(attempt.run_dir / "tune")
    return config


def folder_of(run_config: Any) -> str:  # Any: as above
    return f"{str(run_config.storage_path).rstrip('/')}/{run_config.name}"


def begun(run_config: Any, attempt: Attempt) -> str:  # Any: as above
    """The folder of this search if an earlier attempt of the job began it and left a state there; else empty."""
    folder = folder_of(run_config)
    earlier = _read(attempt).get(folder, attempt.number)
    return folder if earlier < attempt.number and _has_state(folder, run_config.storage_filesystem) else ""


def remember(run_config: Any, attempt: Attempt) -> None:  # Any: as above
    """Note that this attempt began this search."""
    attempt.run_dir.mkdir(parents=True, exist_ok=True)
    path = attempt.run_dir / LIST
    path.write_text(json.dumps({**_read(attempt), folder_of(run_config): attempt.number}, indent=1))


def _read(attempt: Attempt) -> dict[str, int]:
    path = attempt.run_dir / LIST
    if not path.is_file():
        return {}
    found: dict[str, int] = json.loads(path.read_text())
    return found


def _has_state(folder: str, filesystem: Any) -> bool:  # Any: pyarrow.fs.FileSystem or None
    if filesystem is None:
        filesystem, folder = pyarrow.fs.FileSystem.from_uri(
            str(Path(folder).absolute()) if "://" not in folder else folder
        )
    infos = filesystem.get_file_info(pyarrow.fs.FileSelector(folder, allow_not_found=True))
    return any(Path(info.path).match(STATE_FILES) for info in infos)
