"""Which tasks and actors go into the lease, which stay outside, and what is refused with which remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from heliostat_jobs.errors import JobError, NeverFits, NotYetSupported, ReservedResource, UndeclaredGPU
from heliostat_jobs.slots.asking import Asked, asked, nothing_to_give, options_in_slot
from heliostat_scheduler.live.protocol import RUN, Lease, SlotRef

IN_A_GROUP = SimpleNamespace(placement_group=object())
ON_A_NODE = SimpleNamespace(node_id="ab12", soft=False)
RATHER_ON_A_NODE = SimpleNamespace(node_id="ab12", soft=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, None, id="a task without resources stays outside"),
        pytest.param({"num_cpus": 2, "num_gpus": 0}, None, id="a CPU task too"),
        pytest.param({"lifetime": "detached"}, None, id="a detached CPU actor too"),
        pytest.param({"num_gpus": 1}, Asked("f", 1.0), id="a GPU task goes in"),
        pytest.param({"num_gpus": 0.5, "scheduling_strategy": "SPREAD"}, Asked("f", 0.5), id="a part of a GPU too"),
        pytest.param({"num_gpus": 1, "scheduling_strategy": IN_A_GROUP}, None, id="a worker in its slot is left alone"),
        pytest.param({"num_gpus": 1, "placement_group": "default"}, Asked("f", 1.0), id="the default group is no group"),
        pytest.param({"num_gpus": 1, "scheduling_strategy": ON_A_NODE}, Asked("f", 1.0, "ab12"), id="a node is respected"),
        pytest.param({"num_gpus": 1, "scheduling_strategy": RATHER_ON_A_NODE}, Asked("f", 1.0), id="a soft one need not be"),
        pytest.param({"resources": {"tokens": 1}}, None, id="a custom resource passes"),
    ],
)  # fmt: skip
def test_what_goes_into_the_lease(options: dict[str, Any], expected: Asked | None) -> None:
    assert asked("f", options) == expected


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        pytest.param({"num_gpus": 2}, NeverFits, "num_gpus=2.*one process per GPU", id="two GPUs for one process"),
        pytest.param({"num_gpus": 1, "lifetime": "detached"}, NotYetSupported, "outlive", id="a detached GPU actor"),
        pytest.param({"resources": {"GPU_group_ab": 1}}, ReservedResource, "no `_group_`", id="a slot's own resource"),
        pytest.param({"resources": {"bundle_group_0_ab": 0.001}}, ReservedResource, "bundle", id="a bundle's own resource"),
    ],
)  # fmt: skip
def test_what_is_refused(options: dict[str, Any], error: type[JobError], says: str) -> None:
    with pytest.raises(error, match=f"(?i){says}"):
        asked("f", options)


def lease(*slots: SlotRef) -> Lease:
    return Lease("job-7", 1, 1, "ray", RUN, "secret", len(slots), slots)


def test_a_lease_without_gpus_names_the_line_to_add() -> None:
    error = nothing_to_give(Asked("The task f", 1.0), lease())
    assert isinstance(error, UndeclaredGPU)
    assert """--metadata-json '{"min_gpus": "1", "max_gpus": "1"}'""" in str(error)


def test_a_node_without_a_slot_of_the_lease_names_the_others() -> None:
    error = nothing_to_give(Asked("The task f", 1.0, "ffff"), lease(SlotRef("a/0", "aa", "abcd", 0)))
    assert isinstance(error, NeverFits)
    assert "abcd" in str(error)


@pytest.mark.parametrize(
    ("options", "changed", "cut"),
    [
        pytest.param({}, {"num_cpus": 0.5}, "", id="the default CPU shrinks silently"),
        pytest.param({"num_cpus": 0}, {"num_cpus": 0}, "", id="no CPU stays none"),
        pytest.param({"num_cpus": 4}, {"num_cpus": 0.5}, "CPU 4 -> 0.5", id="more than the slot has is cut, and said"),
        pytest.param({"num_cpus": 0.1, "memory": 2e9}, {"num_cpus": 0.1, "memory": 1e9}, "memory 2e+09 -> 1e+09", id="memory"),
    ],
)  # fmt: skip
def test_a_request_is_cut_to_its_slot(options: dict[str, Any], changed: dict[str, Any], cut: str) -> None:
    slot = SlotRef("n/0", "aa", "node", 0, cpu_milli=500, memory_bytes=1_000_000_000)
    assert options_in_slot(options, slot) == (changed, cut)


def test_half_a_gpu_gets_half_of_its_slot() -> None:
    slot = SlotRef("n/0", "aa", "node", 0, cpu_milli=1000, memory_bytes=1_000)
    assert options_in_slot({"memory": 800}, slot, 0.5) == ({"num_cpus": 0.5, "memory": 500.0}, "")


def test_memory_is_not_asked_of_a_slot_that_counts_none() -> None:
    changed, _ = options_in_slot({"memory": 5e9}, SlotRef("n/0", "aa", "node", 0))
    assert changed == {"num_cpus": 1, "memory": None}
