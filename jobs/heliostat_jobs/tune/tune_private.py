"""Every private name of Ray Tune that Heliostat subclasses or calls, in one place; the version is Ray Train's (`check_version`).

tests/contracts/test_ray_tune_private.py holds each: existence, signature and the assumption made about it.
"""

from __future__ import annotations

from typing import Any

from ray.air._internal.usage import AirEntrypoint
from ray.air.execution import PlacementGroupResourceManager, ResourceManager
from ray.air.execution.resources.request import AcquiredResources, ResourceRequest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Experiment, Trial
from ray.tune.registry import is_function_trainable
from ray.tune.result import DEFAULT_METRIC, TRAINING_ITERATION
from ray.tune.schedulers import TrialScheduler
from ray.tune.trainable import Trainable
from ray.tune.trainable.trainable_fn_utils import _in_tune_session as in_tune_session

CONTROLLER_NAME = "TuneController"
"""The name in `ray.tune.tune` that `run` makes the controller from."""
STATE_FILES = "experiment_state-*.json"
"""What a search that can be resumed has in its folder."""

__all__ = [
    "CONTROLLER_NAME",
    "DEFAULT_METRIC",
    "STATE_FILES",
    "TRAINING_ITERATION",
    "AcquiredResources",
    "AirEntrypoint",
    "Experiment",
    "PlacementGroupResourceManager",
    "ResourceManager",
    "ResourceRequest",
    "Trainable",
    "Trial",
    "TrialScheduler",
    "TuneController",
    "in_tune_session",
    "saves_when_asked",
    "waiting_actors",
]


def saves_when_asked(cls: Any) -> bool:  # Any: what Trial.get_trainable_cls returns
    """Whether `save` works at any moment. A function attaches checkpoints to its reports; Trainable's own method raises NotImplementedError."""
    return not is_function_trainable(cls) and cls.save_checkpoint is not Trainable.save_checkpoint


def waiting_actors(manager: Any) -> list[list[Any]]:  # Any: a RayActorManager and its TrackedActors
    """For each request for resources the actors that wait for it, in the order in which they get it. The lists are the manager's own."""
    return list(manager._resource_request_to_pending_actors.values())
