"""Who has a right to a GPU: one line per case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heliostat_scheduler.live import protocol as p
from heliostat_scheduler.live.protocol import Lease, SlotRef
from heliostat_scheduler.live.tables import ActorRow, GroupRow, JobRow, group_is_free, holder_name, parse_holder
from heliostat_scheduler.live.watchdog import Rounds, suspects

SLOT, OTHER, FOREIGN = "a" * 36, "b" * 36, "f" * 36
SLOTS = {SLOT: SlotRef("n/0", SLOT, "n", 0), OTHER: SlotRef("n/1", OTHER, "n", 1)}
LEASE = Lease("job", 2, 3, "ray", p.RUN, "s", 1, (SLOTS[SLOT],))
JOBS = {"01": JobRow("01", "job-a2"), "02": JobRow("02", "job-a1"), "03": JobRow("03"), "04": JobRow("04", "", {})}


def actor(**fields: Any) -> ActorRow:
    return replace(ActorRow("id", "", "ns", "Worker", "ALIVE", "01", "n", 1, ""), **fields)


def group(**fields: Any) -> GroupRow:
    return replace(GroupRow(FOREIGN, "theirs", "CREATED", ({"CPU": 1.0},), ("n",)), **fields)


OURS = {p.ENV_JOB: "job", p.ENV_ATTEMPT: "2"}
INNOCENT = {
    "the attempt's own worker": actor(group=SLOT),
    "a worker whose driver is unknown but whose environment names the attempt": actor(
        group=SLOT, job_id="03", env=OURS
    ),
    "the attempt's holder": actor(group=SLOT, job_id="03", name=holder_name("job", 2, "n/0"), namespace=p.NAMESPACE),
    "an actor without a GPU and without a group": actor(job_id="03"),
    "an actor in a group of its own that holds no GPU": actor(job_id="03", group=FOREIGN),
    "an actor that waits for a plain GPU": actor(job_id="03", state="PENDING_CREATION", requires={"GPU": 1.0}),
}
GUILTY = {
    "in a slot that nobody has leased": actor(group=OTHER),
    "of an older attempt": actor(group=SLOT, job_id="02"),
    "of a driver that is not ours": actor(group=SLOT, job_id="03"),
    "asks for a leased slot by resource name": actor(requires={f"GPU_group_{SLOT}": 1.0}),
    "asks for it with the bundle's index": actor(requires={f"GPU_group_0_{SLOT}": 1.0}),
    "waits for a slot by resource name": actor(state="PENDING_CREATION", requires={f"GPU_group_{OTHER}": 1.0}),
    "names only the CPU of a slot": actor(requires={f"CPU_group_{SLOT}": 1.0}),
    "names a GPU of a group that is no slot": actor(requires={f"GPU_group_{FOREIGN}": 1.0}),
    "took a GPU outside of every slot": actor(job_id="03", requires={"GPU": 1.0}),
    "a holder of a name that is not ours, in the wrong namespace": actor(
        group=SLOT, job_id="03", name=holder_name("job", 2, "n/0")
    ),
}


@pytest.mark.parametrize("row", INNOCENT.values(), ids=INNOCENT.keys())
def test_is_left_alone(row: ActorRow) -> None:
    assert suspects([row], [], JOBS, [LEASE], SLOTS) == []


@pytest.mark.parametrize("row", GUILTY.values(), ids=GUILTY.keys())
def test_is_a_suspect(row: ActorRow) -> None:
    (found,) = suspects([row], [], JOBS, [LEASE], SLOTS)
    assert (found.what, found.id) == ("actor", "id")
    assert found.text


@pytest.mark.parametrize(
    ("row", "guilty"),
    [
        pytest.param(group(), False, id="a group without GPUs"),
        pytest.param(group(bundles=({"GPU": 1.0},), state="PENDING"), False, id="a group that waits for a GPU"),
        pytest.param(group(bundles=({"GPU": 1.0},)), True, id="a group that took a GPU"),
        pytest.param(group(bundles=({f"GPU_group_{SLOT}": 1.0},)), True, id="a group inside of a slot"),
        pytest.param(group(name=p.SLOT_PREFIX + "n/0", bundles=({"GPU": 1.0},)), False, id="a slot"),
    ],
)
def test_groups(row: GroupRow, guilty: bool) -> None:
    assert bool(suspects([], [row], JOBS, [LEASE], SLOTS)) is guilty


def test_the_owner_of_an_intruder_is_named() -> None:
    (found,) = suspects([actor(group=SLOT, job_id="02")], [], JOBS, [LEASE], SLOTS)
    assert (found.owner_job, found.slot) == ("job", "n/0")
    assert "attempt 2 of job" in found.text


def test_only_who_is_seen_twice_in_a_row_is_confirmed() -> None:
    rounds = Rounds()
    seen = suspects([actor(group=OTHER)], [], JOBS, [], SLOTS)
    assert rounds.confirmed(seen) == []
    assert rounds.confirmed(seen) == seen
    assert rounds.confirmed([]) == []
    assert rounds.confirmed(seen) == []


def test_a_group_is_free_only_when_its_whole_bundle_is() -> None:
    free = {
        f"{k}_group_{i}{SLOT}": v for k, v in {"GPU": 1.0, "CPU": 0.5, "bundle": 1000.0}.items() for i in ("", "0_")
    }
    holds = {"GPU": 1.0, "CPU": 0.5, "memory": 0.0}
    assert group_is_free(SLOT, holds, free)
    assert not group_is_free(SLOT, holds, {**free, f"GPU_group_{SLOT}": 0.0})
    assert not group_is_free(SLOT, holds, {**free, f"bundle_group_0_{SLOT}": 999.999})
    assert not group_is_free(SLOT, holds, {key: value for key, value in free.items() if not key.startswith("GPU")})


def test_holder_names_are_read_back() -> None:
    assert parse_holder(holder_name("job-1", 12, "abc/0")) == ("job-1", 12, "abc/0")
    assert parse_holder("somebody") is None
