"""Plain Ray Tune scripts that have never heard of Heliostat: a function trainable with a GPU, and a trial that builds a TorchTrainer."""

import json
import sys
import tempfile
import time
from pathlib import Path

import ray
import ray.train
import ray.tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining

LOG = Path(sys.argv[2])


def note(**facts: object) -> None:
    with LOG.open("a") as log:
        log.write(json.dumps({"at": time.time(), **facts}) + "\n")


def trial(config: dict[str, float]) -> None:
    """`steps` steps, each reported with a checkpoint; better with a larger `lr`."""
    name, start = ray.tune.get_context().get_trial_id(), 0
    if checkpoint := ray.tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            start = int((Path(folder) / "step").read_text()) + 1
    gpus = [int(index) for index in ray.get_gpu_ids()]
    for step in range(start, int(config["steps"])):
        time.sleep(config["sleep"])
        note(trial=name, step=step, gpus=gpus, lr=config["lr"])
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step))
            ray.tune.report({"score": config["lr"]}, checkpoint=ray.tune.Checkpoint.from_directory(folder))


class Counted(ray.tune.Trainable):  # type: ignore[misc]  # Ray is untyped here
    """The same steps as a class, whose process the next trial may take over."""

    def setup(self, config: dict[str, float]) -> None:
        self.settings, self.at = config, 0

    def step(self) -> dict[str, object]:
        time.sleep(self.settings["sleep"])
        gpus = [int(index) for index in ray.get_gpu_ids()]
        note(trial=self.trial_id, step=self.at, gpus=gpus, lr=self.settings["lr"])
        self.at += 1
        return {"score": self.settings["lr"], "done": self.at >= self.settings["steps"]}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, int]:
        return {"at": self.at}

    def load_checkpoint(self, checkpoint: dict[str, int]) -> None:
        self.at = checkpoint["at"]

    def reset_config(self, new_config: dict[str, float]) -> bool:
        self.setup(new_config)
        return True


def loop(config: dict[str, float]) -> None:
    context = ray.train.get_context()
    start = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            start = int((Path(folder) / "step").read_text()) + 1
    for step in range(start, int(config["steps"])):
        time.sleep(config["sleep"])
        first = context.get_world_rank() == 0
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step))
            marked = ray.train.get_preemption_info() is not None
            kept = ray.train.Checkpoint.from_directory(folder) if first and (marked or step % 10 == 9) else None
            if first:
                gpus = [int(index) for index in ray.get_gpu_ids()]
                note(lr=config["lr"], step=step, size=context.get_world_size(), gpus=gpus)
            ray.train.report({"score": config["lr"]}, checkpoint=kept)


def trial_with_trainer(config: dict[str, float]) -> None:
    trainer = TorchTrainer(
        loop,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(num_workers=int(config["workers"]), use_gpu=True),
        run_config=ray.train.RunConfig(callbacks=[TuneReportCallback()]),
    )
    trainer.fit()


def plain(kind: str, steps: int) -> ray.tune.Tuner:
    space = {"lr": ray.tune.grid_search([0.1, 0.2, 0.3]), "steps": steps, "sleep": 0.15}
    trainable = ray.tune.with_resources(trial, {"cpu": 1, "gpu": 1})
    if kind == "trainer":
        space |= {"lr": ray.tune.grid_search([0.1, 0.2]), "workers": 1}
        trainable = trial_with_trainer
    config = ray.tune.TuneConfig(metric="score", mode="max")
    return ray.tune.Tuner(trainable, param_space=space, tune_config=config)


def scheduled(kind: str, steps: int) -> ray.tune.Tuner:
    scheduler = ASHAScheduler(metric="score", mode="max", max_t=steps, grace_period=2)
    if kind == "pbt":
        scheduler = PopulationBasedTraining(
            metric="score", mode="max", perturbation_interval=3, hyperparam_mutations={"lr": ray.tune.uniform(0.1, 0.9)}
        )
    return ray.tune.Tuner(
        ray.tune.with_resources(trial, {"cpu": 0.5, "gpu": 0.5}),
        param_space={"lr": ray.tune.grid_search([0.1, 0.9]), "steps": steps, "sleep": 0.01},
        tune_config=ray.tune.TuneConfig(scheduler=scheduler),
    )


def without_tuner(steps: int) -> list[dict[str, object]]:
    found = ray.tune.run(
        Counted,
        config={"lr": ray.tune.grid_search([0.1, 0.2, 0.3]), "steps": steps, "sleep": 0.15},
        resources_per_trial={"cpu": 1, "gpu": 1},
        metric="score",
        mode="max",
        reuse_actors=True,
    )
    return [
        {"lr": t.config["lr"], "iterations": t.last_result["training_iteration"], "error": t.error_file}
        for t in found.trials
    ]


if __name__ == "__main__":
    if sys.argv[1] == "run":
        rows = without_tuner(int(sys.argv[3]))
        print(json.dumps({"results": sorted(rows, key=lambda row: row["lr"])}), flush=True)
        sys.exit()
    for kind in sys.argv[1].split(","):
        make = scheduled if kind in ("asha", "pbt") else plain
        rows = [
            {"kind": kind, "lr": r.config["lr"], "iterations": r.metrics["training_iteration"], "error": r.error}
            for r in make(kind, int(sys.argv[3])).fit()
        ]
        print(json.dumps({"results": sorted(rows, key=lambda row: row["lr"])}), flush=True)
