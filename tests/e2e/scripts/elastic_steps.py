"""A plain elastic Ray Train script without PyTorch: it saves when it is asked to. argv: run folder, steps, what it does otherwise.

obeys    nothing else: the exception that ends its loop passes
returns  it catches that exception and returns
stays    it catches it and never comes back
once     its set-up cannot be done twice in a process, as that of multiprocessing.set_start_method
"""

import builtins
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


def loop(config: dict[str, Any]) -> None:
    if config["mode"] == "once":
        set_up_once()
    context, step = ray.train.get_context(), 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            step = int((Path(folder) / "step").read_text())
    while step < config["steps"]:
        if context.get_world_rank() == 0:
            row = {"step": step, "batch": str(step), "world_size": context.get_world_size(), "pid": os.getpid()}
            with (Path(config["run"]) / "steps.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
        step += 1
        time.sleep(0.05)
        if ray.train.get_preemption_info() is not None or step % 10 == 0:
            try:
                save(step, context.get_world_rank())
            except BaseException:
                if config["mode"] == "returns":
                    return
                if config["mode"] == "stays":
                    time.sleep(600)
                raise


def save(step: int, rank: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "step").write_text(str(step))
        checkpoint = ray.train.Checkpoint.from_directory(folder) if rank == 0 else None
        ray.train.report({"step": step}, checkpoint=checkpoint)


def set_up_once() -> None:
    if hasattr(builtins, "set_up_before"):
        raise RuntimeError("context has already been set")
    builtins.__dict__["set_up_before"] = True


if __name__ == "__main__":
    run, steps, mode = sys.argv[1:]
    trainer = DataParallelTrainer(
        loop,
        train_loop_config={"run": run, "steps": int(steps), "mode": mode},
        scaling_config=ray.train.ScalingConfig(num_workers=(1, 2), use_gpu=True),
    )
    print("RESULT", trainer.fit().metrics)
