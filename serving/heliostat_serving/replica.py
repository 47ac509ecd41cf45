"""What Ray Serve starts: a version behind a gateway, a version as its own ingress, and a gateway.

In `Version` and `Direct` the model is loaded in the constructor: a replica that cannot load dies with a HeliostatLoadError, Serve
keeps the traceback in the deployment's status, and no call ever reaches it. In `Gateway` nothing is loaded; it holds handles.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any  # Any: JSON of Serve's arguments

from ray import serve

from heliostat_serving.calling import Remote
from heliostat_serving.door.app import Door
from heliostat_serving.door.state import Books
from heliostat_serving.metrics import Metrics
from heliostat_serving.model.served import ModelFailed, Served
from heliostat_serving.spec import DirectConfig, GatewayConfig, GatewaySpec, Target, VersionSpec, route
from heliostat_serving.wire.faults import Fault
from heliostat_serving.wire.tensors import Tensors

logger = logging.getLogger("ray.serve")
FLUSH_S = 0.5


class Version:
    """One version behind a gateway. `infer` never raises: an exception that a gateway sees is the replica's death."""

    def __init__(self, args: dict[str, Any]) -> None:
        self._served = Served(VersionSpec.from_json(args))

    async def infer(self, inputs: Tensors, rows: int) -> tuple[Tensors | None, str]:
        try:
            return await self._served.infer(inputs, rows), ""
        except ModelFailed as error:
            return None, str(error)

    async def check_health(self) -> None:
        self._served.check()


class Local:
    """The backend of direct mode: this replica's own model."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def infer(self, target: Target, inputs: Tensors, rows: int, retry: bool) -> Tensors:
        try:
            return await self._served.infer(inputs, rows)
        except ModelFailed as error:
            raise Fault("model_failed", str(error), "Its log knows the request.") from error


@serve.ingress()
class Direct:
    """The only version of an endpoint, and its door in one process."""

    def __init__(self, args: dict[str, Any]) -> None:
        spec = VersionSpec.from_json(args)
        self._served = Served(spec)
        books = _books(spec.endpoint)
        self._door = Door(Local(self._served), books, route(spec.endpoint))

    def __serve_build_asgi_app__(self) -> Door:
        return self._door

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._door.configure(DirectConfig.from_json(user_config))

    async def check_health(self) -> None:
        self._served.check()


@serve.ingress()
class Gateway:
    """The door of an endpoint with any number of versions."""

    def __init__(self, args: dict[str, Any]) -> None:
        spec = GatewaySpec.from_json(args)
        books = _books(spec.endpoint)
        self._remote = Remote(books.counter)
        self._door = Door(self._remote, books, route(spec.endpoint))

    def __serve_build_asgi_app__(self) -> Door:
        return self._door

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        config = GatewayConfig.from_json(user_config)
        self._remote.use(config.targets)
        self._door.configure(config)


def _books(endpoint: str) -> Books:
    """The books of this replica, and the thread that carries them out."""
    books = Books(serve.get_replica_context().replica_id.unique_id)
    metrics = Metrics(endpoint)
    threading.Thread(target=_carry_out, args=(books, metrics), name="heliostat-books", daemon=True).start()
    return books


def _carry_out(books: Books, metrics: Metrics) -> None:
    while True:
        time.sleep(FLUSH_S)
        try:
            books.flush(time.monotonic())
            metrics.add(books.counter.take())
        except Exception:
            logger.exception("The books of this replica could not be carried out; the next turn tries again.")
