"""How busy each GPU is: read from Ray's dashboard agents, one number per slot. No reading means unknown, never idle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from heliostat_scheduler.live.protocol import NodeJoined

from heliostat.control.bridge_reader import Log
from heliostat.control.messages import Message, SlotsRead
from heliostat.control.ray_jobs import DashboardJobs, RayUnreachable

WINDOW_MS = 10_000


class GpuTelemetry(Protocol):
    def read(self, nodes: list[NodeJoined]) -> dict[str, int]:
        """Slot -> activity in permille, for the slots that have a reading now."""
        ...


class DashboardTelemetry:
    """`/nodes?view=summary`: Ray's agents ask the GPU library every few seconds."""

    def __init__(self, dashboard: DashboardJobs) -> None:
        self._dashboard = dashboard

    def read(self, nodes: list[NodeJoined]) -> dict[str, int]:
        body = self._dashboard.get_json("/nodes?view=summary")
        return by_slot(body, nodes)


def by_slot(body: dict[str, Any], nodes: list[NodeJoined]) -> dict[str, int]:  # Any: JSON
    """The summary's GPUs as slots, by node and device index."""
    readings: dict[tuple[str, int], int] = {}
    for node in body.get("data", {}).get("summary", ()):
        node_id = str(node.get("raylet", {}).get("nodeId", ""))
        for gpu in node.get("gpus") or ():
            utilization = gpu.get("utilizationGpu")
            if isinstance(utilization, int | float):
                readings[node_id, int(gpu.get("index", -1))] = round(utilization * 10)
    return {
        slot.slot: readings[node.node, slot.device]
        for node in nodes
        for slot in node.slots
        if (node.node, slot.device) in readings
    }


class TelemetryPoll:
    """Reads every window while there are GPUs to read; sleeps otherwise."""

    def __init__(
        self,
        telemetry: GpuTelemetry,
        nodes: Callable[[], list[NodeJoined]],
        post: Callable[[Message], None],
        log: Log,
        window_ms: int = WINDOW_MS,
    ) -> None:
        self._telemetry = telemetry
        self._window_ms = window_ms
        self._nodes = nodes
        self._post = post
        self._log = log
        self._failing = False

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(self._window_ms / 1000):
            nodes = [node for node in self._nodes() if node.slots]
            if nodes:
                self._once(nodes)

    def _once(self, nodes: list[NodeJoined]) -> None:
        try:
            activity = self._telemetry.read(nodes)
        except RayUnreachable as error:
            if not self._failing:
                self._log("warning", "telemetry_unavailable", {"text": str(error)})
            self._failing = True
            return
        self._failing = False
        if activity:
            self._post(SlotsRead(activity, self._window_ms))
