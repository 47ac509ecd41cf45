"""The training loop that runs in each worker: plain Ray Train and PyTorch, nothing of Heliostat in it.

Data parallel as in Li et al. 2020 (PyTorch Distributed): each worker computes its share of the global batch, and the averaged
gradient equals the gradient over the whole batch, whatever the number of workers. Rank 0 keeps the checkpoints.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from safetensors.torch import save_file
from torch import nn

from heliostat_jobs.recipes.digits_data import BatchOrder, Digits, digest, load
from heliostat_jobs.recipes.digits_model import DigitsCNN, accuracy
from heliostat_jobs.spec import STEPS_FILE

STATE_FILE = "state.pt"
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """What the loop needs to know.

    epochs: passes over the training images. batch_size: images per step over all workers.
    width: channels of the first convolution. learning_rate: of Adam. seed: of split, order and weights.
    checkpoint_every: steps between checkpoints. look_every: steps between two looks at the preemption info.
    step_ms: a step takes at least so long, so that a demonstration is the same on any machine.
    run_dir: where steps.jsonl is appended.
    """

    epochs: int = 60
    batch_size: int = 48
    width: int = 32
    learning_rate: float = 1e-3
    seed: int = 7
    checkpoint_every: int = 100
    look_every: int = 2
    step_ms: int = 0
    run_dir: str = "."


class Trainee:
    """Model, optimizer and how far they are; what a checkpoint holds."""

    def __init__(self, options: LoopOptions, device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.module = DigitsCNN(options.width).to(device)
        self.model: nn.Module = ray.train.torch.prepare_model(self.module)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=options.learning_rate)
        self.step = 0

    def restore(self) -> None:
        """Go on from the run's last checkpoint, if it has one."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
        self.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def report(self, metrics: dict[str, Any]) -> None:
        """A checkpoint with these metrics. Every rank calls it: reporting is a barrier."""
        metrics = {"step": self.step, **metrics}
        if ray.train.get_context().get_world_rank() != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            state = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
            torch.save(state, Path(folder) / STATE_FILE)
            save_file(self.module.state_dict(), Path(folder) / MODEL_FILE)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class StepLog:
    """steps.jsonl outside the checkpoint: one line for each step that was really run (rank 0 only)."""

    def __init__(self, run_dir: str, rank: int, world_size: int) -> None:
        self._file = (Path(run_dir) / STEPS_FILE).open("a", encoding="utf-8", buffering=1) if rank == 0 else None
        self._world_size = world_size

    def append(self, step: int, batch: str) -> None:
        if self._file is not None:
            row = {"step": step, "batch": batch, "world_size": self._world_size, "at": round(time.time(), 3)}
            self._file.write(json.dumps(row) + "\n")


def train_digits(config: dict[str, Any]) -> None:
    """`train_loop_per_worker`: config holds the fields of LoopOptions."""
    options = LoopOptions(**config)
    torch.set_num_threads(1)
    logging.disable(logging.INFO)  # Ray Train logs every report of every rank; the lines of `say` are enough
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    data = load(options.seed)
    order = BatchOrder(len(data.train_x), options.batch_size, options.seed)
    trainee, log = Trainee(options, device), StepLog(options.run_dir, rank, world_size)
    trainee.restore()
    if trainee.step:
        say(rank, f"resumed at step {trainee.step}")
    total = options.epochs * order.steps_per_epoch
    images, labels = torch.from_numpy(data.train_x).to(device), torch.from_numpy(data.train_y).to(device)
    clock, clock_step, loss = time.perf_counter(), trainee.step, torch.zeros(())
    while trainee.step < total:
        step_began = time.perf_counter()
        ids = torch.from_numpy(order.share(trainee.step, rank, world_size)).to(device)
        loss = train_step(trainee, images[ids], labels[ids], options.batch_size, world_size)
        log.append(trainee.step, digest(order.batch(trainee.step)))
        trainee.step += 1
        time.sleep(max(0.0, options.step_ms / 1000 - (time.perf_counter() - step_began)))
        must_save = trainee.step % options.checkpoint_every == 0
        if trainee.step % options.look_every == 0 and ray.train.get_preemption_info() is not None:
            say(rank, f"asked to stop: saving a checkpoint at step {trainee.step}")
            must_save = True
        if must_save and trainee.step < total:
            seconds = time.perf_counter() - clock
            pace = (trainee.step - clock_step) * options.batch_size / seconds
            trainee.report({"epoch": trainee.step / order.steps_per_epoch, "loss": loss.item(), "samples_per_s": pace})
            say(rank, f"step {trainee.step}/{total}  loss {loss.item():.4f}  {pace:.0f} images/s  {world_size} workers")
            clock, clock_step = time.perf_counter(), trainee.step
    trainee.report({"epoch": options.epochs, "loss": loss.item(), "accuracy": held_out_accuracy(trainee, data, device)})


def say(rank: int, line: str) -> None:
    if rank == 0:
        print(line, flush=True)


def train_step(
    trainee: Trainee, images: torch.Tensor, labels: torch.Tensor, batch_size: int, world_size: int
) -> torch.Tensor:
    """One step of Adam on the mean loss of the global batch, (share, 1, 8, 8) and (share,) -> scalar.

    DDP averages gradients over workers; the sum over a share, times world_size / batch_size, makes that the global mean even when
    shares differ in size.
    """
    loss = nn.functional.cross_entropy(trainee.model(images), labels, reduction="sum") * (world_size / batch_size)
    trainee.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    trainee.optimizer.step()
    return loss.detach()


def held_out_accuracy(trainee: Trainee, data: Digits, device: torch.device) -> float:
    return accuracy(trainee.module, torch.from_numpy(data.test_x).to(device), torch.from_numpy(data.test_y).to(device))


def options_dict(options: LoopOptions) -> dict[str, Any]:
    """`train_loop_config` for train_digits."""
    return asdict(options)
