"""Ray's node provider for tests, with node ids that differ from the beginning, as real ones do (slots are named by twelve digits)."""

from __future__ import annotations

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Provider(FakeMultiNodeProvider):  # type: ignore[misc]  # Ray is not typed
    def _next_hex_node_id(self) -> str:
        self._next_node_id += 1
        return f"{self._next_node_id:05d}" + "e" * 51
