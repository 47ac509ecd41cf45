"""What goes wrong with one version harms no other and keeps nothing: over the whole control plane, as in `test_life`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from heliostat.endpoints import EndpointError, removing
from heliostat.store.endpoint_tables import Deployment
from heliostat.store.model_tables import ModelVersion
from heliostat_jobs import spec as registered
from heliostat_serving.spec import DTYPES, version_app
from sqlalchemy import update

from tests.platform.endpoints.serving_plant import ACTOR, SIGNATURE, ServingPlant

BF16 = {**SIGNATURE, "inputs": [{"name": "x", "dtype": "BF16", "shape": [-1, 4]}]}


# ---- what no replica can serve ----------------------------------------------------------------------------------------


def test_the_registry_takes_exactly_what_can_be_served() -> None:
    assert set(DTYPES) == registered.DTYPES


def test_a_version_that_no_replica_can_serve_is_refused_at_once(plant: ServingPlant) -> None:
    """Registered by an older program."""
    plant.store.write(lambda s: s.execute(update(ModelVersion).values(signature=BF16)))
    with pytest.raises(EndpointError, match="unknown dtype BF16") as refused:
        plant.deploy()
    assert (refused.value.code, refused.value.status) == ("not_servable", 422)
    assert plant.endpoint() is None


def test_a_row_that_cannot_be_rendered_fails_alone(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    key = plant.key()
    plant.advance(1_000)
    bad = plant.deploy("digits:2", "other")
    plant.store.write(lambda s: s.execute(update(Deployment).where(Deployment.job == bad.job).values(signature=BF16)))
    plant.reach("failed", 1, "other")
    assert "unknown dtype BF16" in plant.deployment(1, "other").reason
    plant.until(lambda: plant.state(bad.job) == "failed", "its job to end")
    plant.revoke(key)
    plant.deploy("digits:3")
    plant.reach("ready", 2)
    plant.advance(1_000)
    assert key not in plant.gateway_keys() and plant.shares() == {"v2": 100}, "the others go on"


# ---- what failed holds nothing; what answers has not failed -------------------------------------------------------------


def test_a_version_whose_gateway_cannot_start_gives_its_grant_back(plant: ServingPlant) -> None:
    plant.serve.broken["gw-digits"] = "Traceback ...\nOSError: no space left"
    row = plant.deploy()
    plant.reach("checking")
    plant.until(lambda: "no space left" in plant.deployment().reason, "it to say what it waits for")
    plant.advance(90_000, 1_000)
    assert plant.deployment().state == "failed"
    assert plant.state(row.job) == "failed" and plant.leases() == []


def test_a_gateway_that_comes_back_costs_no_version(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    plant.smoke = lambda request: "no" if request.number == 2 else ""
    plant.serve.stumble("gw-digits", "A replica's health check failed.", silent=True)
    plant.deploy("digits:3")
    plant.advance(10_000)
    plant.serve.recover("gw-digits")
    plant.smoke = lambda request: ""
    plant.reach("ready", 2)


def test_a_job_whose_ending_was_not_heard_ends_all_the_same(plant: ServingPlant) -> None:
    """The process died between the committed move and the control loop's reading of what was said."""
    row = plant.deploy()
    plant.reach("ready")
    plant.store.write(lambda s: s.execute(update(Deployment).values(state="failed", reason="Its replica broke.")))
    plant.restart_control()
    plant.advance(20_000, 500)
    assert plant.job(row.job).error == "Its replica broke." and plant.state(row.job) == "failed"
    assert plant.leases() == [] and version_app("digits", 1) not in plant.serve.apps


@pytest.mark.parametrize("silent", [False, True], ids=["one of several replicas", "the only replica"])
def test_a_ready_version_outlives_a_failed_health_check(plant: ServingPlant, silent: bool) -> None:
    row = plant.deploy(replicas_min=2, replicas_max=2)
    plant.reach("ready")
    plant.serve.stumble(version_app("digits", 1), "A replica's health check failed.", silent=silent)
    plant.advance(60_000, 1_000)
    assert plant.deployment().state == "ready" and plant.state(row.job) == "running"
    assert plant.deployment().reason.endswith("A replica's health check failed.") is silent
    plant.serve.recover(version_app("digits", 1))
    plant.advance(12_000, 1_000)
    assert plant.deployment().state == "ready" and plant.deployment().reason.startswith("v1 answers")
    assert plant.shares() == {"v1": 100}


def test_a_ready_version_that_stays_silent_has_failed(plant: ServingPlant) -> None:
    row = plant.deploy()
    plant.reach("ready")
    plant.serve.stumble(version_app("digits", 1), "Traceback ...\nOSError: gone", silent=True)
    plant.advance(330_000, 5_000)
    assert plant.deployment().state == "failed" and "OSError: gone" in plant.deployment().reason
    assert plant.state(row.job) == "failed" and plant.leases() == []


# ---- the last word about traffic holds ------------------------------------------------------------------------------------


