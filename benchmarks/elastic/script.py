"""The script of both sides: the demonstration's digits CNN, elastic from 1 to 4 workers.

Ours takes GPUs (logical ones) from its lease. Stock Ray Train takes CPUs: on logical GPUs its own `get_device()` fails.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray.train
from heliostat_jobs.recipes.digits_loop import LoopOptions, options_dict, train_digits
from ray.train import FailureConfig, LoggingConfig
from ray.train.torch import TorchTrainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--monitor-s", type=float, default=2.0)
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--step-ms", type=int, default=50)
    args = parser.parse_args()
    options = LoopOptions(
        epochs=100_000, checkpoint_every=args.checkpoint_every, step_ms=args.step_ms, run_dir=str(args.run_dir)
    )
    common: dict[str, Any] = {
        "failure_config": FailureConfig(max_failures=3),
        "logging_config": LoggingConfig("WARNING"),
    }
    if args.stock:
        scaling = ray.train.ScalingConfig(
            num_workers=(1, 4), resources_per_worker={"CPU": 1}, elastic_resize_monitor_interval_s=args.monitor_s
        )
        common |= {"name": "stock", "storage_path": str(args.run_dir / "train")}
    else:
        scaling = ray.train.ScalingConfig(num_workers=(1, 4), use_gpu=True)
    TorchTrainer(
        train_digits,
        train_loop_config=options_dict(options),
        scaling_config=scaling,
        run_config=ray.train.RunConfig(**common),
    ).fit()


if __name__ == "__main__":
    main()
