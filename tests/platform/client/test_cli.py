"""`helio`: what it prints, what it ends with, and that everything has a form for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from heliostat.client.forecast import ForecastCalls
from heliostat.settings import load

from tests.platform.client.conftest import Outcome
from tests.platform.client.fake_server import NOON, FakeServer, stamp

Helio = Callable[..., Outcome]


@pytest.fixture
def busy(server: FakeServer, helio: Helio) -> FakeServer:
    """Three jobs: one runs, one waits, one is over."""
    for name, queue, gpus in (("ocr-2", "prod", "2..8"), ("llm-7b", "research", "8"), ("old", "research", "1")):
        assert helio("submit", "--name", name, "--queue", queue, "--gpus", gpus, "--", "python", "-V").code == 0
    server.move(
        "job-01", "running", gpus={"min": 2, "max": 8, "held": 5}, reason={"sentence": "grew 2 -> 5 on idle GPUs"}
    )
    sentence = "needs 8 GPUs, 3 short; may borrow 5 more after ocr-2 ends"
    later = stamp(NOON + timedelta(minutes=76))
    server.jobs["job-02"] |= {
        "reason": {"code": "InsufficientFree", "sentence": sentence},
        "estimated_start": later,
        "position": None,
    }
    server.move("job-03", "failed", exit_code=3, ran_s=61, attempts=1)
    server.now = NOON + timedelta(minutes=64)
    return server


def test_ps(busy: FakeServer, helio: Helio) -> None:
    assert helio("ps").out == (
        "JOB     NAME    QUEUE     STATE    GPUS  AGE  WHY\n"
        "job-02  llm-7b  research  queued   8/-   1h   needs 8 GPUs, 3 short; may borrow 5 more after ocr-2 ends; "
        "starts in about 12m\n"
        "job-01  ocr-2   prod      running  5/2+  1h   grew 2 -> 5 on idle GPUs\n"
    )


def test_ps_of_finished_jobs(busy: FakeServer, helio: Helio) -> None:
    assert helio("ps", "-a", "--queue", "research", "--state", "failed").out == (
        "JOB     NAME  QUEUE     STATE   GPUS  AGE  WHY\njob-03  old   research  failed  1     1h   exit code 3, ran 1m 1s\n"
    )
    assert len(helio("ps", "-a").out.splitlines()) == 4


def test_ps_of_one_job(busy: FakeServer, helio: Helio) -> None:
    busy.jobs["job-02"]["reason_history"] = [{"at": "2026-01-31T12:00:00Z", "code": "X", "sentence": "first look"}]
    lines = helio("ps", "job-02").out.splitlines()
    assert lines[0] == "job-02  llm-7b"
    assert lines[1] == "  state    queued for 1h 4m"
    assert "  command  python -V" in lines
    assert lines[-1].endswith("  first look")


def test_an_empty_list_says_what_to_type(helio: Helio) -> None:
    assert helio("ps").out == (
        "No job is waiting or running. Queue one with: helio submit -- echo hello   (finished ones: helio ps -a)\n"
    )
    assert "helio submit -- echo hello" in helio("ps", "-a").out
    assert "helio submit -- echo hello" in helio("events").out


def test_submit_prints_the_id_and_the_next_command(helio: Helio) -> None:
    told = helio("submit", "--gpus", "1", "--", "python", "-c", "print(1)")
    assert told.out == "job-01\n"
    assert told.err == "queued: not looked at yet; position 1\nnext: helio logs -f job-01   or: helio explain job-01\n"


def test_submit_takes_the_commands_own_options(server: FakeServer, helio: Helio) -> None:
    helio("submit", "python", "-m", "train", "--lr", "3", "--json")
    assert server.jobs["job-01"]["entrypoint"] == "python -m train --lr 3 --json"


def test_submit_sends_what_was_asked(
    server: FakeServer, helio: Helio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    told = helio(
        *(
            "submit",
            "--gpus",
            "1..2",
            "--cpus",
            "2",
            "--memory",
            "1GiB",
            "--queue",
            "research",
            "--priority",
            "150",
            "--name",
            "n",
        ),
        *(
            "--env",
            "A=1=2",
            "--metadata",
            "k=v",
            "--working-dir",
            ".",
            "--max-runtime",
            "1h",
            "--hold",
            "--kind",
            "ray",
            "--json",
        ),
        *("--project", "p", "--after", "job-00", "--preemptibility", "non-preemptible", "--", "python", "train.py"),
    )
    assert told.code == 0 and told.json["state"] == "held"
    body = json.loads(server.requests[-1].body)
    package = body.pop("working_dir_package")
    assert package.startswith("gcs://_ray_pkg_") and package.removeprefix("gcs://") in server.packages
    assert body == {
        "kind": "ray", "command": ["python", "train.py"], "min_gpus": 1, "max_gpus": 2, "name": "n", "queue": "research",
        "priority": 150, "cpus": 2.0, "preemptibility": "non-preemptible", "project": "p", "env": {"A": "1=2"},
        "metadata": {"k": "v"}, "memory_bytes": 1024**3, "max_runtime_s": 3600.0, "after": ["job-00"], "hold": True,
    }  # fmt: skip


def test_submit_and_wait(server: FakeServer, helio: Helio) -> None:
    helio("submit", "--hold", "--", "x")  # job-01
    steps: list[dict[str, Any]] = [
        {},
        {"state": "running", "reason": None, "attempts": 1},
        {},
        {"state": "succeeded", "ran_s": 2},
    ]
    server.script("job-02", *steps)
    told = helio("submit", "--wait", "--", "x")
    assert (told.code, told.out) == (0, "job-02\n")
    assert told.err.splitlines() == [
        "job-02 queued: not looked at yet; position 1",
        "job-02 running",
        "job-02 succeeded: ran 2s",
    ]
    server.script("job-03", {"state": "failed", "exit_code": 1, "ran_s": 2})
    assert helio("submit", "--wait", "--json", "--", "x").code == 1


def test_submit_and_follow(server: FakeServer, helio: Helio) -> None:
    server.logs["job-01"] = "epoch 1\nepoch 2\n"
    server.script("job-01", {"state": "succeeded", "ran_s": 2})
    told = helio("submit", "--follow", "--", "x")
    assert (told.code, told.out) == (0, "job-01\nepoch 1\nepoch 2\n")


def test_plan_stores_nothing(server: FakeServer, helio: Helio) -> None:
    assert helio("submit", "--plan", "--gpus", "2", "--", "x").out == "It would wait: busy; position 1\n"
    assert helio("submit", "--plan", "--", "x").out == "It would start now.\n"
    assert server.jobs == {} and server.packages == {}


def test_logs(server: FakeServer, helio: Helio) -> None:
    helio("submit", "--", "x")
    assert "No output yet (queued). Follow it with: helio logs -f job-01" in helio("logs", "job-01").err
    server.logs["job-01"] = "[heliostat] attempt 1\none\ntwo\n"
    assert helio("logs", "job-01").out == "[heliostat] attempt 1\none\ntwo\n"
    assert helio("logs", "job-01", "--tail", "1").out == "two\n"
    assert helio("logs", "job-01", "--tail", "0").out == ""
    assert helio("logs", "-f", "job-01").out == "[heliostat] attempt 1\none\ntwo\n"
    assert helio("logs", "-f", "--tail", "1", "job-01").out == "two\n"
    assert helio("logs", "job-01", "--json").json["text"].endswith("two\n")


def test_explain(busy: FakeServer, helio: Helio) -> None:
    busy.explanations["job-02"] = {
        "code": "InsufficientFree", "sentence": "needs 8 GPUs, 3 short", "position": 1, "blockers": ["job-01"],
        "facts": {"resource": "a100", "needs": 8000, "free": 5000, "waited_ms": 61000, "memory_bytes": 1024**3, "gpu_milli": 500},
        "checks": [{"name": "limit", "ok": True, "facts": {"resource": "gpu", "limit": 16000}}, {"name": "free", "ok": False, "facts": {}}],
        "remedies": [
            {"kind": "apply", "action": "change_job", "text": "Ask for 5 GPUs; it starts at once.",
             "command": "helio edit job-02 --gpus 5", "evicts": []},
            {"kind": "apply", "action": "raise_priority", "text": "Raise its priority.", "command": "helio priority job-02 high",
             "evicts": ["job-01"]},
            {"kind": "wait", "action": "wait", "text": "Wait until job-01 ends", "command": "", "at": stamp(NOON + timedelta(minutes=76))},
        ],
    }  # fmt: skip
    at = (NOON + timedelta(minutes=76)).astimezone()
    assert helio("explain", "job-02").out == (
        "job-02 is queued (InsufficientFree)\n"
        "  needs 8 GPUs, 3 short\n"
        "  numbers    needs 8 GPU (a100), free 5 GPU (a100), waited 1m 1s, memory 1 GiB, GPU per task 0.5\n"
        "  position   1 in its queue\n"
        "  held by    job-01\n"
        "  ✔ limit  limit 16 GPU\n"
        "  ✖ free\n"
        "  what would help\n"
        "  1. Ask for 5 GPUs; it starts at once.\n"
        "       helio edit job-02 --gpus 5\n"
        "  2. Raise its priority.\n"
        "       helio priority job-02 high\n"
        "       takes GPUs from: job-01\n"
        f"  3. Wait until job-01 ends (in about 12m, {at:%Y-%m-%d %H:%M})\n"
    )
    assert helio("explain", "job-02", "--json").json["code"] == "InsufficientFree"


def test_doing_things_to_jobs(busy: FakeServer, helio: Helio) -> None:
    assert helio("hold", "job-02").out == "job-02 held: until somebody releases it; starts in about 12m\n"
    assert helio("release", "job-02").out.startswith("job-02 queued")
    assert helio("priority", "job-02", "high").code == 0
    assert helio("edit", "job-02", "--gpus", "5", "--queue", "prod", "--json").json["gpus"]["min"] == 5
    assert helio("cancel", "job-01", "job-02").out == "job-01 cancelled: never ran\njob-02 cancelled: never ran\n"
    assert helio("cancel", "job-01").code == 5


def test_queues(server: FakeServer, helio: Helio, tmp_path: Path) -> None:
    assert helio("queue", "ls").out == (
        "QUEUE       QUOTA  LIMIT   USED  BORROWED  ENTITLED  RUNNING  WAITING\n"
        "root            -      -  gpu 3         -     gpu 4        1        2\n"
        "  research  gpu 4  gpu 8  gpu 3         0     gpu 4        1        2\n"
    )
    assert helio("queue", "ls").err == ""
    server.warnings = ["quotas of gpu sum to 12, the cluster has 4"]
    assert "warning: quotas of gpu sum to 12" in helio("queue", "ls").err
    assert helio("queue", "show").out == "queues:\n  - name: default\n"
    assert "no job waits here" in helio("queue", "show", "research").out
    assert helio("queue", "show", "nowhere").code == 3
    file = tmp_path / "queues.yaml"
    file.write_text("queues: [new]\n")
    told = helio("queue", "apply", str(file), "--diff")
    assert told.out == "QUEUE     FIELD  FROM   TO\nresearch  quota  gpu 2  gpu 4\n"
    assert "helio queue apply" in told.err and "new" not in server.queue_file
    assert helio("queue", "apply", str(file)).code == 0
    assert "new" in server.queue_file
    assert helio("queue", "apply", str(file)).out == "Nothing changes.\n"
    file.write_text("x:\n  - name: a\n    quotaa: 1\n")
    bad = helio("queue", "apply", str(file), "--diff")
    assert bad.code == 2 and "(line 3: unknown key quotaa)" in bad.err


def test_nodes(helio: Helio) -> None:
    assert helio("nodes").out == (
        "NODE          IP        FLAVOR  STATE  GPUS  CPUS  MEMORY  JOBS\n"
        "abcdef012345  10.0.0.1  a100    up     1/2   8     32 GiB  0:job-01 93 %\n"
    )


def test_events(busy: FakeServer, helio: Helio) -> None:
    lines = helio("events", "job-03").out.splitlines()
    assert len(lines) == 2 and "JobMoved  job-03  queued -> failed  by system" in lines[1]
    assert len(helio("events").out.splitlines()) == 5
    followed = [json.loads(line) for line in helio("events", "-f", "--after", "3", "--json").out.splitlines()]
    assert [event["seq"] for event in followed] == [4, 5]


def test_tokens(server: FakeServer, helio: Helio) -> None:
    told = helio("token", "create", "--role", "viewer", "--project", "vision", "--name", "bob")
    assert told.out == "hs_tok-1\n" and "helio token revoke tok-1" in told.err
    helio("token", "create", "--expires", "never")
    assert helio("token", "revoke", "tok-2").out == "tok-2 revoked\n"
    assert helio("token", "ls").out == (
        "TOKEN  NAME  ROLE    PROJECT  STATE                  AGE  USED\n"
        "tok-1  bob   viewer  vision   valid, expires in 30d  0s   -\n"
        "tok-2  -     member  default  revoked                0s   -\n"
    )
    assert "hs_" not in helio("token", "ls", "--json").out
    assert helio("token", "revoke", "tok-9").code == 3


def test_login(helio: Helio, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hs_test\n"))
    told = helio("login", "https://lab.example.org", "--profile", "lab", "--token-stdin", "--project", "vision")
    assert told.code == 0 and "as ada (admin in default)" in told.out
    del environ["HELIOSTAT_TOKEN"]
    settings = load(environ=environ)
    assert (settings.profile, settings.url, settings.token, settings.project) == (
        "lab",
        "https://lab.example.org",
        "hs_test",
        "vision",
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("wrong\n"))
    assert helio("login", "https://lab.example.org", "--token-stdin").code == 4


def test_whoami_and_version(helio: Helio, server: FakeServer) -> None:
    assert "user           ada\n" in helio("whoami").out
    assert helio("version").out == "client  0.1.0\nserver  0.1.0\napi     1\nray     2.60.0\n"
    server.refuse(100)
    alone = helio("version", "--json")
    assert alone.code == 0 and alone.json == {"client": "0.1.0"}


EXIT_CODES = [
    pytest.param(("ps", "job-99"), 3, "There is no job job-99.", id="3: not found"),
    pytest.param(
        ("submit", "--queue", "nowhere", "--", "x"), 2, "no queue 'nowhere'", id="2: a value the server refuses"
    ),
    pytest.param(("submit", "--gpus", "many", "--", "x"), 2, "no number of GPUs", id="2: a value the client refuses"),
    pytest.param(("submit",), 2, "Missing argument 'COMMAND...'", id="2: usage"),
    pytest.param(("submit", "--env", "A", "--", "x"), 2, "not KEY=VALUE", id="2: malformed pair"),
    pytest.param(("edit", "job-01"), 2, "Say what to change", id="2: nothing to do"),
    pytest.param(("frobnicate",), 2, "No such command", id="2: no such command"),
    pytest.param(("submit", "--gpus", "9", "--", "x"), 7, "never fit", id="7: never fits"),
    pytest.param(("--url", "ftp://x", "ps"), 2, "not the address", id="2: settings"),
    pytest.param(("--profile", "nope", "ps"), 2, "no profile 'nope'", id="2: unknown profile"),
]


@pytest.mark.parametrize(("arguments", "code", "told"), EXIT_CODES)
def test_exit_codes(helio: Helio, arguments: tuple[str, ...], code: int, told: str) -> None:
    outcome = helio(*arguments)
    assert outcome.code == code and told in outcome.err and outcome.out == ""
    assert len(outcome.err.splitlines()) <= 2 and "Traceback" not in outcome.err


def test_exit_code_4_without_a_token(helio: Helio, environ: dict[str, str]) -> None:
    del environ["HELIOSTAT_TOKEN"]
    told = helio("ps")
    assert told.code == 4 and "helio login URL" in told.err


def test_exit_code_6_when_the_wait_is_over(helio: Helio) -> None:
    told = helio("submit", "--wait", "--timeout", "5s", "--", "x")
    assert told.code == 6 and "It goes on" in told.err


def test_exit_code_8_without_a_server(helio: Helio, server: FakeServer) -> None:
    server.refuse(100)
    told = helio("ps")
    assert told.code == 8 and told.err.splitlines() == [
        "error: No control plane answers at http://127.0.0.1:8700.",
        "  Start one with: helio up   (or name another with --url, HELIOSTAT_URL or helio login URL)",
    ]


def test_errors_for_programs(helio: Helio) -> None:
    told = json.loads(helio("submit", "--queue", "nowhere", "--json", "--", "x").err)
    assert (told["code"], told["status"], told["remedy"]) == ("unknown_queue", 400, "See them with: helio queue ls")
    assert json.loads(helio("ps", "--state", "x", "--json").err)["code"] == "usage"


def test_interrupting_a_wait_leaves_the_job_alone(
    helio: Helio, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("heliostat.client.job.Job.watch", interrupt)
    told = helio("submit", "--wait", "--", "x")
    assert told.code == 130 and "job-01 goes on. End it with: helio cancel job-01" in told.err


JSON_COMMANDS = [
    ("ps",), ("ps", "-a"), ("ps", "job-01"), ("explain", "job-01"), ("queue", "ls"), ("queue", "show"), ("queue", "show", "research"),
    ("nodes",), ("token", "ls"), ("whoami",), ("version",), ("hold", "job-02"), ("release", "job-02"), ("logs", "job-01"),
    ("priority", "job-01", "high"), ("edit", "job-02", "--gpus", "1"), ("cancel", "job-02"), ("submit", "--plan"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", JSON_COMMANDS, ids=" ".join)
def test_every_answer_has_a_form_for_programs(busy: FakeServer, helio: Helio, arguments: tuple[str, ...]) -> None:
    rest = ("--", "x") if arguments[0] == "submit" else ()
    told = helio(*arguments, "--json", *rest)
    assert told.code == 0 and isinstance(told.json, dict)


def test_help_lists_every_command_without_importing_it(helio: Helio) -> None:
    before = set(sys.modules)
    told = helio("--help")
    assert told.code == 0 and "submit" in told.out and "priority" in told.out
    assert not {name for name in set(sys.modules) - before if name.startswith("heliostat.cli.")}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["timeline", "--html", "/nowhere/at/all.html"], "no folder /nowhere/at", id="a page without a folder"),
        pytest.param(["timeline", "--html", "/proc/a.html"], "page cannot be written", id="a page where none may be written"),
        pytest.param(["whatif", "--queues", "latin"], "latin is not UTF-8 text", id="a queue file that is no text"),
        pytest.param(["whatif", "--policy", "latin"], "latin is not UTF-8 text", id="a policy that is no text"),
        pytest.param(["queue", "apply", "latin"], "latin is not UTF-8 text", id="queues that are no text"),
        pytest.param(["endpoint", "call", "e", "--file", "latin"], "latin is not UTF-8 text", id="inputs that are no text"),
        pytest.param(["replay", "--from", "5", "--to", "3"], "no cycle from 5 to 3", id="a replay that ends before it begins"),
        pytest.param(["whatif", "--horizon", "0s", "--quota", "a=1"], "--horizon", id="a future of no length"),
    ],
)  # fmt: skip
def test_files_and_spans_that_cannot_be(
    words: list[str], says: str, helio: Helio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ForecastCalls, "timeline", lambda self, since: {"from": stamp(NOON), "to": stamp(NOON)})
    Path("latin").write_bytes(b"caf\xe9")
    told = helio(*words)
    assert told.code == 2 and says in told.err and "Traceback" not in told.err


def test_a_profile_where_no_folder_can_be_is_refused(
    helio: Helio, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    environ["HELIOSTAT_HOME"] = str(tmp_path / "file" / "home")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hs_test\n"))
    told = helio("login", "http://127.0.0.1:1", "--token-stdin")
    assert told.code == 2 and "cannot be written" in told.err and "HELIOSTAT_HOME" in told.err


def test_the_timeline_of_a_job_that_there_is_not(
    busy: FakeServer, helio: Helio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ForecastCalls, "timeline", lambda self, since: {"from": stamp(NOON), "to": stamp(NOON)})
    assert helio("timeline", "--job", "nope").code == 3
    assert helio("timeline", "--job", "job-02").code == 0
