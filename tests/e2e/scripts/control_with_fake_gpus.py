"""The control plane, with GPUs whose activity stands in a file (permille; no file: no reading) and with short marks of idleness."""

from __future__ import annotations

import argparse
from pathlib import Path

from heliostat.control.main import ControlPlane
from heliostat.settings import load
from heliostat_scheduler.core import Policy
from heliostat_scheduler.live.protocol import NodeJoined

ACTIVITY_FILE = "activity"
WINDOW_MS = 1_000
IDLE_AFTER_MS = 8_000
POLICY = Policy(
    name="soon-idle",
    idle_warmup_ms=0,
    suspect_after_ms=4_000,
    idle_after_ms=IDLE_AFTER_MS,
    cooldown_ms=0,
    resize_interval_ms=0,
    aging_step_ms=0,
)


class WrittenDown:
    """The same activity for every GPU: what the file says."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, nodes: list[NodeJoined]) -> dict[str, int]:
        if not self._path.exists():
            return {}
        activity = int(self._path.read_text())
        return {slot.slot: activity for node in nodes for slot in node.slots}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    settings = load()
    telemetry = WrittenDown(settings.home / ACTIVITY_FILE)
    plane = ControlPlane(settings, given.host, given.port, policy=POLICY, telemetry=telemetry, window_ms=WINDOW_MS)
    return plane.run()


if __name__ == "__main__":
    raise SystemExit(main())
