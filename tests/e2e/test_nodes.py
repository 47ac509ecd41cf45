"""Nodes that come and go, and a command on two of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from heliostat_scheduler.live import protocol as p

from tests.contracts.bridge_conformance import ask, end, lease_of
from tests.e2e.bridge_process import RealRig
from tests.e2e.ray_cluster import RayCluster, add_node, kill_session

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=6, num_gpus=1, dashboard=False)]


@pytest.fixture(scope="module")
def rig(ray_cluster: RayCluster) -> Iterator[RealRig]:
    rig = RealRig(ray_cluster)
    yield rig
    rig.close()


def test_a_node_joins_runs_half_of_a_command_and_is_lost(rig: RealRig, ray_cluster: RayCluster) -> None:
    first = rig.slots()
    since = len(rig.facts())
    with add_node(ray_cluster) as node:
        joined = rig.until(p.NodeJoined, since=since)
        assert (len(joined.slots), joined.is_head) == (1, False)
        both = [*first, *joined.slots]
        two_nodes(rig, both)
        lease = lease_of(rig, "lost", both, kind="command")
        ask(rig, p.PutLease, lease=lease)
        ask(rig, p.StartCommand, job="lost", attempt=1, epoch=1, spec=replace(rig.command("lost", "wait"), nodes=2))
        rig.until(p.Acked, job="lost", what=p.STARTED)
        rig.sleep(3000)
        kill_session(node)
        rig.until(p.NodeLost, since=since, node=joined.node)
        exited = rig.until(p.Acked, job="lost", what=p.EXITED).facts
        assert exited["lost"]
        assert exited["nodes"]["1"] == 137
        end(rig, "lost", 1)
        assert [name for name, state in rig.driver("groups").items() if state == "CREATED"] == [
            f"{p.SLOT_PREFIX}{first[0].slot}"
        ]


def two_nodes(rig: RealRig, both: list[p.SlotRef]) -> None:
    line = 'echo "$NODE_RANK of $WORLD_SIZE at ${MASTER_ADDR:+addr}:${MASTER_PORT:+port} on $CUDA_VISIBLE_DEVICES"'
    ask(rig, p.PutLease, lease=lease_of(rig, "pair", both, kind="command"))
    spec = replace(rig.command("pair", "exit 0"), argv=("/bin/bash", "-c", line), nodes=2)
    ask(rig, p.StartCommand, job="pair", attempt=1, epoch=1, spec=spec)
    facts = rig.until(p.Acked, job="pair", what=p.EXITED).facts
    assert (facts["rc"], facts["nodes"]) == (0, {"0": 0, "1": 0})
    assert sorted(rig.read_log("pair").splitlines()) == [f"{rank} of 2 at addr:port on 0" for rank in (0, 1)]
    end(rig, "pair", 1)
