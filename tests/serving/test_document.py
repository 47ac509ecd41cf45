"""Entries of Serve's document, and what of them changes in place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heliostat_serving.spec import (
    DirectConfig,
    GatewaySpec,
    Scale,
    Signature,
    SpecError,
    VersionSpec,
    direct_application,
    gateway_application,
    version_application,
)

from tests.serving.builders import PAIR, config, target

SPEC = VersionSpec("iris", 1, "iris", 3, "file:///models/x", "a" * 64, PAIR)
GROWS = Scale(floor=2, ceiling=5, grant=3, wish_dir="/spool/wish")


def scaling(scale: Scale) -> dict[str, Any]:
    (deployment,) = version_application(SPEC, scale)["deployments"]
    found: dict[str, Any] = deployment["autoscaling_config"]
    return found


def test_a_version_has_no_route_and_an_endpoint_has() -> None:
    assert version_application(SPEC, Scale())["route_prefix"] is None
    assert gateway_application(GatewaySpec("iris"), config())["route_prefix"] == "/endpoints/iris"
    direct = DirectConfig.from_json(config().to_json())
    assert direct_application(replace(SPEC, direct=True), Scale(), direct)["route_prefix"] == "/endpoints/iris"


def test_a_fixed_number_of_replicas() -> None:
    (deployment,) = version_application(SPEC, Scale(floor=2))["deployments"]
    assert deployment["num_replicas"] == 2
    assert "autoscaling_config" not in deployment


@pytest.mark.parametrize(("grant", "bounds"), [(3, (2, 3)), (1, (1, 1)), (9, (2, 5)), (0, (0, 1))])
def test_the_grant_bounds_both_ends(grant: int, bounds: tuple[int, int]) -> None:
    found = scaling(replace(GROWS, grant=grant))
    assert (found["min_replicas"], found["max_replicas"]) == bounds


def test_a_grant_of_zero_lets_go_at_once() -> None:
    assert scaling(replace(GROWS, grant=0))["downscale_to_zero_delay_s"] == 0


def test_a_change_of_the_grant_is_no_new_code() -> None:
    one, other = (version_application(SPEC, replace(GROWS, grant=grant)) for grant in (1, 3))
    assert one["args"] == other["args"]
    assert scaling(replace(GROWS, grant=1))["policy"] == scaling(replace(GROWS, grant=3))["policy"]


def test_arguments_survive_json_and_unknown_fields_do_not() -> None:
    assert VersionSpec.from_json(SPEC.to_json()) == SPEC
    with pytest.raises(SpecError, match="no field colour"):
        VersionSpec.from_json({**SPEC.to_json(), "colour": 1})
    with pytest.raises(SpecError, match=r"VersionSpec\.n is not of type int"):
        VersionSpec.from_json({**SPEC.to_json(), "n": "1"})


def test_a_model_json_may_say_more_of_a_tensor() -> None:
    """The registry takes it: people write descriptions there."""
    told = SPEC.signature.to_json()
    told["inputs"][0]["description"], told["author"] = "grey values", "ann"
    assert Signature.from_json(told) == SPEC.signature


def test_direct_mode_has_one_version() -> None:
    with pytest.raises(SpecError, match="one version"):
        DirectConfig.from_json(config(target(1), target(2)).to_json())
