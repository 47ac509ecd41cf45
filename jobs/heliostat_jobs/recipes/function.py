"""Run a function that somebody sent as the training loop of Ray Train's workers: `helio`'s SDK starts this in a job.

The function is called in each worker, with its config when it takes an argument. What it reports last are the metrics; a checkpoint
whose folder holds a model.json is the model, and goes into the run folder as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.recipes.digits_cnn import run_config, workers
from heliostat_jobs.spec import MODEL_FILE, ModelEntry, Result

FUNCTION_FILE, ABOUT_FILE = "function.pkl", "function.json"
MODEL_DIR = "model"


def load(folder: Path) -> tuple[Any, dict[str, Any], str]:
    """(function, config, its name). A pickle of another Python would fail in ways that nobody understands: say so."""
    about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
    theirs, ours = tuple(about["python"]), sys.version_info[:2]
    if theirs != ours:
        sys.exit(
            f"The function was sent from Python {theirs[0]}.{theirs[1]}; the cluster runs {ours[0]}.{ours[1]}. Send a script."
        )
    return pickle.loads((folder / FUNCTION_FILE).read_bytes()), about["config"], about["name"]


def leave(result: Any, config: dict[str, Any], run_dir: Path) -> Result:  # Any: ray.train.Result
    """Write result.json, and the model if the last checkpoint is one."""
    numbers = {
        name: float(value)
        for name, value in (result.metrics or {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    entry = None
    if result.checkpoint is not None:
        with result.checkpoint.as_directory() as folder:
            if (Path(folder) / MODEL_FILE).is_file():
                shutil.copytree(folder, run_dir / MODEL_DIR, dirs_exist_ok=True)
                entry = ModelEntry(MODEL_DIR)
    left = Result(numbers, entry, config)
    left.write(run_dir)
    return left


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=workers, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--folder", type=Path, default=Path())
    args = parser.parse_args(argv)
    attempt = Attempt.from_environment()
    run_dir = (attempt.run_dir if attempt else Path("runs") / "function").resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    function, config, name = load(args.folder)
    use_gpu = args.device == "gpu" or (args.device == "auto" and attempt is not None)
    trainer = TorchTrainer(
        function,
        train_loop_config=config or None,
        scaling_config=ray.train.ScalingConfig(num_workers=args.workers, use_gpu=use_gpu),
        run_config=run_config(attempt, run_dir),
    )
    left = leave(trainer.fit(), config, run_dir)
    print(f"{name}: {left.metrics or 'no metrics'}; {'a model' if left.model else 'no model'} in {run_dir}")


if __name__ == "__main__":
    main()
