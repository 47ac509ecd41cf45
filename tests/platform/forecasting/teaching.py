"""The forecasting process's learning in this process: it follows a plant's log and posts what it has learned."""

from __future__ import annotations

import json
from collections.abc import Iterable

from heliostat.control.learned import learned_of
from heliostat.forecasting.expecting import MOST, Expecting
from heliostat.forecasting.measuring import Measuring
from heliostat.forecasting.mirror import Mirror
from heliostat.store import jobs
from heliostat.store.tables import DecisionLog
from heliostat_scheduler.core import codec
from heliostat_scheduler.core.events import Estimated
from sqlalchemy.orm import Session

from tests.platform.control.plant import Plant


class Teacher:
    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.mirror = Mirror(plant.store.read, digest=True)
        self.expecting = Expecting(plant.store.read)
        self.measuring = Measuring(plant.store.read)

    def look(self, most: int = MOST) -> int:
        """How many estimates and curves were told, once everything that happened is in the log."""
        self.plant.until(self.follows, "the mirror to be the live engine")
        told = self.expecting.look(self.mirror.engine, self.plant.cluster.now_ms, most) or {"rests": []}
        told["curves"] = self.measuring.look(self.mirror.engine)
        self.plant.post(learned_of(json.loads(json.dumps(told))))
        self.plant.settle()
        return len(told["rests"]) + len(told["curves"])

    def follows(self) -> bool:
        """Whether the mirror is the live engine: everything told is in the log."""
        self.mirror.catch_up()
        return self.mirror.engine.digest() == self.plant.loop.engine.digest()


def estimates(plant: Plant) -> list[Estimated]:
    """All that the decision log holds."""
    with plant.store.read() as session:
        rows = session.query(DecisionLog).order_by(DecisionLog.cycle).all()
        found: Iterable[list[object]] = (pair for row in rows for pair in codec.loads(row.events))
        events = [codec.decode(codec.TAGGED[event["type"]], event) for _, event in found]  # type: ignore[index]
    return [event for event in events if isinstance(event, Estimated)]


def logged(plant: Plant, count: int) -> None:
    """Until so many are in the log: a cycle comes some time after what it is about."""
    plant.until(lambda: len(estimates(plant)) >= count, f"{count} estimates in the log")


def ran(plant: Plant, name: str, ran_ms: int, count: int, queue: str = "default", state: str = "succeeded") -> None:
    """So many finished jobs of that name in the store."""

    def write(session: Session) -> None:
        for i in range(count):
            jobs.add(
                session,
                {"id": f"{name}-{queue}-{i}", "project": "default", "user": "ann", "name": name, "kind": "ray", "queue": queue, "state": state,
                 "min_tasks": 1, "max_tasks": 1, "gpu_milli": 1000, "cpu_milli": 1000, "entrypoint": "x", "submitted_ms": 1,
                 "ran_ms": ran_ms, "finished_ms": 2},
            )  # fmt: skip

    plant.store.write(write)
