"""Everything that a lease does not allow yet, tried one after the other; prints what came back as JSON lines."""

import json
from collections.abc import Callable

import ray
import ray.train
from ray import tune
from ray.train.torch import TorchTrainer
from ray.util.placement_group import placement_group


def nothing(config: dict[str, object]) -> None:
    return


@ray.remote(num_gpus=1)  # type: ignore[untyped-decorator]
def gpu_task() -> None:
    return


class Ping:
    def ping(self) -> str:
        return "pong"


Actor = ray.remote(Ping)


@ray.remote  # type: ignore[untyped-decorator]
def nested() -> str:
    try:
        gpu_task.options(num_gpus=2).remote()
    except Exception as error:  # noqa: BLE001
        return type(error).__name__
    return "accepted"


def fit(**scaling: object) -> None:
    TorchTrainer(nothing, scaling_config=ray.train.ScalingConfig(**scaling)).fit()


def attempt(name: str, do: Callable[[], object]) -> None:
    try:
        answer = {"ok": str(do())}
    except Exception as error:  # noqa: BLE001
        answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps({"case": name, **answer}), flush=True)


if __name__ == "__main__":
    ray.init(runtime_env={"env_vars": {"MINE": "1"}})  # a script's own environment is merged with the job's
    attempt("cpu task", lambda: ray.get(ray.remote(lambda: 7).remote()))
    attempt("cpu actor", lambda: ray.get(Actor.remote().ping.remote()))
    attempt("a task with two gpus", lambda: gpu_task.options(num_gpus=2).remote())
    attempt("a detached gpu actor", lambda: Actor.options(num_gpus=1, lifetime="detached", name="d").remote())
    attempt("two gpus inside a task", lambda: ray.get(nested.remote()))
    attempt("slot resource", lambda: Actor.options(resources={"GPU_group_ab": 1}).remote())
    attempt("gpu group", lambda: placement_group([{"GPU": 1}]))
    attempt("a trial with two gpus", lambda: tune.Tuner(tune.with_resources(nothing, {"gpu": 2})).fit())
    attempt("too many workers", lambda: fit(num_workers=4, use_gpu=True))
    attempt("too small a range", lambda: fit(num_workers=(3, 4), use_gpu=True))
    attempt("two gpus for a worker", lambda: fit(num_workers=1, use_gpu=True, resources_per_worker={"GPU": 2}))
