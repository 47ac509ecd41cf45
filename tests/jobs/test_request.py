"""A script's fit() held against its lease, and the places of a lease."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.errors import JobError, NotYetSupported, UndeclaredGPU, WorkerCountMismatch
from heliostat_jobs.train.places import clipped, cuts, no_more_than, places_of
from heliostat_jobs.train.request import Request, floats, refusal
from heliostat_scheduler.live.protocol import PREEMPT, RUN, Lease, SlotRef

SLOTS = tuple(SlotRef(f"node1/{i}", f"{i:02d}" * 14, "node1", i, cpu_milli=500) for i in range(4))


def lease(gpus: int = 0, **changes: Any) -> Lease:
    held = Lease("job-1", 1, 3, "ray", RUN, "secret", tasks=gpus or 1, slots=SLOTS[:gpus])
    return replace(held, **changes)


def want(workers: int, gpus: float = 1, most: int | None = None, tpu: bool = False) -> Request:
    return Request(workers, most or workers, gpus, tpu)


CPU_GROUP = {"cpu_group": "ab" * 14, "tasks": 2, "cpu_milli": 2000}


@pytest.mark.parametrize(
    ("request_", "held", "expected", "words"),
    [
        pytest.param(want(2), lease(2), None, "", id="two workers on two GPUs"),
        pytest.param(want(2, gpus=0.5), lease(2), None, "", id="half a GPU for a worker still means one slot each"),
        pytest.param(want(2, gpus=0), lease(2), None, "", id="CPU workers may sit in the slots"),
        pytest.param(want(4), lease(2), WorkerCountMismatch, '"min_gpus": "4", "max_gpus": "4"', id="more than held"),
        pytest.param(want(1), lease(2), None, "", id="less than held: it takes the first"),
        pytest.param(want(1, most=2), lease(4), None, "", id="a range below what is held"),
        pytest.param(
            Request(2, 2, 1, custom=("tokens",)),
            lease(2),
            NotYetSupported,
            "tokens",
            id="a resource that no slot holds",
        ),
        pytest.param(want(2), lease(0), UndeclaredGPU, '"min_gpus": "2", "max_gpus": "2"', id="no GPU declared"),
        pytest.param(want(1, most=4), lease(2), None, "", id="a range that holds the lease's size"),
        pytest.param(
            want(3, most=4), lease(2), WorkerCountMismatch, '"min_gpus": "3", "max_gpus": "4"', id="a range above it"
        ),
        pytest.param(
            want(1, most=4), lease(0), UndeclaredGPU, "--min-gpus 1 --max-gpus 4", id="a range, no GPU declared"
        ),
        pytest.param(want(2, gpus=2), lease(4), NotYetSupported, "num_workers=4", id="two GPUs for one worker"),
        pytest.param(want(2, gpus=0, tpu=True), lease(2), NotYetSupported, "use_gpu", id="TPUs"),
        pytest.param(want(2, gpus=0), lease(0, **CPU_GROUP), None, "", id="CPU workers in the lease's CPU group"),
    ],
)
def test_fit_against_the_lease(request_: Request, held: Lease, expected: type[JobError] | None, words: str) -> None:
    error = refusal(request_, held)
    assert (type(error) if error else None) is expected
    assert words in str(error or "")


@pytest.mark.parametrize(
    ("request_", "held", "expected"),
    [
        pytest.param(want(3, gpus=0), lease(0), True, id="CPU training without a GPU lease runs as under plain Ray"),
        pytest.param(
            want(3, gpus=0), lease(0, **CPU_GROUP), True, id="and so does one that is larger than the CPU group"
        ),
        pytest.param(want(2, gpus=0), lease(0, **CPU_GROUP), False, id="one of the group's size runs in the group"),
        pytest.param(want(2, gpus=0), lease(2), False, id="with GPUs held it runs in the slots"),
        pytest.param(want(1, gpus=0, most=8), lease(2), False, id="and so does a range that holds their number"),
        pytest.param(want(8, gpus=0), lease(4), True, id="CPU workers of another number float beside the GPUs held"),
        pytest.param(want(2, gpus=0), lease(4), True, id="fewer of them, too"),
        pytest.param(want(2), lease(0), False, id="a GPU request never floats"),
    ],
)
def test_what_floats(request_: Request, held: Lease, expected: bool) -> None:
    assert floats(request_, held) is expected


def test_places_follow_the_order_of_the_slots() -> None:
    places = places_of(lease(3))
    assert [(place.slot, place.device, place.cpu) for place in places] == [
        ("node1/0", 0, 0.5),
        ("node1/1", 1, 0.5),
        ("node1/2", 2, 0.5),
    ]
    assert places_of(lease(3, order=PREEMPT)) == places


def test_a_cpu_group_is_shared_evenly() -> None:
    places = places_of(lease(0, **CPU_GROUP))
    assert [(place.slot, place.cpu, place.gpu) for place in places] == [("cpu", 1.0, 0.0)] * 2


def test_a_worker_gets_no_more_than_its_slot_holds() -> None:
    place = places_of(lease(1))[0]
    asked = {"CPU": 1, "GPU": 1, "memory": 1e9, "tokens": 2}
    assert clipped(asked, place) == {"CPU": 0.5, "GPU": 1, "tokens": 2}
    assert cuts(asked, place) == "CPU 1 -> 0.5"
    assert cuts({"CPU": 0.5, "GPU": 1}, place) == ""


def test_the_kind_of_gpu_is_the_flavor_s_affair() -> None:
    place = places_of(lease(1))[0]
    asked = {"GPU": 1, "accelerator_type:A100": 0.001}
    assert clipped(asked, place) == {"GPU": 1}
    assert "accelerator_type:A100" in cuts(asked, place) and "flavor" in cuts(asked, place)


def test_what_a_scaling_config_asks_for() -> None:
    given = {"GPU": 1, "CPU": 2, "memory": 1e9, "accelerator_type:A100": 0.001, "tokens": 2, "none": 0}
    scaling = SimpleNamespace(min_workers=1, max_workers=2, use_tpu=False, _resources_per_worker_not_none=given)
    assert Request.of(scaling) == Request(1, 2, 1.0, False, ("tokens",))


def test_a_run_sees_no_more_slots_than_it_can_use() -> None:
    assert [slot.device for slot in no_more_than(lease(4), 2).slots] == [0, 1]
    assert no_more_than(lease(4), 2).tasks == 2
    assert no_more_than(lease(2), 4) == lease(2)
