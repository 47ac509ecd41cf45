"""Ports of this machine: choose free ones, say who holds one, and say which addresses the world can reach."""

from __future__ import annotations

import ipaddress
import random
import socket
from dataclasses import dataclass
from typing import Any

import psutil

from heliostat.local.errors import LocalError

FIRST, LAST = 20_000, 32_000
"""Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port between choice and use."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Somebody who listens. pid 0: the system does not tell this user."""

    address: str
    port: int
    pid: int
    name: str


def is_free(port: int, host: str = "") -> bool:
    """Whether a server could bind here now. host "" is every interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose(purposes: tuple[str, ...], remembered: dict[str, int]) -> dict[str, int]:
    """One free port for each purpose, the remembered one where it is still free."""
    chosen: dict[str, int] = {}
    candidates = iter(random.SystemRandom().sample(range(FIRST, LAST), LAST - FIRST))
    for purpose in purposes:
        port = remembered.get(purpose, 0)
        while not port or port in chosen.values() or not is_free(port):
            port = next(candidates)
        chosen[purpose] = port
    return chosen


def require_free(host: str, port: int) -> None:
    """Raise a LocalError that names the holder when the port is taken."""
    if is_free(port, host):
        return
    holders = [listener for listener in listeners() if listener.port == port]
    who = " and ".join(sorted({f"{h.name} (pid {h.pid})" if h.pid else "another user's process" for h in holders}))
    raise LocalError(
        "port_in_use",
        f"Port {port} on {host} is in use by {who or 'a process that this user cannot see'}.",
        f"End that process, or choose another port: helio up --port {port + 1}",
    )


def listeners() -> list[Listener]:
    """Every listening TCP socket of the machine, as far as this user may see who holds it."""
    try:
        return [listener for c in psutil.net_connections(kind="tcp") if (listener := _listener(c, c.pid or 0))]
    except psutil.AccessDenied:  # macOS: only one's own processes
        return _own_listeners()


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address.split("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def own_addresses() -> list[str]:
    """Every address of this machine."""
    entries = [entry for interface in psutil.net_if_addrs().values() for entry in interface]
    return sorted({e.address.split("%")[0] for e in entries if e.family in (socket.AF_INET, socket.AF_INET6)})


def public_addresses() -> list[str]:
    """Those that are routable on the internet."""
    return [address for address in own_addresses() if ipaddress.ip_address(address).is_global]


def _own_listeners() -> list[Listener]:
    found = []
    for process in psutil.process_iter():
        try:
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        found += [listener for c in connections if (listener := _listener(c, process.pid))]
    return found


def _listener(connection: Any, pid: int) -> Listener | None:  # Any: psutil's two connection tuples have no common type
    if connection.status != psutil.CONN_LISTEN:
        return None
    return Listener(connection.laddr.ip, connection.laddr.port, pid, _name(pid))


def _name(pid: int) -> str:
    if not pid:
        return "?"
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"
