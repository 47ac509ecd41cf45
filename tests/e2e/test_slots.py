"""The fence around the GPUs: strays never start, intruders are killed and reported, and no death in between loses or leaks a slot.

Two strays wait past the platform all the time: an actor that asks for one GPU, and a placement group of one GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from heliostat_scheduler.live import protocol as p

from tests.contracts.bridge_conformance import ask, end, lease_of
from tests.e2e.bridge_process import RealRig
from tests.e2e.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=8, num_gpus=2, dashboard=False)]

CYCLES = 20
INTRUDER_S = 5.0


@pytest.fixture(scope="module")
def rig(ray_cluster: RayCluster) -> Iterator[RealRig]:
    rig = RealRig(ray_cluster)
    rig.driver("actor", name="stray-actor", gpus=1)
    rig.driver("group", name="stray-group", bundles=[{"GPU": 1}])
    yield rig
    assert rig.driver("who", name="stray-actor", timeout_s=1) is None, "the stray actor has started"
    assert rig.driver("groups")["stray-group"] == "PENDING", "the stray group got a GPU"
    rig.close()


@pytest.fixture(autouse=True)
def clean(rig: RealRig) -> Iterator[None]:
    """A case that failed leaves its leases behind; Hello without any ends them."""
    yield
    deadline = time.monotonic() + 20
    while ask(rig, p.Hello).data["occupied"] and time.monotonic() < deadline:
        time.sleep(1)


def start(rig: RealRig, job: str, does: str, *, slots: int = 1, attempt: int = 1, epoch: int = 1) -> p.Lease:
    lease = lease_of(rig, job, rig.slots()[:slots], kind="command", attempt=attempt, epoch=epoch)
    assert ask(rig, p.PutLease, lease=lease).code == ""
    spec = rig.command(job, does)
    assert ask(rig, p.StartCommand, job=job, attempt=attempt, epoch=epoch, spec=spec).code == ""
    return lease


def strays_wait(rig: RealRig) -> None:
    assert rig.driver("who", name="stray-actor", timeout_s=0.05) is None
    assert rig.driver("groups")["stray-group"] == "PENDING"


def test_strays_never_start_beside_twenty_starts_and_preemptions(rig: RealRig) -> None:
    for cycle in range(1, CYCLES + 1):
        since = len(rig.facts())
        epoch = 2 * cycle - 1
        lease = start(rig, "cycle", "wait", slots=1 + cycle % 2, attempt=cycle, epoch=epoch)
        rig.until(p.Acked, since=since, job="cycle", what=p.STARTED)
        ask(rig, p.PutLease, lease=replace(lease, epoch=epoch + 1, order=p.PREEMPT, deadline_ms=10**13))
        if cycle % 3:
            ask(rig, p.SignalCommand, job="cycle", attempt=cycle, grace_ms=5000)
            assert rig.until(p.Acked, since=since, job="cycle", what=p.EXITED).facts["rc"] == 143
            end(rig, "cycle", epoch + 1)
        else:
            ask(rig, p.HardStop, job="cycle", epoch=epoch + 1)
            rig.until(p.Freed, since=since, job="cycle")
        strays_wait(rig)
    groups = rig.driver("groups")
    assert [groups[name] for name in groups if name.startswith(p.SLOT_PREFIX)] == ["CREATED", "CREATED"]
    assert not [fact for fact in rig.facts() if isinstance(fact, p.Intruder)]


def test_an_actor_that_names_a_slots_resources_is_killed_and_the_raylet_survives_its_removal(rig: RealRig) -> None:
    slot = rig.slots()[0]
    since, began = len(rig.facts()), time.monotonic()
    rig.driver("actor", name="by-name", by_name={f"GPU_group_{slot.group}": 1})
    report = rig.until(p.Intruder, since=since, slot=slot.slot)
    assert time.monotonic() - began < INTRUDER_S + 2  # the actor's own start is part of it
    assert report.killed
    assert "by name" in report.text
    assert rig.driver("who", name="by-name", timeout_s=10) is None
    node = rig.node()
    rig.driver("actor", name="by-name-again", by_name={f"GPU_group_{slot.group}": 1})
    assert ask(rig, p.DropNode, node=node).code == ""
    assert [row["id"] for row in rig.driver("nodes") if row["alive"]] == [node]
    rig.until(p.NodeJoined, since=since, node=node, slots=())


def test_what_takes_a_gpu_outside_of_every_slot_is_killed_within_five_seconds(rig: RealRig) -> None:
    """With the slots gone the two strays do start; the watchdog ends both, and the node can be taken back."""
    since, began = len(rig.facts()), time.monotonic()
    rig.until(p.Intruder, what="actor", slot="")
    rig.until(p.Intruder, what="group", slot="")
    assert time.monotonic() - began < 2 * INTRUDER_S
    assert ask(rig, p.RestoreNode, node=rig.node()).code == ""
    assert len(rig.until(p.NodeJoined, since=since, node=rig.node()).slots) == 2
    rig.driver("actor", name="stray-actor", gpus=1)
    rig.driver("group", name="stray-group", bundles=[{"GPU": 1}])


def test_a_task_in_an_unleased_slot_is_killed(rig: RealRig) -> None:
    since = len(rig.facts())
    rig.driver("task", name="sit", seconds=600, group=rig.slots()[1].group)
    assert rig.until(p.Intruder, since=since, what="task").slot == rig.slots()[1].slot


def test_a_group_inside_of_a_slot_is_removed(rig: RealRig) -> None:
    since = len(rig.facts())
    rig.driver("group", name="nested", bundles=[{f"GPU_group_{rig.slots()[0].group}": 1}])
    assert rig.until(p.Intruder, since=since, what="group").slot == rig.slots()[0].slot
    assert rig.driver("groups")["nested"] == "REMOVED"


def test_hard_stop_ends_a_task_that_sits_in_the_lease(rig: RealRig) -> None:
    slot = rig.slots()[0]
    ask(rig, p.PutLease, lease=lease_of(rig, "with-task", [slot]))
    rig.driver("task", name="leased", seconds=600, group=slot.group)
    time.sleep(2)
    ask(rig, p.HardStop, job="with-task", epoch=2)
    rig.until(p.Freed, job="with-task")


@pytest.mark.parametrize(
    "moment", ["after the grant", "during the start", "during the preemption", "during the hard stop"]
)
def test_kill_9_of_the_bridge_loses_nothing(rig: RealRig, moment: str) -> None:
    job = moment.replace(" ", "-")
    since = len(rig.facts())
    lease = lease_of(rig, job, rig.slots()[:1], kind="command")
    spec = rig.command(job, "wait")
    ask(rig, p.PutLease, lease=lease)
    if moment == "during the start":
        rig.send(p.StartCommand(1, rig.term, job, 1, 1, spec))
        time.sleep(0.02)
    elif moment != "after the grant":
        ask(rig, p.StartCommand, job=job, attempt=1, epoch=1, spec=spec)
        rig.until(p.Acked, job=job, what=p.STARTED)
        if moment == "during the preemption":
            ask(rig, p.PutLease, lease=replace(lease, epoch=2, order=p.PREEMPT))
            rig.send(p.SignalCommand(2, rig.term, job, 1, 5000))
            lease = replace(lease, epoch=2, order=p.PREEMPT)
        else:
            rig.send(p.HardStop(3, rig.term, job, 2))
    rig.restart_bridge()
    assert ask(rig, p.Hello, leases=(lease,)).code == ""
    if lease.order == p.RUN and moment != "during the hard stop":
        assert ask(rig, p.StartCommand, job=job, attempt=1, epoch=1, spec=spec).code == ""
        rig.until(p.Acked, since=since, job=job, what=p.STARTED)
    else:
        ask(rig, p.SignalCommand, job=job, attempt=1, grace_ms=5000)
        rig.until(p.Acked, since=since, job=job, what=p.EXITED)
    ask(rig, p.HardStop, job=job, epoch=9)
    rig.until(p.Freed, since=since, job=job)
    assert ask(rig, p.Hello).data["occupied"] == {}
    strays_wait(rig)


def test_kill_9_of_the_board_while_a_command_runs_and_ends(rig: RealRig) -> None:
    since = len(rig.facts())
    start(rig, "boardless", "wait")
    rig.until(p.Acked, job="boardless", what=p.STARTED)
    rig.kill_board()
    ask(rig, p.SignalCommand, job="boardless", attempt=1, grace_ms=5000)
    rig.until(p.BoardRebuilt, since=since)
    assert rig.until(p.Acked, since=since, job="boardless", what=p.EXITED).facts["rc"] == 143
    end(rig, "boardless", 1)


def test_an_attempt_whose_holder_was_lost_is_never_run_twice(rig: RealRig) -> None:
    lease = start(rig, "once", "wait")
    rig.until(p.Acked, job="once", what=p.STARTED)
    rig.bridge.kill()
    rig.crash_command("once", 1)
    rig.bridge.start()
    since = len(rig.facts())
    ask(rig, p.Hello, leases=(lease,))
    assert ask(rig, p.StartCommand, job="once", attempt=1, epoch=1, spec=rig.command("once", "wait")).code == ""
    assert rig.until(p.Acked, since=since, job="once", what=p.EXITED).facts["lost"]
    end(rig, "once", 1)


# ---- commands ------------------------------------------------------------------------------------------------------------


def run_to_end(rig: RealRig, job: str, argv: tuple[str, ...], *, slots: int = 1, **fields: object) -> p.Acked:
    ask(rig, p.PutLease, lease=lease_of(rig, job, rig.slots()[:slots], kind="command"))
    spec = replace(rig.command(job, "exit 0"), argv=argv, **fields)  # type: ignore[arg-type]
    ask(rig, p.StartCommand, job=job, attempt=1, epoch=1, spec=spec)
    ack: p.Acked = rig.until(p.Acked, job=job, what=p.EXITED)
    end(rig, job, 1)
    return ack


def test_a_command_sees_its_devices_its_folder_and_its_variables(rig: RealRig) -> None:
    line = 'echo "$CUDA_VISIBLE_DEVICES $GREETING $PWD"; echo wrong >&2; command -v python'
    run_to_end(
        rig, "env", ("/bin/bash", "-c", line), slots=2, env=(("GREETING", "hello"), ("CUDA_VISIBLE_DEVICES", "7"))
    )
    out = rig.read_log("env").splitlines()
    assert out[:2] == [f"0,1 hello {rig.folder('env')}", "wrong"]
    assert Path(out[2]).exists()


def test_a_package_is_unpacked_into_the_folder(rig: RealRig, tmp_path: Path) -> None:
    import zipfile

    package = tmp_path / "code.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("tool.py", "print('from the package')")
    ack = run_to_end(rig, "package", ("python", "tool.py"), package=str(package))
    assert (ack.facts["rc"], rig.read_log("package")) == (0, "from the package\n")


def test_a_command_that_does_not_exist_says_so(rig: RealRig) -> None:
    ack = run_to_end(rig, "missing", ("no-such-program",))
    assert ack.facts["rc"] == 127
    assert "no-such-program" in rig.read_log("missing")


@pytest.mark.parametrize("how", ["kill -9", "killed by its actor id"])
def test_nothing_of_a_command_outlives_its_holder(rig: RealRig, how: str) -> None:
    job = how.replace(" ", "-")
    line = "setsid sleep 4321 & sleep 4321 & echo up; wait"
    ask(rig, p.PutLease, lease=lease_of(rig, job, rig.slots()[:1], kind="command"))
    spec = replace(rig.command(job, "wait"), argv=("/bin/bash", "-c", line))
    ask(rig, p.StartCommand, job=job, attempt=1, epoch=1, spec=spec)
    pid = rig.until(p.Acked, job=job, what=p.STARTED).facts["pid"]
    deadline = time.monotonic() + 10
    while len(_sleepers()) < 2:
        assert time.monotonic() < deadline, "the command did not start its two children"
    if how == "kill -9":
        rig.crash_command(job, 1)
    else:
        ask(rig, p.Hello)  # no lease covers it any more: the watchdog ends it
    deadline = time.monotonic() + 8
    while _sleepers() or Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"still there 8 s after the holder's death: {_sleepers()}"
    end(rig, job, 1)


def _sleepers() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes() == b"sleep\x004321\x00":
                    found.append(entry.name)
            except OSError:
                continue
    return found
