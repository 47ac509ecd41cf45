"""Each worker of a Ray Train gang says where it is. It has never heard of Heliostat."""

import json
import sys
import tempfile
from pathlib import Path

import ray
import ray.train
from ray.train.torch import TorchTrainer


def loop(config: dict[str, str]) -> None:
    context = ray.train.get_context()
    row = {
        "rank": context.get_world_rank(),
        "node": ray.get_runtime_context().get_node_id(),
        "gpus": [int(index) for index in ray.get_gpu_ids()],
    }
    with Path(config["log"]).open("a") as log:
        log.write(json.dumps(row) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        kept = ray.train.Checkpoint.from_directory(folder) if row["rank"] == 0 else None
        ray.train.report({"size": context.get_world_size()}, checkpoint=kept)


if __name__ == "__main__":
    workers = ray.train.ScalingConfig(num_workers=int(sys.argv[2]), use_gpu=True)
    TorchTrainer(loop, train_loop_config={"log": sys.argv[1]}, scaling_config=workers).fit()
