"""cluster.yaml is valid for Ray's own cluster launcher, and an unknown top-level key would not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from heliostat.local.cluster_file import read
from heliostat.queuefile import parse

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = ROOT / "cluster.yaml"


def launcher_config(**extra: Any) -> dict[str, Any]:  # Any: YAML
    from ray.autoscaler._private.util import prepare_config

    prepared: dict[str, Any] = prepare_config({**yaml.safe_load(FILE.read_text()), **extra})
    return prepared


@pytest.mark.filterwarnings("ignore")
def test_the_launcher_accepts_the_file() -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(launcher_config())


@pytest.mark.filterwarnings("ignore")
def test_platform_settings_have_no_other_place_than_metadata() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(ValidationError):
        validate_config(launcher_config(queues={}))


def test_gpu_workers_name_their_flavor_and_the_head_has_no_gpu() -> None:
    config = yaml.safe_load(FILE.read_text())
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"]["GPU"] == 0
    workers = {name: kind for name, kind in types.items() if name != config["head_node_type"]}
    assert workers and all(kind["labels"]["heliostat/flavor"] == name for name, kind in workers.items())


def test_every_local_file_that_is_mounted_exists_or_is_built() -> None:
    mounts = yaml.safe_load(FILE.read_text())["file_mounts"].values()
    local = [path for path in mounts if not path.startswith("~") and path != "dist"]
    assert local and all((ROOT / path).exists() for path in local)


def test_the_nodes_that_may_be_had_are_the_node_types_that_the_launcher_starts() -> None:
    config = yaml.safe_load(FILE.read_text())
    pools = parse(read(FILE).queue_file).pools
    types = {
        kind["labels"]["heliostat/flavor"]: kind
        for kind in config["available_node_types"].values()
        if kind["max_workers"]
    }
    assert {name: (p.gpus, p.cpu_milli // 1000, p.max_nodes) for name, p in pools.items()} == {
        name: (kind["resources"]["GPU"], kind["resources"]["CPU"], kind["max_workers"]) for name, kind in types.items()
    }
