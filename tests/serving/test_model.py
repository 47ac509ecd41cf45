"""Artifacts are verified before anything of them runs; models are tried before they count; calls are batched where it pays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from heliostat_serving.model.artifact import HeliostatLoadError, fetch
from heliostat_serving.model.batching import Batcher
from heliostat_serving.model.loading import Predict, load
from heliostat_serving.model.promise import keeping
from heliostat_serving.model.served import ModelFailed, Served
from heliostat_serving.model.trial import attempt
from heliostat_serving.spec import Batching, Signature, TensorSpec, VersionSpec
from heliostat_serving.wire.tensors import Tensors, from_json, to_json

from tests.serving.builders import PAIR
from tests.serving.folders import FACTORY, card, manifest, row, twice


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
        (FACTORY, OTHER, r"shape \[1, 2\] \(rows asked: 1\), the signature says \[-1, 3\]"),
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
    predict = keeping(load(fetch(spec.artifact_uri, spec.sha256), spec), WINE)
    attempt(predict, WINE)
    found = predict({"features": np.array([[0.0, 0.0], [5.0, 5.0]])})
    assert found["label"].tolist() == [0, 1]
    assert found["probabilities"].shape == (2, 2)


def test_an_onnx_model(tmp_path: Path) -> None:
    spec = onnx_model(tmp_path, onnx.helper.make_node("Add", ["x", "x"], ["y"]), PAIR)
    predict = keeping(load(fetch(spec.artifact_uri, spec.sha256), spec), PAIR)
    attempt(predict, PAIR)
    assert predict({"x": np.ones((2, 2), np.float32)})["y"].tolist() == [[2, 2], [2, 2]]


def onnx_model(folder: Path, node: onnx.NodeProto, signature: Signature) -> VersionSpec:
    """A model of one node."""
    kinds = {"FP32": onnx.TensorProto.FLOAT, "INT64": onnx.TensorProto.INT64, "BYTES": onnx.TensorProto.STRING}
    ends = [
        [
            onnx.helper.make_tensor_value_info(tensor.name, kinds[tensor.dtype], [None, *tensor.shape[1:]])
            for tensor in side
        ]
        for side in (signature.inputs, signature.outputs)
    ]
    graph = onnx.helper.make_graph([node], "g", *ends)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return card(folder, {"format": "onnx"}, signature)


def texts(*rows: Any) -> Tensors:
    """As they come from the wire, as bytes."""
    return {"x": from_json(list(rows), TensorSpec("x", "BYTES", (-1,)))}


def test_an_onnx_model_gets_texts_not_bytes(tmp_path: Path) -> None:
    codes = Signature((TensorSpec("x", "BYTES", (-1, 1)),), (TensorSpec("y", "INT64", (-1, 1)),))
    node = onnx.helper.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_strings=["red", "grün"], values_int64s=[1, 2], default_int64=9
    )  # fmt: skip
    spec = onnx_model(tmp_path, node, codes)
    predict = keeping(load(fetch(spec.artifact_uri, spec.sha256), spec), codes)
    attempt(predict, codes)
    assert predict(texts(["red"], ["grün"], ["blue"]))["y"].tolist() == [[1], [2], [9]]


def test_an_onnx_model_may_answer_with_texts(tmp_path: Path) -> None:
    same = Signature((TensorSpec("x", "BYTES", (-1, 1)),), (TensorSpec("y", "BYTES", (-1, 1)),))
    spec = onnx_model(tmp_path, onnx.helper.make_node("Identity", ["x"], ["y"]), same)
    predict = keeping(load(fetch(spec.artifact_uri, spec.sha256), spec), same)
    assert to_json(predict(texts(["grün"]))["y"]) == [["grün"]]


def test_a_library_that_is_not_installed_is_named_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = onnx_model(tmp_path, onnx.helper.make_node("Add", ["x", "x"], ["y"]), PAIR)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HeliostatLoadError, match=r"needs onnxruntime.*pip install -c constraints\.txt onnxruntime"):
        Served(spec)


def estimator(folder: Path, model: Any, signature: Signature) -> Predict:
    from skops.io import dump, get_untrusted_types

    dump(model, folder / "model.skops")
    trusted = get_untrusted_types(file=folder / "model.skops")
    spec = card(folder, {"format": "skops", "skops_trusted": trusted}, signature)
    return keeping(load(fetch(spec.artifact_uri, spec.sha256), spec), signature)


LABEL = (TensorSpec("label", "BYTES", (-1,)),)


def test_an_estimator_gets_texts_not_bytes(tmp_path: Path) -> None:
    """The encoder takes an unknown category for none of them, silently, so b"red" was answered like a stranger."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), DecisionTreeClassifier(random_state=0))
    model.fit(np.array([["red"], ["blue"]], dtype=np.object_), ["r", "b"])
    signature = Signature((TensorSpec("x", "BYTES", (-1, 1)),), LABEL)
    predict = estimator(tmp_path, model, signature)
    attempt(predict, signature)
    assert to_json(predict(texts(["red"], ["blue"]))["label"]) == ["r", "b"]


def test_a_model_that_knows_only_its_own_categories_is_tried_with_the_signatures_example(tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    model = make_pipeline(OneHotEncoder(), DecisionTreeClassifier(random_state=0))
    model.fit(np.array([["red", "s"], ["blue", "l"]], dtype=np.object_), ["r", "b"])
    without = Signature((TensorSpec("x", "BYTES", (-1, 2)),), LABEL)
    with pytest.raises(ValueError, match="unknown categories"):
        attempt(estimator(tmp_path, model, without), without)
    signature = Signature((TensorSpec("x", "BYTES", (-1, 2), ("red", "s")),), LABEL)
    predict = estimator(tmp_path, model, signature)
    attempt(predict, signature)
    assert to_json(predict(texts(["red", "s"], ["blue", "l"]))["label"]) == ["r", "b"]


def test_columns_of_texts_and_numbers_are_put_side_by_side(tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0]), remainder="passthrough")
    model = make_pipeline(encoder, DecisionTreeClassifier(random_state=0))
    rows = np.array([["red", 1.0], ["blue", 1.0], ["blue", 5.0]], dtype=np.object_)
    model.fit(rows, ["r", "b", "far"])
    signature = Signature((TensorSpec("x", "BYTES", (-1,)), TensorSpec("size", "FP64", (-1,))), LABEL)
    predict = estimator(tmp_path, model, signature)
    found = predict({**texts("red", "blue", "blue"), "size": np.array([1.0, 1.0, 5.0])})
    assert to_json(found["label"]) == ["r", "b", "far"]


def test_a_list_of_texts_stays_a_list(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    model = make_pipeline(TfidfVectorizer(), DecisionTreeClassifier(random_state=0))
    model.fit(["good film", "bad film"], ["up", "down"])
    signature = Signature((TensorSpec("x", "BYTES", (-1,)),), LABEL)
    predict = estimator(tmp_path, model, signature)
    attempt(predict, signature)
    assert to_json(predict(texts("a good one", "so bad"))["label"]) == ["up", "down"]


def test_one_column_of_numbers_is_a_table(tmp_path: Path) -> None:
    from sklearn.tree import DecisionTreeClassifier

    signature = Signature((TensorSpec("size", "FP64", (-1,)),), LABEL)
    predict = estimator(tmp_path, DecisionTreeClassifier().fit([[1.0], [5.0]], ["near", "far"]), signature)
    assert to_json(predict({"size": np.array([1.0, 5.0])})["label"]) == ["near", "far"]


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
