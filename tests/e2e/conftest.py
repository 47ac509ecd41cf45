"""Fixtures with a real Ray. A module asks for what it needs by a marker:

pytestmark = [pytest.mark.ray, pytest.mark.cluster(num_cpus=6, num_gpus=2, token=True)]

def test_something(ray_cluster): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.ray_cluster import RayCluster, start_ray


@pytest.fixture(scope="module")
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[RayCluster]:
    """One Ray head for the module, with the sizes of its `cluster` marker (default 4 CPUs, no GPU, no token)."""
    marker = request.node.get_closest_marker("cluster")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    with start_ray(**options) as cluster:
        yield cluster
