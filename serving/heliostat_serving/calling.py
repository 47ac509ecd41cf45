"""A gateway's calls to versions. A version's `infer` never raises, so an exception here is the transport's: the replica died, or
was just taken away. A prediction changes nothing, so it is sent again; Serve's router has struck the dead replica by then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any  # Any: Serve's handles have no types

from ray import serve
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from heliostat_serving.door.counting import Counter
from heliostat_serving.spec import DEPLOYMENT, Target
from heliostat_serving.wire.faults import Fault
from heliostat_serving.wire.tensors import Tensors

logger = logging.getLogger("ray.serve")
PAUSES_S = (0.0, 0.05, 0.2)
"""Before each further attempt. The first is what a dead replica needs; the others are for a second death at once."""


class Remote:
    """The backend of a gateway: one handle per version's application."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._handles: dict[str, Any] = {}

    def use(self, targets: Iterable[Target]) -> None:
        """Handles of the versions that are named now; the others are dropped when their last call is over."""
        kept = {target.app: self._handles.get(target.app) for target in targets}
        self._handles = {app: handle or _handle(app) for app, handle in kept.items()}

    async def infer(self, target: Target, inputs: Tensors, rows: int, retry: bool) -> Tensors:
        handle = self._handles.get(target.app) or _handle(target.app)
        for pause_s in (*(PAUSES_S if retry else ()), None):
            try:
                return _outputs(await handle.remote(inputs, rows))
            except Fault:
                raise
            except BackPressureError as error:
                raise Fault(
                    "too_many_in_flight", f"{target.label} is busy.", "Send fewer calls at once.", 1.0
                ) from error
            except Exception as error:
                if pause_s is None or isinstance(error, DeploymentUnavailableError):
                    logger.warning("A call to %s failed for good: %s: %s", target.app, type(error).__name__, error)
                    raise Fault(
                        "replica_lost", f"{target.label} was lost during the call.", "Send it again.", 1.0
                    ) from error
                logger.warning("A call to %s is sent again: %s: %s", target.app, type(error).__name__, error)
            self._counter.retried(target.label)
            await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")


def _outputs(answer: tuple[Tensors | None, str]) -> Tensors:
    outputs, failure = answer
    if outputs is None:
        raise Fault("model_failed", failure, "The version's log knows the request.")
    return outputs


def _handle(app: str) -> Any:
    try:
        handle = serve.get_deployment_handle(DEPLOYMENT, app_name=app)
    except RayServeException as error:
        raise Fault("replica_lost", f"There is no application {app}.", "Try again later.", 5.0) from error
    return handle.options(method_name="infer", request_serialization="pickle", response_serialization="pickle")
