"""Changes and deaths under constant load. A call counts as failed unless it is answered with 200.

The times are upper bounds for a busy machine; `benchmarks/serving` measures them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from heliostat_serving.spec import Scale, wish_file

from tests.e2e.serve_world import Load, ServeWorld, kill9, serve_world, until

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CLIENTS = 4
PAUSE_S = 0.005
"""What the model takes per call, so that calls are in flight when something dies."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeWorld]:
    """`busy`: two versions behind two gateways, the first with two replicas and all the calls."""
    with serve_world(tmp_path_factory.mktemp("serve")) as world:
        for n in (1, 2):
            world.version(world.spec("busy", n, float(n), args={"pause_s": PAUSE_S}), Scale(floor=3 - n))
        world.gateway(world.config("busy", {1: 1, 2: 0}), replicas=2)
        world.put()
        world.until_running()
        world.until_answers("busy")
        yield world


def shift(world: ServeWorld, weights: dict[int, int], sticky: str = "") -> float:
    """Moves the traffic; the moment before the PUT."""
    world.gateway(world.config("busy", weights, sticky=sticky), replicas=2)
    begun = time.monotonic()
    world.put()
    return begun


def pids(world: ServeWorld, *words: str) -> list[int]:
    """Processes of the cluster whose command line has all the words."""
    found = []
    for pid in world.cluster.processes():
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if all(word in line for word in words):
            found.append(pid)
    return found


def test_weights_and_rollback_fail_no_call_and_work_at_once(world: ServeWorld) -> None:
    with Load(world, "busy", CLIENTS) as load:
        time.sleep(0.5)
        for weights, old in (({1: 0, 2: 1}, "200 v1"), ({1: 1, 2: 0}, "200 v2")):
            begun = shift(world, weights)
            until(lambda: time.monotonic() - begun > 2.5, "some time")  # noqa: B023  (called at once)
            last = max(when for when, said in load.answers if said == old)
            print(f"moved after {last - begun:.2f} s")
            assert last - begun < 2.0
    assert load.failed() == []
    assert {said for _, said in load.answers} == {"200 v1", "200 v2"}


def test_a_split_and_a_sticky_split(world: ServeWorld) -> None:
    shift(world, {1: 1, 2: 1}, sticky="header:X-User")
    until(lambda: set(versions(world).values()) == {"v1", "v2"}, "the split is in force", 10)
    time.sleep(1)  # in both gateways
    answers = versions(world)
    assert versions(world) == answers
    shift(world, {1: 1, 2: 0})
    until(lambda: set(versions(world).values()) == {"v1"}, "the split is over", 10)


def versions(world: ServeWorld) -> dict[str, str]:
    """Which version each of some users gets."""
    users = ("ada", "ben", "cy", "dee", "eve", "fay", "gus", "hal")
    return {user: world.call("busy", [1, 2, 3, 4], **{"X-User": user}).headers["x-heliostat-version"] for user in users}


def test_replacing_a_version_fails_no_call(world: ServeWorld) -> None:
    with Load(world, "busy", CLIENTS) as load:
        world.version(world.spec("busy", 3, 3.0, args={"pause_s": PAUSE_S}), Scale(floor=1))
        world.put()
        world.until_running("ep-busy-v3")
        shift(world, {1: 0, 2: 0, 3: 1})
        until(lambda: bool(load.answers) and load.answers[-1][1] == "200 v3", "version 3 answers", 5)
        shift(world, {1: 1, 2: 0})
        until(lambda: load.since(time.monotonic() - 1)["200 v3"] == 0, "no gateway sends to version 3 any more", 10)
        del world.apps["ep-busy-v3"]
        world.put()
        until(lambda: not world.application("ep-busy-v3"), "version 3 is gone", 40)
    assert load.failed() == []


def test_kill_9_of_a_version_replica_fails_no_call(world: ServeWorld) -> None:
    with Load(world, "busy", CLIENTS) as load:
        time.sleep(0.5)
        kill9(world.replicas("ep-busy-v1")[0]["pid"])
        died = time.monotonic()
        time.sleep(2)
    assert load.failed() == []
    assert load.since(died)["200 v1"] > 0


def test_kill_9_of_the_controller_fails_no_call(world: ServeWorld) -> None:
    with Load(world, "busy", CLIENTS) as load:
        time.sleep(0.5)
        (controller,) = pids(world, "ray::ServeController")
        kill9(controller)
        time.sleep(3)
        until(lambda: pids(world, "ray::ServeController") not in ([], [controller]), "a new controller")
    assert load.failed() == []


def test_kill_9_of_a_gateway_fails_only_what_was_in_flight(world: ServeWorld) -> None:
    world.until_running()
    with Load(world, "busy", CLIENTS) as load:
        time.sleep(0.5)
        kill9(world.replicas("gw-busy")[0]["pid"])
        time.sleep(2)
    assert len(load.failed()) <= CLIENTS
    world.until_running()
    with Load(world, "busy", CLIENTS, retry_s=5.0) as load:
        time.sleep(0.5)
        kill9(world.replicas("gw-busy")[0]["pid"])
        time.sleep(2)
    assert load.failed() == []


def test_kill_9_of_the_proxy_is_over_in_8_s(world: ServeWorld) -> None:
    world.until_running()
    with Load(world, "busy", 2, retry_s=20.0) as load:
        time.sleep(0.5)
        proxies = pids(world, "haproxy", "-f")
        assert proxies
        for pid in proxies:
            kill9(pid)
        died = time.monotonic()
        until(lambda: bool(load.since(died + 1)["200 v1"]), "the proxy is back", 30)
        time.sleep(1)
    print(f"the proxy was back after {load.longest_gap_s(died):.1f} s")
    assert load.longest_gap_s(died) < 8


def test_growth_stays_under_the_grant_and_reports_its_wish(world: ServeWorld) -> None:
    wishes = str(world.folder / "wish")
    spec = world.spec("grows", 1, 1.0, args={"pause_s": 0.2})
    scale = Scale(
        floor=1,
        ceiling=3,
        grant=2,
        target_ongoing_requests=1,
        upscale_delay_s=0.5,
        downscale_delay_s=1.0,
        wish_dir=wishes,
    )
    world.version(spec, scale)
    world.gateway(world.config("grows", {1: 1}))
    world.put()
    world.until_running("ep-grows-v1", "gw-grows")
    world.until_answers("grows")
    with Load(world, "grows", 6) as load:
        until(lambda: wish(wishes) >= 3, "the wish is known", 20)
        until(lambda: len(world.replicas("ep-grows-v1")) == 2, "two replicas", 60)
        time.sleep(2)
        two = {replica["pid"] for replica in world.replicas("ep-grows-v1")}
        assert len(two) == 2
        world.version(spec, replace(scale, grant=3))
        world.put()
        until(lambda: len(world.replicas("ep-grows-v1")) == 3, "three replicas", 60)
        assert two < {replica["pid"] for replica in world.replicas("ep-grows-v1")}, (
            "a change of the grant restarts nobody"
        )
    assert load.failed() == []
    until(lambda: len(world.replicas("ep-grows-v1")) == 1, "one replica", 40)


def wish(folder: str) -> int:
    path = wish_file(folder, "ep-grows-v1")
    return int(json.loads(path.read_text())["wish"]) if path.exists() else 0
