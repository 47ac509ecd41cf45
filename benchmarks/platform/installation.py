"""A whole installation of its own for one measurement: temporary home, free port, own Ray head; always ended."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from heliostat import local
from heliostat.settings import Settings


@dataclass(frozen=True)
class Installation:
    """A running control plane. `ray_url` is the dashboard of its Ray head, `ray_token` that cluster's token."""

    home: Path
    url: str
    token: str
    ray_url: str
    ray_token: str
    control_pid: int
    settings: Settings

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    def ray_client(self) -> httpx.Client:
        return httpx.Client(base_url=self.ray_url, headers={"Authorization": f"Bearer {self.ray_token}"}, timeout=30)


@contextmanager
def installation(gpus: int = 2) -> Iterator[Installation]:
    """Up, and down again whatever happens."""
    home = Path(tempfile.mkdtemp(prefix="hb-", dir="/tmp"))
    settings = replace(Settings(home=home), port=free_port())
    try:
        yield start(settings, gpus)
    finally:
        local.down(settings)
        shutil.rmtree(home)


def start(settings: Settings, gpus: int = 2) -> Installation:
    running = local.up(settings, local.UpOptions(gpus=gpus, object_store_bytes=200_000_000, i_have_a_firewall=True))
    return Installation(
        home=settings.home,
        url=running.control.url,
        token=settings.admin_token_path.read_text().strip(),
        ray_url=running.ray.dashboard_url,
        ray_token=Path(running.ray.token_path).read_text().strip(),
        control_pid=running.control.pid,
        settings=settings,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
