"""A plain Ray Train script that has never heard of Heliostat and never looks at the preemption info."""

import json
import tempfile
import time
from pathlib import Path

import ray.train
import ray.train.torch
import torch
from ray.train.torch import TorchTrainer
from torch.utils.data import DataLoader, TensorDataset


def loop(config: dict[str, str]) -> None:
    torch.set_num_threads(1)
    context = ray.train.get_context()
    model = ray.train.torch.prepare_model(torch.nn.Linear(4, 2))
    loader = ray.train.torch.prepare_data_loader(DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=8))
    start = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            start = int((Path(folder) / "epoch").read_text()) + 1
    for epoch in range(start, 60):
        for (x,) in loader:
            model(x).sum().backward()
            time.sleep(0.05)
        with tempfile.TemporaryDirectory() as folder:
            first = context.get_world_rank() == 0
            (Path(folder) / "epoch").write_text(str(epoch))
            checkpoint = ray.train.Checkpoint.from_directory(folder) if first and epoch % 20 == 19 else None
            ray.train.report({"epoch": epoch}, checkpoint=checkpoint)
        if first:
            facts = {
                "epoch": epoch,
                "world_size": context.get_world_size(),
                "device": str(ray.train.torch.get_device()),
            }
            with Path(config["log"]).open("a") as log:
                log.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    import sys

    workers = (1, 2) if "elastic" in sys.argv else 1 if "one" in sys.argv else 2
    trainer = TorchTrainer(
        loop,
        train_loop_config={"log": sys.argv[1]},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=True),
    )
    print("RESULT", trainer.fit().metrics)
