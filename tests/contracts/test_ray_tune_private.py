"""Each private name of Ray Tune (and of Ray's execution layer under it) that jobs subclass, replace or call, held against the installed Ray.

When one of these fails, Ray changed. The sentence says what was assumed and where it is used; the fix is in the named module.
"""

from __future__ import annotations

import importlib
import inspect

import pytest
import ray
from heliostat_jobs.tune import inject
from heliostat_jobs.tune import tune_private as private


def ray_changed(what: str, where: str) -> str:
    return f"Ray {ray.__version__} changed: {what}. Used in heliostat_jobs.{where}; Heliostat is written for Ray 2.60."


@pytest.mark.parametrize("name", sorted(private.__all__))
def test_every_name_exists(name: str) -> None:
    assert hasattr(private, name)


CONTROLLER = "ray.tune.execution.tune_controller.TuneController"
MANAGER = "ray.air.execution.resources.resource_manager.ResourceManager"
ACTORS = "ray.air.execution._internal.actor_manager.RayActorManager"
SIGNATURES = [
    ("tune.controller", f"{CONTROLLER}.step", ["self"]),
    ("tune.controller", f"{CONTROLLER}._execute_action", ["self", "trial", "decision", "after_save"]),
    ("tune.controller", f"{CONTROLLER}._schedule_trial_stop", ["self", "trial", "exception"]),
    ("tune.controller", f"{CONTROLLER}._schedule_trial_save", ["self", "trial", "result"]),
    ("tune.controller", f"{CONTROLLER}._set_trial_status", ["self", "trial", "status"]),
    ("tune.controller", f"{CONTROLLER}._unstage_trial_with_resources", ["self", "trial"]),
    ("tune.controller", f"{CONTROLLER}._maybe_add_actors", ["self"]),
    ("tune.controller", f"{CONTROLLER}._schedule_trial_actor", ["self", "trial"]),
    ("tune.controller", f"{CONTROLLER}._actor_started", ["self", "tracked_actor", "log"]),
    ("tune.controller", f"{CONTROLLER}._cleanup_cached_actors", ["self", "force_all"]),
    ("tune.controller", f"{CONTROLLER}.checkpoint", ["self", "force", "wait"]),
    ("tune.controller", f"{CONTROLLER}.cleanup", ["self"]),
    ("tune.controller", f"{CONTROLLER}.__getstate__", ["self"]),
    ("tune.controller", f"{ACTORS}.remove_actor", ["self", "tracked_actor", "kill", "stop_future"]),
    ("tune.controller", f"{ACTORS}.is_actor_started", ["self", "tracked_actor"]),
    ("tune.controller", f"{ACTORS}.get_actor_resources", ["self", "tracked_actor"]),
    ("tune.slot_resources", f"{MANAGER}.request_resources", ["self", "resource_request"]),
    ("tune.slot_resources", f"{MANAGER}.cancel_resource_request", ["self", "resource_request"]),
    ("tune.slot_resources", f"{MANAGER}.has_resources_ready", ["self", "resource_request"]),
    ("tune.slot_resources", f"{MANAGER}.acquire_resources", ["self", "resource_request"]),
    ("tune.slot_resources", f"{MANAGER}.free_resources", ["self", "acquired_resource"]),
    ("tune.slot_resources", f"{MANAGER}.get_resource_futures", ["self"]),
    ("tune.slot_resources", f"{MANAGER}.update_state", ["self"]),
    ("tune.slot_resources", f"{MANAGER}.clear", ["self"]),
    (
        "tune.slot_resources",
        "ray.air.execution.resources.request.AcquiredResources._annotate_remote_entity",
        ["self", "entity", "bundle", "bundle_index"],
    ),
]


@pytest.mark.parametrize(
    ("where", "path", "expected"), SIGNATURES, ids=[row[1].split(".", 3)[-1] for row in SIGNATURES]
)
def test_signatures(where: str, path: str, expected: list[str]) -> None:
    module_path, cls, name = path.rsplit(".", 2)
    function = getattr(getattr(importlib.import_module(module_path), cls), name, None)
    assert function is not None, ray_changed(f"{path} is gone", where)
    assert list(inspect.signature(function).parameters) == expected, ray_changed(f"the parameters of {path}", where)


def test_the_controller_takes_a_resource_manager() -> None:
    parameters = inspect.signature(private.TuneController.__init__).parameters
    for name in ("resource_manager_factory", "metric", "scheduler"):
        assert name in parameters, ray_changed(f"TuneController takes no {name}", "tune.controller")


