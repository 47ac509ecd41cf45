"""Artifacts are verified before anything of them runs; models are tried before they count; calls are batched where it pays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from heliostat_serving.model.artifact import HeliostatLoadError, fetch
from heliostat_serving.model.batching import Batcher
from heliostat_serving.model.loading import load
from heliostat_serving.model.served import ModelFailed, Served
from heliostat_serving.model.trial import attempt
from heliostat_serving.spec import Batching, Signature, TensorSpec, VersionSpec
from heliostat_serving.wire.tensors import Tensors

from tests.serving.builders import PAIR

FACTORY = """
import torch

class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.by = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x * self.by
"""


def manifest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = [
        {"path": str(file.relative_to(folder)), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
        for file in files
    ]  # fmt: skip
    raw = json.dumps({"files": entries}).encode()
    (folder / "manifest.json").write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def twice(folder: Path, code: str = FACTORY, signature: Signature = PAIR) -> VersionSpec:
    import torch
    from safetensors.torch import save_file

    (folder / "code").mkdir(parents=True)
    (folder / "code" / "twice.py").write_text(code)
    save_file({"by": torch.tensor(2.0)}, folder / "model.safetensors")
    return card(folder, {"format": "safetensors", "factory": "twice:Twice"}, signature)


def card(folder: Path, entries: dict[str, Any], signature: Signature = PAIR) -> VersionSpec:
    (folder / "model.json").write_text(json.dumps({**entries, "signature": signature.to_json()}))
    return VersionSpec("iris", 1, "iris", 1, f"file://{folder}", manifest(folder), signature)


async def test_a_torch_model(tmp_path: Path) -> None:
    served = Served(twice(tmp_path))
    found = await served.infer({"x": np.ones((3, 2), np.float32)}, 3)
    assert found["y"].tolist() == [[2, 2]] * 3


def test_what_was_exchanged_is_refused_before_it_runs(tmp_path: Path) -> None:
    spec = twice(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "code" / "twice.py").write_text(f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(HeliostatLoadError, match=r"code/twice\.py has SHA-256"):
        Served(spec)
    manifest(tmp_path)
    with pytest.raises(HeliostatLoadError, match=r"manifest\.json has SHA-256"):
        Served(spec)
    assert not marker.exists()


def test_a_manifest_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    raw = json.dumps({"files": [{"path": "../../etc/passwd", "sha256": "0" * 64, "size": 1}]}).encode()
    (tmp_path / "manifest.json").write_bytes(raw)
    with pytest.raises(HeliostatLoadError, match="outside"):
        fetch(str(tmp_path), hashlib.sha256(raw).hexdigest())


def test_a_missing_artifact_says_so(tmp_path: Path) -> None:
    with pytest.raises(HeliostatLoadError, match=r"manifest.json of the artifact cannot be read"):
        fetch(str(tmp_path / "nowhere"), "0" * 64)


OTHER = Signature(PAIR.inputs, (TensorSpec("y", "FP32", (-1, 3)),))
WRONG = Signature(PAIR.inputs, (TensorSpec("y", "INT64", (-1, 2)),))


@pytest.mark.parametrize(
    ("code", "signature", "words"),
    [
        ("raise RuntimeError('at import')", PAIR, "at import"),
        ("x = 1", PAIR, "cannot be imported"),
        (FACTORY, OTHER, r"shape \[1, 2\], the signature says \[-1, 3\]"),
        (FACTORY, WRONG, "float32, the signature says INT64"),
    ],
    ids=["raises at import", "has no factory", "another shape", "another dtype"],
)
def test_a_model_that_breaks_its_word_does_not_load(
    tmp_path: Path, code: str, signature: Signature, words: str
) -> None:
    with pytest.raises(HeliostatLoadError, match=words):
        Served(twice(tmp_path, code, signature))


def test_another_signature_than_the_registered_one_is_refused(tmp_path: Path) -> None:
    twice(tmp_path)
    spec = VersionSpec("iris", 1, "iris", 1, str(tmp_path), manifest(tmp_path), OTHER)
    with pytest.raises(HeliostatLoadError, match="not the registered one"):
        Served(spec)


def test_a_pickle_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(int))
    spec = card(tmp_path, {"format": "pickle"})
    with pytest.raises(HeliostatLoadError, match="administrator"):
        load(fetch(spec.artifact_uri, spec.sha256), spec)


WINE = Signature(
    (TensorSpec("features", "FP64", (-1, 2)),),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP64", (-1, 2))),
)


def test_an_estimator_from_skops(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from skops.io import dump

    dump(LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1]), tmp_path / "model.skops")
    spec = card(tmp_path, {"format": "skops"}, WINE)
    predict = load(fetch(spec.artifact_uri, spec.sha256), spec)
    attempt(predict, WINE)
    found = predict({"features": np.array([[0.0, 0.0], [5.0, 5.0]])})
    assert found["label"].tolist() == [0, 1]
    assert found["probabilities"].shape == (2, 2)


def test_an_onnx_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    spec = card(tmp_path, {"format": "onnx"})
    predict = load(fetch(spec.artifact_uri, spec.sha256), spec)
    assert predict({"x": np.ones((2, 2), np.float32)})["y"].tolist() == [[2, 2], [2, 2]]


class Slow:
    """A model that waits for a gate and remembers how many rows each call had."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.rows: list[int] = []

    def __call__(self, inputs: Tensors) -> Tensors:
        self.gate.wait(10)
        x = inputs["x"]
        self.rows.append(len(x))
        if (x < 0).any():
            raise ValueError("negative")
        return {"y": x * 2}


