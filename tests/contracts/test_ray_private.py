"""The installed Ray has every private part that we use. Needs no cluster; what these parts do is tested in tests/e2e."""

from __future__ import annotations

import pytest

ray_private = pytest.importorskip("heliostat_scheduler.live.ray_private", exc_type=ImportError)


def test_the_installed_ray_is_the_supported_minor() -> None:
    import ray

    assert ray.__version__.startswith(ray_private.SUPPORTED), (
        f"ray {ray.__version__}: the private parts were checked for 2.60"
    )


def test_every_message_field_and_method_is_there() -> None:
    import ray

    ray_private.verify(ray.__version__)


@pytest.mark.parametrize("path", sorted(ray_private.CONTRACT))
def test_a_missing_field_is_named_in_one_sentence(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ray_private.CONTRACT, path, (*ray_private.CONTRACT[path], "no_such_field"))
    with pytest.raises(ray_private.UnsupportedRay, match=rf"lacks {path}\.no_such_field\. Install ray==2\.60"):
        ray_private.verify("2.99.0")


def test_a_missing_method_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ray_private.METHODS, "ActorInfoGcsService", ("KillActorViaGcs", "KillNobody"))
    with pytest.raises(ray_private.UnsupportedRay, match=r"ActorInfoGcsService\.KillNobody"):
        ray_private.verify("2.99.0")


def test_ids_that_are_nil_read_as_nothing() -> None:
    from ray.core.generated import gcs_pb2

    data = gcs_pb2.ActorTableData(placement_group_id=b"\xff" * 18, actor_id=b"\x01" * 16)
    row = ray_private._actor(data)
    assert (row.group, row.id, row.state) == ("", "01" * 16, "DEPENDENCIES_UNREADY")


def test_an_actors_devices_and_variables_are_read() -> None:
    from ray.core.generated import common_pb2, gcs_pb2

    entry = common_pb2.ResourceId(index=3, quantity=1)
    mapping = [
        common_pb2.ResourceMapEntry(name=name, resource_ids=[entry]) for name in ("GPU_group_x", "GPU_group_0_x")
    ]
    data = gcs_pb2.ActorTableData(
        resource_mapping=mapping,
        serialized_runtime_env='{"env_vars": {"HELIOSTAT_JOB": "j"}}',
        required_resources={"GPU_group_" + "a" * 36: 1.0},
        state=2,
    )
    row = ray_private._actor(data)
    assert (row.devices, dict(row.env), row.state) == ((3,), {"HELIOSTAT_JOB": "j"}, "ALIVE")
    assert row.asks_by_name()
    assert row.groups() == {"a" * 36}