def test_actors_wait_in_lists_and_the_first_is_served_first() -> None:
    manager = importlib.import_module("ray.air.execution._internal.actor_manager").RayActorManager
    source = inspect.getsource(manager._try_start_actors)
    assert "in self._resource_request_to_pending_actors" in source and "candidate_actors.pop(0)" in source, ray_changed(
        "actors that wait are kept in another way", "tune.tune_private.waiting_actors"
    )
    assert all(
        isinstance(row, list) for row in private.waiting_actors(manager(private.PlacementGroupResourceManager()))
    )


def test_an_idle_actor_is_kept_although_nobody_wants_one_and_leaves_when_all_have_to() -> None:
    cache = importlib.import_module("ray.tune.utils.object_cache")._ObjectCache(may_keep_one=True)
    cache.cache_object("gpu", "idle")
    assert list(cache.flush_cached_objects(force_all=False)) == [], ray_changed(
        "no idle actor is kept", "tune.controller"
    )
    assert list(cache.flush_cached_objects(force_all=True)) == ["idle"]


def test_a_class_that_cannot_save_is_one_that_does_not_override() -> None:
    class Silent(private.Trainable): ...  # type: ignore[misc]  # Ray is untyped here

    class Saving(private.Trainable):  # type: ignore[misc]
        def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    with pytest.raises(NotImplementedError):
        private.Trainable.save_checkpoint(None, "")
    wrap = importlib.import_module("ray.tune.trainable").wrap_function
    told = [private.saves_when_asked(cls) for cls in (Silent, Saving, wrap(lambda config: None))]
    assert told == [False, True, False], ray_changed("how a class says that it saves", "tune.tune_private")


def test_run_makes_the_controller_from_its_module_and_knows_the_mode() -> None:
    module = importlib.import_module("ray.tune.tune")
    assert hasattr(module, private.CONTROLLER_NAME), ray_changed("ray.tune.tune has no TuneController", "tune.inject")
    assert "runner = TuneController(" in inspect.getsource(module.run), ray_changed(
        "run() makes no TuneController", "tune.inject"
    )
    assert "mode" in inspect.signature(module.run).parameters, ray_changed("run() takes no mode", "tune.inject")


def test_run_says_who_called_it_and_resumes_when_told() -> None:
    module = importlib.import_module("ray.tune.tune")
    parameters = inspect.signature(module.run).parameters
    for name in (
        "run_or_experiment",
        "name",
        "storage_path",
        "storage_filesystem",
        "resume",
        "resume_config",
        "_entrypoint",
    ):
        assert name in parameters, ray_changed(f"run() takes no {name}", "tune.inject")
    assert parameters["_entrypoint"].default is private.AirEntrypoint.TUNE_RUN
    tuner = importlib.import_module("ray.tune.impl.tuner_internal").TunerInternal
    assert inspect.signature(tuner.__init__).parameters["_entrypoint"].default is private.AirEntrypoint.TUNER
    config = module._build_resume_config_from_legacy_config(inject.RESUME)
    assert (config.errored, config.unfinished) == (config.ResumeType.RESUME, config.ResumeType.RESUME), ray_changed(
        "what resume means", "tune.inject"
    )


def test_attributes_of_the_controller_that_we_read_or_write() -> None:
    source = inspect.getsource(private.TuneController)
    for name in (
        "_actor_manager", "_actor_to_trial", "_trial_to_actor", "_pending_trials_list", "_running_trials", "_stopped_trials",
        "_failed_trials", "_staged_trials", "_stopping_actors", "_reuse_actors", "_cached_trial_decisions",
        "_queued_trial_decisions", "_scheduler_alg", "_search_alg", "_metric", "_trials", "_max_pending_trials",
        "_resetting_trials", "_actor_cache",
    ):  # fmt: skip
        assert f"self.{name}" in source, ray_changed(f"TuneController has no {name}", "tune.controller")


def test_a_search_is_found_again_by_its_state_file() -> None:
    template = private.TuneController.CKPT_FILE_TMPL
    assert template.format("x").startswith("experiment_state-"), ray_changed(
        "the name of a search's state", "tune.resume"
    )


def test_the_tuner_can_be_restored() -> None:
    tuner = importlib.import_module("ray.tune.tuner").Tuner
    names = inspect.signature(tuner.restore).parameters
    for name in ("path", "trainable", "resume_unfinished", "resume_errored", "param_space"):
        assert name in names, ray_changed(f"Tuner.restore takes no {name}", "tune.inject")
    assert "_tuner_internal" in inspect.signature(tuner.__init__).parameters, ray_changed(
        "Tuner.__init__", "tune.inject"
    )


def test_a_request_says_what_its_head_bundle_is() -> None:
    from heliostat_jobs.tune.slot_resources import _bundles

    assert _bundles(private.ResourceRequest([{"CPU": 1, "GPU": 1}])) == [{"CPU": 1.0, "GPU": 1.0}]
    assert _bundles(private.ResourceRequest([{}, {"GPU": 1}])) == [{}, {"GPU": 1.0}]
