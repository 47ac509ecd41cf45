"""metadata.heliostat of a Ray cluster file: what is read, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from heliostat.local.cluster_file import read
from heliostat.local.errors import LocalError
from heliostat.queuefile import parse

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_repository_s_own_file_is_read_and_its_queues_are_valid() -> None:
    told = read(ROOT / "cluster.yaml")
    assert told.port == 8700
    names = [queue.name for queue in parse(told.queue_file).to_core(("a10g", "h100"))]
    assert sorted(names) == ["burst", "production", "research"]


def test_a_file_that_says_nothing_about_us_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("cluster_name: x\n")
    told = read(path)
    assert (told.port, told.queue_file) == (0, "")


REFUSED = [
    pytest.param("metadata: {heliostat: {prot: 1}}", "names prot", id="a key that nobody reads"),
    pytest.param("metadata: {heliostat: {port: high}}", "has port 'high'", id="a port that is no number"),
    pytest.param("metadata: {heliostat: {queues: [a]}}", "no mapping", id="queues as a list"),
    pytest.param("- a", "no cluster file", id="a list"),
    pytest.param("a: [", "cannot be read", id="no YAML"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(LocalError, match=sentence):
        read(path)


def test_nodes_need_queues(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("metadata: {heliostat: {nodes: {a: {cpus: 1, max: 1}}}}")
    with pytest.raises(LocalError, match="without queues"):
        read(path)
