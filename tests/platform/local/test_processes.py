"""A record names a process only while pid and start time agree; nothing else is ever ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from heliostat.local import LocalError, UpOptions, cluster, ports, processes, records
from heliostat.local.machine import OBJECT_STORE_MAX_BYTES, Shape, object_store_size
from heliostat.local.ray_head import command
from heliostat.local.records import INSTANCE, ControlRecord, ProcessId, RayRecord
from heliostat.settings import load

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = processes.spawn(SLEEP, {**os.environ, INSTANCE: "test-word:ray:1"}, tmp_path / "log", tmp_path)
    yield child
    child.kill()
    child.wait()


def test_a_living_process_is_known_by_pid_and_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    assert ProcessId.of(sleeper.pid).alive()


def test_a_reused_pid_is_somebody_else(sleeper: subprocess.Popen[bytes]) -> None:
    stale = ProcessId(sleeper.pid, ProcessId.of(sleeper.pid).start_time - 60)
    assert not stale.alive()
    assert processes.kill([stale]) == []
    assert sleeper.poll() is None


def test_our_processes_are_found_by_their_mark_and_ended(sleeper: subprocess.Popen[bytes]) -> None:
    identity = ProcessId.of(sleeper.pid)
    assert processes.ours("test-word:") == [identity]
    assert processes.ours("other-word:") == []
    assert processes.end(identity, lambda: processes.ours("test-word:"), 5.0) == []
    assert not identity.alive()


def test_an_unreadable_state_file_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "ray.json"
    for text in ("", "{", "[]", '{"mode": "local"}'):
        path.write_text(text)
        assert records.read(path, RayRecord) is None


def test_a_record_is_read_back_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "control.json"
    record = ControlRecord(1, 2.5, "http://127.0.0.1:8700", "127.0.0.1", 8700, "0.1.0")
    records.write(path, record)
    assert records.read(path, ControlRecord) == record
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_homes_have_two_words() -> None:
    assert records.instance_of(Path("/a")) != records.instance_of(Path("/b"))


def test_remembered_ports_are_kept_unless_taken() -> None:
    first = ports.choose(("gcs", "dashboard"), {})
    assert ports.choose(("gcs", "dashboard"), first) == first
    with socket.socket() as taken:
        taken.bind(("", first["gcs"]))
        taken.listen()
        again = ports.choose(("gcs", "dashboard"), first)
        assert (again["gcs"] != first["gcs"], again["dashboard"]) == (True, first["dashboard"])
        with pytest.raises(LocalError, match=f"pid {os.getpid()}") as told:
            ports.require_free("127.0.0.1", first["gcs"])
    assert told.value.code == "port_in_use"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
    ],
)
def test_what_other_machines_can_reach(address: str, local: bool) -> None:
    assert ports.is_loopback(address) is local


def test_a_public_address_needs_a_firewall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "public_addresses", lambda: ["8.8.8.8"])
    with pytest.raises(LocalError) as told:
        cluster._refuse_exposed("127.0.0.1", UpOptions())
    assert (told.value.code, "--i-have-a-firewall" in told.value.remedy) == ("public_host", True)
    cluster._refuse_exposed("127.0.0.1", UpOptions(i_have_a_firewall=True))


def test_a_home_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cannot be made") as told:
        cluster._make_home(load(environ={"HELIOSTAT_HOME": str(tmp_path / "file" / "home")}), lambda step: None)
    assert (told.value.code, "HELIOSTAT_HOME" in told.value.remedy) == ("home_unusable", True)


def test_an_open_port_needs_a_firewall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "public_addresses", list)
    with pytest.raises(LocalError) as told:
        cluster._refuse_exposed("0.0.0.0", UpOptions())
    assert told.value.code == "exposed_port"


def test_two_logical_gpus_declare_eight_cpus_and_say_so() -> None:
    shape = Shape(2, 8, True, 200_000_000)
    assert shape.sentence() == "2 logical GPUs, 8 logical CPUs declared (2 with the GPUs, 2 floating, 4 for drivers)"
    assert {"--num-gpus=2", "--num-cpus=8", "--block", "--node-ip-address=127.0.0.1"} <= set(
        command(shape, dict.fromkeys(_purposes(), 20_000), Path("/t"))
    )


def test_the_object_store_is_bounded() -> None:
    assert 0 < object_store_size() <= OBJECT_STORE_MAX_BYTES


def test_a_head_that_was_joined_counts_as_alive() -> None:
    joined = RayRecord("attached", "10.0.0.1:6379", "http://10.0.0.1:8265", "/token", "2.60.0")
    assert joined.alive()
    assert not replace(joined, mode="local", pid=1, start_time=0.0).alive()


def _purposes() -> tuple[str, ...]:
    from heliostat.local.ray_head import PURPOSES

    return PURPOSES
