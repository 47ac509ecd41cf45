"""The life of endpoints over the whole control plane: loop, scheduler, fake bridge, fake Serve, on one virtual clock."""

from __future__ import annotations

import pytest
from heliostat.endpoints import EndpointError
from heliostat.store import jobs
from heliostat_serving.spec import version_app

from tests.platform.endpoints.serving_plant import ServingPlant


def test_grant_put_smoke_then_weights(plant: ServingPlant) -> None:
    row = plant.deploy()
    seen: list[str] = []
    for _ in range(100):
        plant.advance(100, 100)
        state = plant.deployment().state
        if not seen or seen[-1] != state:
            seen.append(state)
        if state != "ready":
            endpoint = plant.endpoint()
            assert endpoint is not None and endpoint.weights == {}, "no traffic before the smoke request was answered"
    assert seen[-1] == "ready" and seen[0] in ("waiting", "starting")
    assert plant.smoked == [("digits", 1)]
    assert plant.shares() == {"v1": 100}
    assert plant.state(row.job) == "running"


def test_a_version_that_cannot_start_never_gets_traffic_and_tells_its_traceback(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    plant.serve.broken[version_app("digits", 2)] = "Traceback ...\nHeliostatLoadError: model.skops: digest differs"
    second = plant.deploy("digits:2")
    plant.reach("failed", 2)
    failed = plant.deployment(2)
    assert "digest differs" in failed.reason and failed.trace.startswith("Traceback")
    plant.advance(2_000)
    assert plant.shares() == {"v1": 100}
    assert version_app("digits", 2) not in plant.serve.apps, "nothing of it is left in Serve"
    assert plant.state(second.job) == "failed" and not [lease for lease in plant.leases() if lease.job == second.job]


def test_a_smoke_request_that_fails_keeps_the_version_from_traffic(plant: ServingPlant) -> None:
    plant.smoke = lambda request: "HTTP 500: model_failed"
    row = plant.deploy()
    plant.reach("failed")
    assert len(plant.smoked) == 3 and "model_failed" in plant.deployment().trace
    plant.until(lambda: plant.state(row.job) == "failed", "its job to end")


def test_a_new_version_takes_over_and_rollback_returns_at_once(plant: ServingPlant) -> None:
    for version in (1, 2):
        plant.deploy(f"digits:{version}")
        plant.reach("ready", version)
    plant.advance(1_000)
    assert plant.shares() == {"v2": 100}
    plant.rollback()
    plant.advance(1_000)
    assert plant.shares() == {"v1": 100}, "within a second"
    assert plant.deployment(2).state == "ready", "the other one stays warm"


def test_the_version_before_last_is_retired(plant: ServingPlant) -> None:
    for version in (1, 2, 3):
        plant.deploy(f"digits:{version}")
        plant.reach("ready", version)
    plant.reach("gone", 1)
    assert plant.shares() == {"v3": 100}
    assert set(plant.serve.apps) == {"ep-digits-v2", "ep-digits-v3", "gw-digits"}


def test_a_canary_leaves_the_others_their_shares(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    plant.deploy("digits:2", weight=10)
    plant.reach("ready", 2)
    plant.advance(1_000)
    shares = plant.shares()
    assert shares["v2"] / sum(shares.values()) == pytest.approx(0.10)
    plant.weights(v1=50, v2=50)
    plant.advance(1_000)
    assert plant.shares() == {"v1": 50, "v2": 50}


def test_only_a_ready_version_gets_traffic(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    plant.smoke = lambda request: "no"
    plant.deploy("digits:2")
    with pytest.raises(EndpointError) as refused:
        plant.weights(v1=50, v2=50)
    assert refused.value.code == "not_ready"


def test_a_revoked_key_is_gone_from_the_gateway_within_a_second(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    key = plant.key()
    plant.advance(1_000)
    assert key in plant.gateway_keys()
    plant.revoke(key)
    plant.advance(1_000)
    assert key not in plant.gateway_keys()


def test_the_gateway_knows_which_keys_may_pin(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    plain, pinning = plant.key(), plant.key(pin=True)
    plant.advance(1_000)
    pins = {key["id"]: key["pin"] for key in plant.serve.user_config("gw-digits")["keys"]}
    assert (pins[plain], pins[pinning]) == (False, True)


def test_removing_an_endpoint_leaves_nothing(plant: ServingPlant) -> None:
    row = plant.deploy()
    plant.reach("ready")
    plant.remove()
    plant.until(lambda: plant.endpoint() is None, "the endpoint to be gone")
    assert plant.serve.apps == {}
    assert plant.state(row.job) == "cancelled"
    plant.check_quiet()


def test_traffic_leaves_before_the_replicas_do(plant: ServingPlant) -> None:
    for version in (1, 2):
        plant.deploy(f"digits:{version}")
        plant.reach("ready", version)
    plant.deploy("digits:3")
    for _ in range(200):
        plant.advance(50, 50)
        told = {f"ep-digits-v{target['n']}" for target in plant.serve.user_config("gw-digits")["targets"]}
        live = {name for name, app in plant.serve.apps.items() if name.startswith("ep-") and app.deleting_ms is None}
        assert told <= live, "the gateway never knows a version that Serve lets go"
    assert plant.deployment(1).state == "gone"


def test_applications_of_others_stay_in_the_document(plant: ServingPlant) -> None:
    plant.serve.foreign("theirs")
    plant.serve.foreign("by-hand", declarative=False)
    plant.deploy()
    plant.reach("ready")
    assert {"theirs", "by-hand", "gw-digits"} <= set(plant.serve.apps)
    assert {app["name"] for app in plant.serve.puts[-1]["applications"]} >= {"theirs", "gw-digits"}
    assert "by-hand" not in {app["name"] for app in plant.serve.puts[-1]["applications"]}


def test_what_somebody_else_changes_in_serve_is_repaired(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    plant.advance(2_000)
    before = len(plant.serve.puts)
    plant.advance(15_000, 500)
    assert len(plant.serve.puts) == before, "in step: nothing is put"
    del plant.serve.apps["ep-digits-v1"]
    plant.advance(12_000, 500)
    plant.reach("ready")
    assert plant.shares() == {"v1": 100}


def test_a_killed_control_plane_goes_on_where_it_was(plant: ServingPlant) -> None:
    plant.deploy()
    plant.advance(300)
    plant.restart_control()
    plant.reach("ready")
    plant.restart_control()
    plant.advance(3_000)
    assert plant.deployment().state == "ready" and plant.shares() == {"v1": 100}
    assert len(plant.attempts(plant.deployment().job)) == 1, "its job did not start again"


def test_after_the_head_died_the_endpoint_answers_again_without_a_command(plant: ServingPlant) -> None:
    plant.deploy()
    plant.deploy("digits:2", weight=20)
    plant.reach("ready", 1)
    plant.reach("ready", 2)
    plant.advance(1_000)
    before = plant.shares()
    plant.kill_head()
    plant.serve.lose_everything()
    plant.serve.down = True
    plant.advance(3_000)
    assert plant.deployment().state == "waiting"
    plant.start_head()
    plant.serve.down = False
    plant.reach("ready", 1)
    plant.reach("ready", 2)
    plant.advance(1_000)
    assert plant.shares() == before


def test_a_version_waits_while_the_cpus_are_taken(plant: ServingPlant) -> None:
    plant.submit("big", gpus=0, kind="command", cpu_milli=3_500)
    plant.until(lambda: plant.state("big") == "running", "the job to run")
    plant.deploy(cpus=2.0)
    plant.advance(3_000)
    row = plant.deployment()
    assert row.state == "waiting" and row.reason, "it says what it waits for"
    plant.ask("cancel", "big")
    plant.reach("ready")


def test_replicas_follow_the_wish_and_are_clipped_to_the_grant(plant: ServingPlant) -> None:
    row = plant.deploy(replicas_min=1, replicas_max=3, cpus=1.0)
    plant.reach("ready")
    assert plant.grant("ep-digits-v1") == 1
    plant.wish("ep-digits-v1", 3)
    plant.until(lambda: plant.grant("ep-digits-v1") == 3, "the grant to grow to the wish")
    assert plant.job(row.job).max_tasks == 3
    plant.wish("ep-digits-v1", 1)
    plant.until(lambda: plant.grant("ep-digits-v1") == 1, "the grant to shrink again")
    assert plant.state(row.job) == "running"


def test_a_wish_beyond_the_cluster_stays_a_wish(plant: ServingPlant) -> None:
    plant.deploy(replicas_min=1, replicas_max=10, cpus=1.5)
    plant.reach("ready")
    plant.wish("ep-digits-v1", 9)
    plant.until(lambda: plant.grant("ep-digits-v1") == 2, "as many as fit")
    plant.wish("ep-digits-v1", 9)
    plant.advance(5_000)
    assert plant.grant("ep-digits-v1") == 2 and plant.deployment().wish == 9


def test_scale_to_zero_is_serves_own_affair_within_the_grant(plant: ServingPlant) -> None:
    plant.deploy(replicas_min=0, replicas_max=2)
    plant.reach("ready")
    scaling = plant.serve.apps["ep-digits-v1"].config["deployments"][0]["autoscaling_config"]
    assert scaling["min_replicas"] == 0 and scaling["max_replicas"] == 1, "its grant is one replica"


def test_a_gpu_version_holds_a_slot_until_it_is_removed(plant: ServingPlant) -> None:
    row = plant.deploy(gpus=1.0)
    plant.reach("ready")
    (lease,) = [lease for lease in plant.leases() if lease.job == row.job]
    assert [len(place["slots"]) for place in lease.places] == [1]
    assert plant.bridge is not None
    assert plant.bridge.ledger.leases[row.job].app == "ep-digits-v1"
    plant.submit("training", gpus=2, kind="command")
    plant.advance(2_000)
    assert plant.state("training") == "queued", "one GPU is left, it needs two"
    plant.remove()
    plant.until(lambda: plant.state("training") == "running", "both GPUs to be free again")


def test_scale_changes_a_fixed_number_without_a_restart(plant: ServingPlant) -> None:
    row = plant.deploy(cpus=0.5)
    plant.reach("ready")
    puts = plant.serve.apps[version_app("digits", 1)].config["deployments"][0]
    assert puts["num_replicas"] == 1

    def replicas() -> int:
        return int(plant.serve.apps[version_app("digits", 1)].config["deployments"][0]["num_replicas"])

    plant.scale(3, 3)
    plant.until(lambda: replicas() == 3, "three replicas to be granted and put")
    assert plant.deployment().state == "ready" and plant.state(row.job) in ("running", "resizing")
    plant.scale(1, 1)
    plant.until(lambda: replicas() == 1, "one replica again")
    plant.until(lambda: plant.state(row.job) == "running", "the job to have given the others back")
    with plant.store.read() as session:
        job = jobs.get(session, row.job)
        assert (job.min_tasks, job.max_tasks) == (1, 1)


def test_scale_turns_a_fixed_number_into_a_range_and_refuses_what_is_none(plant: ServingPlant) -> None:
    plant.deploy()
    plant.reach("ready")
    plant.scale(1, 3)
    plant.until(
        lambda: "autoscaling_config" in plant.serve.apps[version_app("digits", 1)].config["deployments"][0],
        "the policy to be put",
    )
    assert plant.grant(version_app("digits", 1)) == 1
    for least, most in ((2, 1), (-1, 1), (0, 0), (1, 101)):
        with pytest.raises(EndpointError) as refused:
            plant.scale(least, most)
        assert refused.value.code == "bad_request"
    assert (plant.deployment().replicas_min, plant.deployment().replicas_max) == (1, 3)


def test_what_failed_cannot_be_scaled(plant: ServingPlant) -> None:
    plant.smoke = lambda request: "no"
    plant.deploy()
    plant.reach("failed")
    with pytest.raises(EndpointError) as refused:
        plant.scale(2, 2)
    assert refused.value.code == "not_scalable"
