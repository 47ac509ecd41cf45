"""The control plane as a process: `python -m heliostat.control.main`, started by `helio up`.

Store first (its lock: there is only one of us), then the loop, then the doors; the record in the state folder is written when
the port answers. It ends on SIGTERM: doors closed, loop stopped after its turn, bridge ended with its pipe, store closed. What
runs on Ray goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from types import FrameType
from typing import Any

import uvicorn
from heliostat_scheduler.core import Policy
from heliostat_scheduler.live.protocol import Bye

from heliostat.access import Tokens
from heliostat.api.app import create_app
from heliostat.api.options import DoorOptions
from heliostat.artifacts import Artifacts
from heliostat.control.bridge_link import BridgeLink
from heliostat.control.clock import SystemClock
from heliostat.control.drivers import DriverDesk
from heliostat.control.endpoint_link import LoopLink
from heliostat.control.head import RecordedHead
from heliostat.control.inbox import Inbox
from heliostat.control.launch import Launcher
from heliostat.control.learned import learned_of
from heliostat.control.live_port import LivePort, Surroundings
from heliostat.control.loop import Loop, Parts
from heliostat.control.package_source import PackageSource
from heliostat.control.ray_jobs import DashboardJobs
from heliostat.control.tails import ThreadPool, WebSocketTails
from heliostat.control.telemetry import WINDOW_MS, DashboardTelemetry, GpuTelemetry, TelemetryPoll
from heliostat.endpoints.assembly import assemble
from heliostat.forecasting.exporting import BadWebhook, Exporter
from heliostat.forecasting.link import Forecaster
from heliostat.local import records
from heliostat.local.ports import own_addresses
from heliostat.local.records import ControlRecord, ProcessId
from heliostat.registry.registrar import Registrar
from heliostat.settings import Settings, load
from heliostat.store import Store, StoreError

GRACEFUL_S = 3


def log(level: str, event: str, fields: dict[str, Any]) -> None:  # Any: JSON
    """One line: time, level, a past-tense name, fields."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    sys.stdout.write(f"{at} {level} {event} {json.dumps(fields, default=str, sort_keys=True)}\n")
    sys.stdout.flush()


class Server(uvicorn.Server):
    """Writes the state record once it listens."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, host: str, port: int, close_streams: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._close_streams = close_streams
        self._settings = settings
        self._host = host
        self._port = port

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Open streams end at once: they would hold up the end for seconds."""
        self._close_streams()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            _write_record(self._settings, self._host, self._port)


