"""`helio up`, `down`, `doctor` around a stand-in for heliostat.local: what they pass on, print and end with."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heliostat import local
from heliostat.local.records import ControlRecord, RayRecord
from heliostat.settings import Settings

from tests.platform.client.conftest import Outcome

Helio = Callable[..., Outcome]
CONTROL = ControlRecord(1, 0.0, "http://127.0.0.1:8700", "127.0.0.1", 8700, "0.1.0")
RAY = RayRecord("local", "127.0.0.1:6379", "http://127.0.0.1:8265", "t", "2.60.0", gpus=2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that `up` was called with."""
    seen: list[Any] = []

    def up(settings: Settings, options: local.UpOptions, progress: local.Progress) -> local.Running:
        seen.append(options)
        progress(local.Step("ray", "start", "starting Ray"))
        progress(local.Step("ray", "done", "Ray 2.60.0"))
        progress(local.Step("control", "skip", "control plane runs"))
        settings.home.mkdir(exist_ok=True)
        settings.admin_token_path.write_text("hs_admin\n")
        settings.admin_token_path.chmod(0o600)
        return local.Running(CONTROL, RAY, ("ray",), True, str(settings.admin_token_path))

    monkeypatch.setattr(local, "up", up)
    return seen


def test_up_prints_address_token_path_and_next_command(helio: Helio, asked: list[Any], environ: dict[str, str]) -> None:
    told = helio("up", "--gpus", "2", "--port", "9000", "--object-store", "200MiB", "--i-have-a-firewall")
    path = Path(environ["HELIOSTAT_HOME"]) / "token"
    assert told.out == (
        f"control plane  http://127.0.0.1:8700\ntoken          {path}  (readable by you only; --show-token prints it)\n"
    )
    assert told.err.splitlines() == [
        "… starting Ray", "✔ Ray 2.60.0", "· control plane runs", "next: helio submit --name hello -- echo hello",
    ]  # fmt: skip
    assert asked == [local.UpOptions(gpus=2, port=9000, object_store_bytes=200 * 1024**2, i_have_a_firewall=True)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_up_shows_the_token_only_when_asked(helio: Helio, asked: list[Any]) -> None:
    assert "hs_admin" not in helio("up").out
    assert "hs_admin" in helio("up", "--show-token").out
    told = helio("up", "--json")
    assert told.json["url"] == CONTROL.url and "token" not in told.json and told.err == ""
    assert helio("up", "--json", "--show-token").json["token"] == "hs_admin"


def test_a_local_failure_is_two_lines(helio: Helio, monkeypatch: pytest.MonkeyPatch) -> None:
    def up(*_: object) -> None:
        raise local.LocalError("port_in_use", "Port 8700 is in use by nginx (pid 7).", "helio up --port 8701")

    monkeypatch.setattr(local, "up", up)
    told = helio("up")
    assert (told.code, told.err) == (8, "error: Port 8700 is in use by nginx (pid 7).\n  helio up --port 8701\n")


def test_down(helio: Helio, environ: dict[str, str]) -> None:
    told = helio("down")
    assert told.code == 0 and "nothing was ever started" in told.err
    assert not Path(environ["HELIOSTAT_HOME"]).exists(), "looking leaves nothing behind"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 8)])
def test_doctor(helio: Helio, monkeypatch: pytest.MonkeyPatch, status: str, code: int) -> None:
    findings = [
        local.Finding("ray_version", "ok", "Ray 2.60.0"),
        local.Finding("disk", status, "2 GiB free", "Free some."),
    ]
    monkeypatch.setattr(local, "doctor", lambda settings: findings)
    told = helio("doctor")
    assert told.code == code
    mark = {"ok": "✔", "warn": "!", "fail": "✖"}[status]
    assert told.out == f"✔ ray_version  Ray 2.60.0\n{mark} disk         2 GiB free\n               fix: Free some.\n"
    assert helio("doctor", "--json").json["findings"][0]["check"] == "ray_version"


def test_findings_with_one_fix_say_it_once(helio: Helio, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("gcs on :::6379", "raylet on :::6380")
    findings = [local.Finding("listener", "warn", text, "Keep a firewall in front.") for text in texts]
    monkeypatch.setattr(local, "doctor", lambda settings: findings)
    assert helio("doctor").out.splitlines() == [
        *(f"! listener  {text}" for text in texts),
        "            fix: Keep a firewall in front.",
    ]
