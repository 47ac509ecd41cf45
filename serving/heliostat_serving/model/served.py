"""A loaded version: fetch, verify, load, try, then answer. The only door to a model, for `Version` and `Direct` alike."""

from __future__ import annotations

import logging
import shutil

from heliostat_serving.model import artifact, loading, trial
from heliostat_serving.model.batching import Batcher
from heliostat_serving.model.promise import BrokenPromiseError, keeping
from heliostat_serving.spec import VersionSpec
from heliostat_serving.wire.tensors import Tensors

logger = logging.getLogger("ray.serve")
HUNG_S = 300.0
"""A single call that computes longer than this makes the replica unhealthy, and Serve replaces it."""


class ModelFailed(Exception):
    """The model raised on an input that its signature allows, or answered otherwise than that promises.

    The text is for the caller; the traceback is in the log.
    """


class Served:
    def __init__(self, spec: VersionSpec) -> None:
        found = artifact.fetch(spec.artifact_uri, spec.sha256)
        try:
            predict = keeping(loading.load(found, spec), spec.signature)
            cost_s = trial.attempt(predict, spec.signature)
        except artifact.HeliostatLoadError:
            raise
        except Exception as error:
            raise artifact.HeliostatLoadError(
                f"{spec.model} version {spec.model_version} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        finally:
            shutil.rmtree(found.folder, ignore_errors=True)
        self._name = f"{spec.model} version {spec.model_version}"
        self._batcher = Batcher(predict, spec.batching, spec.signature.batched, cost_s)
        logger.info("%s is loaded; a row takes %.2f ms.", self._name, cost_s * 1000)

    async def infer(self, inputs: Tensors, rows: int) -> Tensors:
        try:
            return await self._batcher.run(inputs, rows)
        except BrokenPromiseError as error:
            logger.exception("%s broke its promise.", self._name)
            raise ModelFailed(f"{self._name} does not answer by its signature. {error}") from error
        except Exception as error:
            logger.exception("%s failed.", self._name)
            raise ModelFailed(f"{self._name} failed on this input.") from error

    def check(self) -> None:
        busy_s = self._batcher.busy_s()
        if busy_s > HUNG_S:
            raise RuntimeError(f"{self._name} has computed one call for {busy_s:.0f} s.")