class ControlPlane:
    """Everything of the process, put together once.

    policy: the scheduler's numbers. telemetry: who says how busy GPUs are, logical ones too; None: Ray's agents, about real ones.
    """

    def __init__(
        self,
        settings: Settings,
        host: str,
        port: int,
        *,
        policy: Policy | None = None,
        telemetry: GpuTelemetry | None = None,
        window_ms: int = WINDOW_MS,
    ) -> None:
        self.settings = settings
        self.stop = threading.Event()
        self.outdated = ""
        self.clock = SystemClock()
        self.store = Store(settings.database_url)
        self.store.lock_executor()
        Tokens(self.store, self.clock.now_ms).ensure_admin(settings.admin_token_path)
        self.head = RecordedHead(settings.ray_state_path)
        self.inbox = Inbox()
        self.dashboard = DashboardJobs(self.head.record)
        self.pool = ThreadPool()
        drivers = DriverDesk(self.dashboard, self.pool, WebSocketTails(self.dashboard), self.inbox.post)
        self.link = BridgeLink(settings, self.head.record, self.inbox.post)
        self.endpoints = assemble(settings, self.store, self.head.record, LoopLink(self.inbox), self.clock.now_ms, log)
        packages = PackageSource(self.store, Artifacts(str(settings.artifacts_dir)))
        self.loop = Loop(
            Parts(
                store=self.store,
                clock=self.clock,
                bridge=self.link,
                drivers=drivers,
                head=self.head,
                launcher=Launcher(settings.runs_dir, packages.find, self._driver_cpus),
                log=log,
                reserve_cpu_milli=self._reserve,
                on_outdated=self._outdated,
                policy=policy or Policy(),
                serving=self.endpoints,
            ),
            self.inbox,
        )
        around = Surroundings(settings, version("heliostat"), self.head.record, self.link.pid, self.clock.now_ms())
        self.forecaster = Forecaster(
            self.store,
            settings.logs_dir / "forecast.log",
            log,
            self.clock.now_ms,
            lambda told: self.inbox.post(learned_of(told)),
        )
        self.exporter = Exporter(self.store, settings.heads_path, settings.audit_webhook, self.clock.now_ms, log)
        self.port = LivePort(self.loop, self.store, around, self.forecaster)
        options = DoorOptions(hosts=_names(host))
        self.app = create_app(
            self.store, self.port, settings, options=options, clock_ms=self.clock.now_ms, endpoints=self.endpoints
        )
        config = uvicorn.Config(
            self.app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACEFUL_S,
        )
        self.server = Server(config, settings, host, port, self.app.state.closing.close)
        registry = self.app.state.doors.registry
        registry.folders.sweep()
        self.registrar = Registrar(registry, self.loop.parts.launcher.run_dir, self.clock.now_ms, log)
        self.logical_gpus_are_read = telemetry is not None
        readings = telemetry or DashboardTelemetry(self.dashboard)
        self.telemetry = TelemetryPoll(readings, self._nodes, self.inbox.post, log, window_ms)

    def run(self) -> int:
        self.loop.boot()
        threads = [
            threading.Thread(target=self.loop.run, args=(self.stop,), name="control-loop", daemon=True),
            threading.Thread(target=self.telemetry.run, args=(self.stop,), name="telemetry", daemon=True),
            threading.Thread(target=self.registrar.run, args=(self.stop,), name="registrar", daemon=True),
            threading.Thread(target=self.exporter.run, args=(self.stop,), name="heads", daemon=True),
            threading.Thread(target=self.endpoints.run, args=(self.stop,), name="endpoints", daemon=True),
        ]
        for thread in threads:
            thread.start()
        self.link.start()
        self.forecaster.start()
        log("info", "control_started", {"pid": os.getpid(), "term": self.loop.executor.term})
        with self._ending(threads[0]):
            self.server.run()
        if self.outdated:
            log("error", "control_outdated", {"text": self.outdated})
        return 3 if self.outdated else 0

    @contextlib.contextmanager
    def _ending(self, loop_thread: threading.Thread) -> Iterator[None]:
        try:
            yield
        finally:
            self.stop.set()
            self.inbox.wake()
            self.endpoints.look()
            loop_thread.join(10)
            self.forecaster.close()
            self.link.close(self._farewell())
            self.pool.close()
            self.dashboard.close()
            self.store.close()
            log("info", "control_stopped", {"pid": os.getpid()})

    def _farewell(self) -> Bye | None:
        """A cluster that we only joined gets its GPUs back when no job of ours runs there."""
        record = self.head.record()
        joined = record is not None and record.mode == "attached"
        executor = self.loop.executor
        if not joined or executor.attempts or not self.loop.bridge.connected:
            return None
        return Bye(next(executor.ids), executor.term, remove_slots=True)

    def _reserve(self) -> int:
        record = self.head.record()
        return record.reserve_cpu_milli if record is not None else 0

    def _driver_cpus(self) -> float:
        """An equal part of the reserve for each driver that there can be: one per slot and per floating CPU."""
        record = self.head.record()
        if record is None or not record.reserve_cpu_milli:
            return 0.0
        reserve = record.reserve_cpu_milli / 1000
        return max(0.01, min(1.0, round(reserve / max(1.0, record.cpus - reserve), 2)))

    def _nodes(self) -> list[Any]:  # NodeJoined
        record = self.head.record()
        if record is None or (record.logical_gpus and not self.logical_gpus_are_read):
            return []
        with self.loop.engine_lock:
            return list(self.loop.executor.nodes.values())

    def _outdated(self, text: str) -> None:
        """A control plane of a later term speaks to the bridge: leave it the field."""
        self.outdated = text
        self.server.should_exit = True


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m heliostat.control.main", description="The control plane; see helio up."
    )
    parser.add_argument("--host", default="")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    settings = load()
    try:
        plane = ControlPlane(settings, given.host or settings.host, given.port or settings.port)
    except StoreError as error:
        log("error", "store_unusable", {"text": str(error), "remedy": error.remedy})
        return 2
    except BadWebhook as error:
        log("error", "webhook_refused", {"text": str(error), "remedy": "Correct audit_webhook in config.toml."})
        return 2
    return plane.run()


def _names(host: str) -> tuple[str, ...]:
    """The names under which others may call us: all of this machine's when it listens on all interfaces."""
    if host not in ("0.0.0.0", "::"):
        return (host,)
    return (socket.gethostname(), socket.getfqdn(), *own_addresses())


def _write_record(settings: Settings, host: str, port: int) -> None:
    me = ProcessId.of(os.getpid())
    shown = f"[{host}]" if ":" in host else host
    record = ControlRecord(me.pid, me.start_time, f"http://{shown}:{port}", host, port, version("heliostat"))
    records.write(settings.control_state_path, record)


if __name__ == "__main__":
    sys.exit(main())
