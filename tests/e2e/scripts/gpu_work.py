"""Plain Ray work on GPUs: tasks, actors, a Data stage and a fit() in a remote function. It has never heard of Heliostat."""

import json
import os
import sys
import tempfile
import time

import ray
import ray.train
from ray.train.torch import TorchTrainer


@ray.remote(num_gpus=1, max_calls=0)  # type: ignore[untyped-decorator]
def gpu_task(seconds: float) -> tuple[list[int], str]:
    time.sleep(seconds)
    return [int(index) for index in ray.get_gpu_ids()], os.environ.get("CUDA_VISIBLE_DEVICES", "")


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def parent_task() -> tuple[list[int], str]:
    return ray.get(gpu_task.remote(0))  # type: ignore[no-any-return]


@ray.remote(num_gpus=0.5)
class Half:
    def where(self) -> list[int]:
        return [int(index) for index in ray.get_gpu_ids()]


class Double:
    def __call__(self, batch):  # type: ignore[no-untyped-def]
        batch["double"] = batch["id"] * 2
        batch["gpu"] = [int(ray.get_gpu_ids()[0])] * len(batch["id"])
        return batch


def loop() -> None:
    context = ray.train.get_context()
    with tempfile.TemporaryDirectory() as folder:
        kept = ray.train.Checkpoint.from_directory(folder) if context.get_world_rank() == 0 else None
        ray.train.report({"size": context.get_world_size()}, checkpoint=kept)


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def train() -> dict[str, float]:
    trainer = TorchTrainer(loop, scaling_config=ray.train.ScalingConfig(num_workers=2, use_gpu=True))
    return dict(trainer.fit().metrics)


def tell(case: str, answer: object) -> None:
    print(json.dumps({"case": case, "answer": answer}), flush=True)


def data() -> dict[str, object]:
    stage = ray.data.range(64, override_num_blocks=4).map_batches(Double, num_gpus=1, concurrency=2, batch_size=8)
    rows = stage.take_all()
    return {"sum": int(sum(row["double"] for row in rows)), "gpus": sorted({int(row["gpu"]) for row in rows})}


if __name__ == "__main__":
    ray.init()
    if "tasks" in sys.argv:
        tell("tasks", ray.get([gpu_task.remote(0.5) for _ in range(4)]))
        tell("nested", ray.get(parent_task.remote()))
        halves = [Half.remote() for _ in range(4)]  # type: ignore[attr-defined]
        tell("halves", sorted(ray.get([half.where.remote() for half in halves])))
        del halves
    if "data" in sys.argv:
        tell("data", data())
    if "fit" in sys.argv:
        tell("fit", ray.get(train.remote()))