def row(value: float, count: int = 1) -> Tensors:
    return {"x": np.full((count, 2), value, np.float32)}


async def test_what_queues_while_the_model_computes_is_one_batch() -> None:
    slow = Slow()
    batcher = Batcher(slow, Batching(max_rows=8), True, cost_s=1.0)
    calls = [asyncio.create_task(batcher.run(row(value), 1)) for value in range(1, 6)]
    await asyncio.sleep(0.01)
    calls += [asyncio.create_task(batcher.run(row(value, 3), 3)) for value in range(6, 10)]
    await asyncio.sleep(0.01)
    slow.gate.set()
    found = await asyncio.gather(*calls)
    assert [answer["y"][0, 0] for answer in found] == [value * 2 for value in range(1, 10)]
    assert [len(answer["y"]) for answer in found] == [1] * 5 + [3] * 4
    assert slow.rows == [5, 6, 6]


async def test_one_callers_data_never_fails_anothers_call() -> None:
    slow = Slow()
    batcher = Batcher(slow, Batching(), True, cost_s=1.0)
    calls = [asyncio.create_task(batcher.run(row(value), 1)) for value in (1, -1, 3)]
    await asyncio.sleep(0.01)
    slow.gate.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found[1], ValueError)
    assert not isinstance(found[0], BaseException)
    assert not isinstance(found[2], BaseException)


async def test_a_fast_model_is_called_at_once() -> None:
    slow = Slow()
    slow.gate.set()
    batcher = Batcher(slow, Batching(inline_ms=1000), True, cost_s=0.0)
    await asyncio.gather(*(batcher.run(row(1), 1) for _ in range(4)))
    assert slow.rows == [1, 1, 1, 1]


async def test_a_fast_model_stays_fast_when_it_is_interrupted_now_and_then_and_a_slow_one_is_found_out() -> None:
    now = [0.0]
    took = [0.0001]

    def predict(inputs: Tensors) -> Tensors:
        now[0] += took[0]
        return {"y": inputs["x"]}

    batcher = Batcher(predict, Batching(inline_ms=1.0), True, cost_s=0.0, clock_s=lambda: now[0])
    for call in range(400):
        took[0] = 0.05 if call % 20 == 0 else 0.0001
        await batcher.run(row(1), 1)
        assert batcher.inline, f"call {call}"
    took[0] = 0.005
    for _ in range(40):
        await batcher.run(row(1), 1)
    assert not batcher.inline, "5 ms each is slow"


async def test_calls_of_gone_callers_are_not_computed() -> None:
    slow = Slow()
    batcher = Batcher(slow, Batching(mode="off"), True, cost_s=1.0)
    calls = [asyncio.create_task(batcher.run(row(value), 1)) for value in (1, 2, 3)]
    await asyncio.sleep(0.01)
    calls[1].cancel()
    slow.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert slow.rows == [1, 1]


async def test_a_model_that_raises_says_nothing_of_its_inside(tmp_path: Path) -> None:
    code = FACTORY.replace("return x * self.by", "assert float(x.max()) < 9, 'inside'\n        return x * self.by")
    served = Served(twice(tmp_path, code))
    with pytest.raises(ModelFailed, match="iris version 1 failed on this input"):
        await served.infer({"x": np.full((1, 2), 10, np.float32)}, 1)
    assert (await served.infer(row(1), 1))["y"].tolist() == [[2, 2]]