def late(plant: ServingPlant, number: int, then: Callable[[], None]) -> None:
    """Deploy a version, do something while it is under way, and only then let it become ready."""
    held: list[Callable[[], None]] = []
    at_once = plant.service.smokes._run
    plant.service.smokes._run = held.append
    plant.deploy(f"digits:{number}")
    plant.until(lambda: bool(held), f"the smoke request of v{number} to be on its way")
    plant.service.smokes._run = at_once
    then()
    for work in held:
        work()
    plant.reach("ready", number)
    plant.advance(1_000)


def test_an_older_version_that_is_ready_late_takes_nothing_from_a_newer_one(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")

    def newer() -> None:
        plant.deploy("digits:3")
        plant.reach("ready", 3)

    late(plant, 2, newer)
    assert plant.shares() == {"v3": 100}
    assert "v3 took over" in plant.deployment(2).reason and "traffic digits v2=100" in plant.deployment(2).reason
    plant.weights(v2=100)
    plant.advance(1_000)
    assert plant.shares() == {"v2": 100}, "its remedy works"


def test_a_newer_version_without_traffic_is_in_nobodys_way(plant: ServingPlant) -> None:
    def newer() -> None:
        plant.deploy("digits:2", weight=0)
        plant.reach("ready", 2)

    late(plant, 1, newer)
    assert plant.shares() == {"v1": 100}


@pytest.mark.parametrize("how", ["rollback", "split"])
def test_whoever_moves_traffic_during_a_deployment_has_the_last_word(plant: ServingPlant, how: str) -> None:
    for version in (1, 2):
        plant.deploy(f"digits:{version}")
        plant.reach("ready", version)
    late(plant, 3, plant.rollback if how == "rollback" else lambda: plant.weights(v1=100))
    assert plant.shares() == {"v1": 100}
    assert "without traffic" in plant.deployment(3).reason


# ---- failed versions are in nobody's way -----------------------------------------------------------------------------------


def fail(plant: ServingPlant, number: int, **more: Any) -> None:
    plant.serve.broken[version_app("digits", number)] = "Traceback ...\nOSError: no"
    plant.deploy("digits:2", **more)
    plant.reach("failed", number)


def test_failed_versions_do_not_count_and_the_oldest_of_them_go(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    for number in range(2, 8):
        fail(plant, number)
    plant.deploy("digits:3")
    plant.reach("ready", 8)
    plant.advance(1_000)
    assert plant.shares() == {"v8": 100}
    plant.until(lambda: plant.deployment(4).state == "gone", "the older of those that failed to be gone")
    assert [plant.deployment(number).state for number in (5, 6, 7)] == ["failed"] * 3


def test_too_many_versions_names_one_that_can_go(plant: ServingPlant) -> None:
    plant.deploy(cpus=0.1)
    plant.reach("ready")
    for _ in range(7):
        plant.deploy("digits:2", weight=0, cpus=0.1)
    with pytest.raises(EndpointError) as refused:
        plant.deploy("digits:3")
    assert refused.value.code == "too_many_versions" and refused.value.remedy.endswith("helio endpoint rm digits v2.")
    plant.reach("ready", 2)
    second = plant.deployment(2).id
    actor, now_ms = ACTOR, plant.cluster.now_ms
    plant.change(lambda s, row: removing.remove_version(s, row, s.get_one(Deployment, second), actor, now_ms))
    plant.reach("gone", 2)
    plant.deploy("digits:3", cpus=0.1)


def test_a_direct_endpoint_whose_version_failed_is_deployed_to_again(plant: ServingPlant) -> None:
    fail(plant, 1, direct=True)
    plant.deploy("digits:3")
    plant.reach("ready", 2)
    with pytest.raises(EndpointError, match="direct mode"):
        plant.deploy("digits:1")


# ---- what was asked is done ------------------------------------------------------------------------------------------------


def test_a_canary_makes_an_endpoint_sticky_and_a_later_one_not(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    for sticky, told in ((True, "key"), (None, "key"), (False, "")):
        plant.deploy("digits:2", weight=10, sticky=sticky)
        plant.advance(3_000)
        assert plant.serve.user_config("gw-digits")["sticky"] == told


def test_what_direct_mode_cannot_do_is_refused_of_an_endpoint_that_is_in_it(plant: ServingPlant) -> None:
    fail(plant, 1, direct=True)
    for more in ({"sticky": True}, {"gateways": 2}, {"weight": 10}, {"replicas_min": 0}):
        with pytest.raises(EndpointError, match="without a gateway"):
            plant.deploy("digits:3", **more)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"batch_wait_ms": 5.0}, (64, 5.0)),
        ({"max_batch": 8}, (8, 0.0)),
        ({"max_batch": 8, "batch_wait_ms": 5.0}, (8, 5.0)),
    ],
)
def test_either_option_of_batching_counts(plant: ServingPlant, asked: dict[str, Any], told: tuple[int, float]) -> None:
    plant.deploy(**asked)
    plant.reach("starting")
    batching = plant.serve.apps[version_app("digits", 1)].config["args"]["batching"]
    assert (batching["max_rows"], batching["wait_ms"]) == told
