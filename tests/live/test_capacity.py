"""How a node's CPUs and memory are shared out: one line per node."""

from __future__ import annotations

import pytest
from heliostat_scheduler.live.capacity import flavor_of, share_out


@pytest.mark.parametrize(
    ("cpu", "gpus", "options", "slot", "floating"),
    [
        pytest.param(8_000, 2, {"reserve_cpu_milli": 4000}, 1000, 2000, id="helio up with two logical GPUs"),
        pytest.param(64_000, 8, {}, 1000, 49_600, id="a GPU machine keeps a tenth in reserve"),
        pytest.param(
            64_000, 8, {"slot_cpu_milli": 6000}, 6000, 9_600, id="larger slot parts come out of the floating part"
        ),
        pytest.param(16_000, 0, {}, 1000, 14_000, id="a CPU machine floats whole but for two cores"),
        pytest.param(4_000, 8, {}, 250, 0, id="on a small machine the slot parts shrink first"),
        pytest.param(2_000, 2, {}, 500, 0, id="the reserve keeps at most half"),
        pytest.param(1_000, 0, {}, 1000, 500, id="one core"),
    ],
)
def test_cpu(cpu: int, gpus: int, options: dict[str, int], slot: int, floating: int) -> None:
    shares = share_out(cpu, 0, gpus, **options)
    assert (shares.slot_cpu_milli if gpus else 1000, shares.float_cpu_milli) == (slot, floating)


def test_nothing_is_given_twice() -> None:
    for cpu in range(0, 20_000, 700):
        for gpus in range(5):
            shares = share_out(cpu, 10**10, gpus)
            assert gpus * shares.slot_cpu_milli + shares.float_cpu_milli <= cpu
            assert gpus * shares.slot_memory_bytes + shares.float_memory_bytes <= 10**10


def test_flavors() -> None:
    assert flavor_of({"heliostat/flavor": "a100", "ray.io/accelerator-type": "A100"}, 1) == "a100"
    assert flavor_of({"ray.io/accelerator-type": "A100"}, 1) == "A100"
    assert (flavor_of({}, 2), flavor_of({}, 0)) == ("gpu", "cpu")
