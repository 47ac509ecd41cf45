"""Each private name of Ray Train (and the two of Ray core) that jobs subclass, replace or call, held against the installed Ray.

When one of these fails, Ray changed. The sentence says what was assumed and where it is used; the fix is in the named module.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from types import SimpleNamespace

import pytest
import ray
from heliostat_jobs.boot import hook
from heliostat_jobs.errors import UnsupportedRay
from heliostat_jobs.train import ray_train_private as private


def ray_changed(what: str, where: str) -> str:
    return f"Ray {ray.__version__} changed: {what}. Used in heliostat_jobs.{where}; Heliostat is written for Ray 2.60."


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_version_is_the_one_we_know() -> None:
    assert ray.__version__.startswith(private.SUPPORTED_RAY), ray_changed("its version", "train.ray_train_private")


def test_another_version_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "ray", SimpleNamespace(__version__="2.61.0"))
    with pytest.raises(UnsupportedRay, match=r"This is Ray 2\.61\.0.*ray==2\.60\.0"):
        private.check_version()


@pytest.mark.parametrize("name", sorted(private.__all__))
def test_every_name_exists(name: str) -> None:
    assert hasattr(private, name)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("ray.train.v2.api.data_parallel_trainer", ["DataParallelTrainer", "TrainController"]),
        ("ray.train.torch.config", ["_TorchBackend"]),
        (
            "ray.air._internal.device_manager",
            ["get_torch_device_manager_by_context", "CUDATorchDeviceManager", "CPUTorchDeviceManager"],
        ),
        ("ray.remote_function", ["RemoteFunction"]),
        ("ray.actor", ["ActorClass"]),
        ("ray.util.placement_group", ["placement_group"]),
        ("ray.tune.tuner", ["Tuner"]),
        ("ray.tune.tune", ["run", "run_experiments"]),
    ],
)
def test_what_the_import_hook_patches_is_there(module: str, names: list[str]) -> None:
    assert module in hook.PATCHES
    loaded = importlib.import_module(module)
    missing = [name for name in names if not hasattr(loaded, name)]
    assert missing == [], ray_changed(
        f"{module} has no {', '.join(missing)}", hook.PATCHES[module][0].removeprefix("heliostat_jobs.")
    )


SIGNATURES = {
    "train.inject": [
        ("ray.train.v2.api.data_parallel_trainer.DataParallelTrainer._initialize_and_run_controller", ["self", "controller_init_kwargs"]),
    ],
    "train.controller": [
        (
            "ray.train.v2._internal.execution.controller.controller.TrainController.__init__",
            ["self", "train_fn_ref", "train_run_context", "scaling_policy", "failure_policy", "callbacks", "validation_config"],
        ),
        ("ray.train.v2._internal.execution.controller.controller.TrainController.run", ["self"]),
        ("ray.train.v2._internal.execution.controller.controller.TrainController._step", ["self"]),
        ("ray.train.v2._internal.execution.controller.controller.TrainController._poll_workers", ["self"]),
        ("ray.train.v2._internal.execution.controller.controller.TrainController._execute_resize_decision", ["self", "decision"]),
        (
            "ray.train.v2._internal.execution.controller.controller.TrainController._start_worker_group",
            ["self", "num_workers", "resources_per_worker"],
        ),
        (
            "ray.train.v2._internal.execution.controller.controller.TrainController"
            "._make_and_handle_scaling_decision_for_non_running_worker_group",
            ["self", "controller_state"],
        ),
        ("ray.train.v2._internal.execution.worker_group.worker.RayTrainWorker.mark_preempt", ["self", "info"]),
    ],
    "train.slot_workers": [
        (
            "ray.train.v2._internal.execution.worker_group.worker_group.WorkerGroup._create_placement_group",
            ["self", "scaling_config", "worker_group_context"],
        ),
        (
            "ray.train.v2._internal.execution.worker_group.worker_group.WorkerGroup._create_workers",
            [
                "self", "num_workers", "placement_group", "resources_per_worker", "placement_group_bundle_indices",
                "starting_world_rank", "world_size", "replica_group_size",
            ],
        ),
        (
            "ray.train.v2._internal.execution.worker_group.worker_group.WorkerGroup._assign_worker_ranks",
            ["workers", "starting_world_rank", "world_size", "replica_group_size"],
        ),
        (
            "ray.train.v2._internal.execution.worker_group.worker_group.WorkerGroup._get_worker_runtime_env",
            ["custom_runtime_env"],
        ),
    ],
    "train.slot_policy": [
        (
            "ray.train.v2._internal.execution.scaling_policy.ScalingPolicy.make_decision_for_running_worker_group",
            ["self", "worker_group_state", "worker_group_status"],
        ),
        ("ray.train.v2._internal.execution.failure_handling.FailurePolicy.make_decision", ["self", "training_failed_error"]),
    ],
    "train.progress": [
        ("ray.train.v2._internal.execution.callback.ReportCallback.after_report", ["self", "training_report", "metrics"]),
    ],
    "train.device": [
        ("ray.train.torch.config._TorchBackend.on_start", ["self", "worker_group", "backend_config"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "path", "expected"),
    [
        pytest.param(where, path, names, id=path.split(".", 3)[-1])
        for where, uses in SIGNATURES.items()
        for path, names in uses
    ],
)
def test_signatures(where: str, path: str, expected: list[str]) -> None:
    module_path, _, attributes = path.rpartition(".")
    module_path, _, cls = module_path.rpartition(".")
    function = getattr(getattr(importlib.import_module(module_path), cls), attributes, None)
    assert function is not None, ray_changed(f"{path} is gone", where)
    assert parameters(function) == expected, ray_changed(f"the parameters of {path}", where)


def test_the_trainer_starts_its_controller_with_the_arguments_that_we_replace() -> None:
    module = importlib.import_module("ray.train.v2.api.data_parallel_trainer")
    source = inspect.getsource(module.DataParallelTrainer)
    for argument in ("scaling_policy=", "failure_policy=", "train_run_context=", "callbacks="):
        assert argument in source, ray_changed(f"fit() no longer passes {argument}", "train.inject")
    assert "(TrainController)" in source, ray_changed(
        "the controller's class is not taken from the module", "train.inject"
    )
    assert "PlacementGroupCleanerCallback()" in source, ray_changed(
        "the cleaner that would remove a slot", "train.inject"
    )


def test_an_unnamed_run_is_recognised() -> None:
    from ray.train import RunConfig
    from ray.train.constants import DEFAULT_STORAGE_PATH

    config = RunConfig()
    assert config.name.startswith(private.UNNAMED_RUN_PREFIX), ray_changed("the default run name", "train.inject")
    assert str(config.storage_path) == str(DEFAULT_STORAGE_PATH), ray_changed(
        "the default storage path", "train.inject"
    )
    assert hasattr(config.failure_config, "max_preemption_failures"), ray_changed("FailureConfig", "train.inject")


def test_scaling_config_says_what_we_ask_it() -> None:
    from heliostat_jobs.train.request import Request
    from ray.train import ScalingConfig

    assert Request.of(ScalingConfig(num_workers=2, use_gpu=True)) == Request(2, 2, 1.0)
    assert Request.of(ScalingConfig(num_workers=(1, 4))) == Request(1, 4, 0.0)


def test_attributes_of_the_controller_that_we_read_or_write() -> None:
    source = inspect.getsource(private.TrainController)
    for name in (
        "_worker_group:",
        "_health_check_interval_s",
        "_scaling_policy",
        "worker_group_cls.create",
        "_run_attempt_id",
    ):
        assert name in source, ray_changed(f"TrainController has no {name}", "train.controller")


def test_attributes_of_the_worker_group_that_we_read_or_write() -> None:
    source = inspect.getsource(private.WorkerGroup)
    for name in ("_callbacks", "_worker_group_start_timeout_s", "_train_run_context", "_worker_cls"):
        assert name in source, ray_changed(f"WorkerGroup has no {name}", "train.slot_workers")


def test_preemption_info_and_result_keep_their_fields() -> None:
    info = [field.name for field in dataclasses.fields(private.PreemptionInfo)]
    assert info == ["deadline_ms", "preempted_node_to_ranks"], ray_changed("PreemptionInfo", "train.hold")
    result = [field.name for field in dataclasses.fields(private.TrainControllerLoopIterationResult)]
    assert result[:3] == ["run_attempt_id", "previous_state", "next_state"], ray_changed(
        "the step's result", "train.controller"
    )
    worker = [field.name for field in dataclasses.fields(private.Worker)]
    for name in ("actor", "metadata", "resources", "distributed_context", "placement_group_bundle_index"):
        assert name in worker, ray_changed(f"Worker has no {name}", "train.slot_workers")


def test_a_warm_worker_can_be_prepared() -> None:
    from ray.train.v2._internal.execution.worker_group import worker

    assert parameters(worker.RayTrainWorker.execute) == ["self", "fn", "fn_args", "fn_kwargs"], ray_changed(
        "RayTrainWorker.execute", "train.warm"
    )
    assert "self._train_fn_ref = train_fn_ref" in inspect.getsource(private.TrainController), ray_changed(
        "TrainController has no _train_fn_ref", "train.warm"
    )


def test_the_functions_of_a_worker_can_be_replaced_once_its_context_is_set() -> None:
    from ray.train.v2._internal.execution.context import TrainContext
    from ray.train.v2._internal.execution.worker_group import worker

    source = inspect.getsource(worker.RayTrainWorker.init_train_context)
    after = source.partition("set_train_fn_utils(DistributedTrainFnUtils())")[2]
    assert "callback.after_init_train_context()" in after, ray_changed("when workers' callbacks run", "train.hold")
    assert parameters(private.DistributedTrainFnUtils.report)[:3] == ["self", "metrics", "checkpoint"], ray_changed(
        "the parameters of report()", "train.hold"
    )
    assert parameters(private.DistributedTrainFnUtils.get_preemption_info) == ["self"]
    fields = [field.name for field in dataclasses.fields(TrainContext)]
    for name in ("preemption_context", "execution_context", "report_call_index"):
        assert name in fields, ray_changed(f"TrainContext has no {name}", "train.hold")


def test_a_training_thread_can_be_joined_and_its_end_forgotten() -> None:
    from ray.train.v2._internal.execution.worker_group.thread_runner import ThreadRunner

    for name in ("_thread", "_exc"):
        assert hasattr(ThreadRunner(), name), ray_changed(f"ThreadRunner has no {name}", "train.leave")
    assert "except BaseException" in inspect.getsource(ThreadRunner.run), ray_changed(
        "a training thread no longer survives every exception", "train.leave"
    )
    private_logger = importlib.import_module(private.FAILURE_LOGGER)
    assert "logger.error(" in inspect.getsource(private_logger.construct_user_exception_with_traceback), ray_changed(
        "where a worker logs what ended its training", "train.hold"
    )


def test_a_group_meets_at_an_actor_that_can_be_used_again() -> None:
    from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor as decorated

    start = inspect.getsource(private.WorkerGroup._start_impl)
    assert "sync_actor = SynchronizationActor.options(" in start, ray_changed(
        "how a group makes its synchronization actor", "train.slot_workers"
    )
    assert hasattr(private.worker_group_module, "SynchronizationActor")
    actor = decorated.__ray_metadata__.modified_class
    assert parameters(actor.reset)[:1] == ["self"], ray_changed("SynchronizationActor.reset", "train.slot_workers")
    assert parameters(actor.set_required_ranks)[:2] == ["self", "ranks"], ray_changed(
        "SynchronizationActor.set_required_ranks", "train.slot_workers"
    )
    source = inspect.getsource(private.WorkerGroup)
    assert "self._worker_group_state.shutdown()" in source, ray_changed(
        "how a group ends its workers", "train.slot_workers"
    )


def test_the_callbacks_that_are_made_lighter() -> None:
    controller = inspect.getsource(private.TrainController)
    assert "self._worker_group_callbacks_to_propagate.append(PreemptionCallback())" in controller, ray_changed(
        "where the preemption watcher is added", "train.controller"
    )
    for name in ("_stop_watcher", "after_worker_group_start"):
        assert hasattr(private.PreemptionCallback, name), ray_changed(
            f"PreemptionCallback has no {name}", "train.lighter"
        )
    datasets = inspect.getsource(private.DatasetsCallback)
    assert '"dataset_shard_provider"' in datasets and "self._datasets" in datasets, ray_changed(
        "DatasetsCallback", "train.lighter"
    )


def test_pytorch_s_configuration_is_known_by_its_place() -> None:
    from heliostat_jobs.train.handover import keeps_processes
    from ray.train import BackendConfig
    from ray.train.torch import TorchConfig

    assert keeps_processes(TorchConfig()) and keeps_processes(BackendConfig()), ray_changed(
        "the backends' classes", "train.handover"
    )


def test_an_actor_and_a_task_go_through_remote_with_merged_options() -> None:
    import ray.actor
    import ray.remote_function

    task, actor = ray.remote_function.RemoteFunction._remote, ray.actor.ActorClass._remote
    for function, options in ((task, "task_options"), (actor, "actor_options")):
        names = parameters(function)
        assert names[:3] == ["self", "args", "kwargs"], ray_changed(f"{function.__qualname__}", "slots.placing")
        assert options in names, ray_changed(f"{function.__qualname__} takes no **{options}", "slots.placing")
