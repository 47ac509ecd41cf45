"""The real bridge over a real Ray passes the suite that the fake passes too. With token authentication."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contracts.bridge_conformance import BridgeConformance
from tests.e2e.bridge_process import RealRig
from tests.e2e.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=8, num_gpus=2, token=True, dashboard=False)]


@pytest.fixture(scope="module")
def rig(ray_cluster: RayCluster) -> Iterator[RealRig]:
    rig = RealRig(ray_cluster)
    yield rig
    rig.close()


class TestRealBridge(BridgeConformance):
    pass
