"""Train a CNN on scikit-learn's digits over N workers: `python -m heliostat_jobs.recipes.digits_cnn --workers 2 --epochs 3`.

By hand it runs under plain Ray, on CPUs or (--device gpu) on GPUs. Submitted to Heliostat, the same command takes the GPUs of its
lease; when it is preempted it saves a checkpoint, and its next attempt goes on with the next batch. At the end the run folder holds
result.json (accuracy on the held-out fifth), model/ (an artifact folder, registered under --register NAME) and steps.jsonl.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import ray.train
from ray.train import FailureConfig, LoggingConfig
from ray.train.torch import TorchTrainer

from heliostat_jobs.boot.attempt import Attempt
from heliostat_jobs.recipes import digits_artifact, digits_data
from heliostat_jobs.recipes.digits_loop import MODEL_FILE, LoopOptions, options_dict, train_digits
from heliostat_jobs.spec import ModelEntry, Result

DEFAULTS = LoopOptions()
MODEL_DIR = "model"
TRAINING_IMAGES = 1438


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--workers", type=workers, default=1, help="data-parallel workers: 2, or a range 1-4 for an elastic run"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: GPUs inside a Heliostat job"
    )
    parser.add_argument("--epochs", type=int, default=DEFAULTS.epochs, help="passes over the 1,438 training images")
    parser.add_argument("--batch-size", type=int, default=DEFAULTS.batch_size, help="images per step over all workers")
    parser.add_argument("--width", type=int, default=DEFAULTS.width, help="channels of the first convolution")
    parser.add_argument("--learning-rate", type=float, default=DEFAULTS.learning_rate)
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed)
    parser.add_argument("--checkpoint-every", type=int, default=DEFAULTS.checkpoint_every, help="steps")
    parser.add_argument(
        "--look-every", type=int, default=DEFAULTS.look_every, help="steps between looks for a preemption"
    )
    parser.add_argument("--step-ms", type=int, default=DEFAULTS.step_ms, help="a step takes at least so long")
    parser.add_argument("--register", default="", metavar="NAME", help="register the model under this name")
    parser.add_argument("--run-dir", type=Path, default=None, help="default: the job's folder, or runs/digits-<time>")
    args = parser.parse_args(argv)
    for name in ("epochs", "width", "checkpoint_every", "look_every"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    most = args.workers if isinstance(args.workers, int) else args.workers[1]
    if not 1 <= most <= args.batch_size <= TRAINING_IMAGES:
        parser.error(f"--batch-size must be between the number of workers and the {TRAINING_IMAGES:,} training images")
    return args


def workers(text: str) -> int | tuple[int, int]:
    """`2` or `1-4`."""
    fewest, dash, most = text.partition("-")
    return (int(fewest), int(most)) if dash else int(fewest)


def loop_options(args: argparse.Namespace, run_dir: Path) -> LoopOptions:
    return LoopOptions(
        epochs=args.epochs,
        batch_size=args.batch_size,
        width=args.width,
        learning_rate=args.learning_rate,
        seed=args.seed,
        checkpoint_every=args.checkpoint_every,
        look_every=args.look_every,
        step_ms=args.step_ms,
        run_dir=str(run_dir),
    )


def run_config(attempt: Attempt | None, run_dir: Path) -> ray.train.RunConfig:
    """Inside a job its own defaults (name and storage that the next attempt finds again); by hand the run folder."""
    keep = ray.train.CheckpointConfig(num_to_keep=2)
    common: dict[str, Any] = {  # Any: keyword arguments of different types
        "checkpoint_config": keep,
        "failure_config": FailureConfig(max_failures=3),
        "logging_config": LoggingConfig(log_level="WARNING"),
    }
    if attempt is not None:
        return ray.train.RunConfig(**common)
    return ray.train.RunConfig(name=run_dir.name, storage_path=str(run_dir / "train"), **common)


def publish(result: Any, options: LoopOptions, run_dir: Path, name: str) -> Result:  # Any: ray.train.Result
    """Leave the model's artifact folder and result.json in the run folder."""
    data = digits_data.load(options.seed)
    with result.checkpoint.as_directory() as folder:
        digits_artifact.put_beside(Path(folder) / MODEL_FILE, run_dir / MODEL_DIR, options.width)
    code = digits_artifact.code_digest()
    params = {**options_dict(options), "test_split": digits_data.digest(data.test_ids)}
    del params["run_dir"]
    published = Result(
        metrics={
            "accuracy": result.metrics["accuracy"],
            "loss": result.metrics["loss"],
            "steps": result.metrics["step"],
        },
        model=ModelEntry(MODEL_DIR, name, code_digest=code, data_digest=data.sha256),
        params=params,
    )
    published.write(run_dir)
    return published


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    attempt = Attempt.from_environment()
    by_hand = Path("runs") / f"digits-{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = (args.run_dir or (attempt.run_dir if attempt else by_hand)).resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    use_gpu = args.device == "gpu" or (args.device == "auto" and attempt is not None)
    options = loop_options(args, run_dir)
    trainer = TorchTrainer(
        train_digits,
        train_loop_config=options_dict(options),
        scaling_config=ray.train.ScalingConfig(num_workers=args.workers, use_gpu=use_gpu),
        run_config=run_config(attempt, run_dir),
    )
    started = time.monotonic()
    print(digits_data.load(options.seed).split_line(options.seed), flush=True)
    published = publish(trainer.fit(), options, run_dir, args.register)
    print(f"accuracy {published.metrics['accuracy']:.4f} after {published.metrics['steps']:.0f} steps")
    print(f"this attempt took {time.monotonic() - started:.0f} s; results in {run_dir}")


if __name__ == "__main__":
    main()
