"""Protocols as functions: what is odd is a Fault with a code of the table, never another exception."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from heliostat_serving.spec import DTYPES, Signature, TensorSpec
from heliostat_serving.wire import coding, mlflow, native, oip, tensors
from heliostat_serving.wire.faults import CODES, Fault
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.builders import PAIR, target

X = PAIR.inputs[0]
WORDS = Signature((TensorSpec("t", "BYTES", (-1,)),), (TensorSpec("y", "INT64", (-1,)),))
TWO = Signature((TensorSpec("a", "INT64", (-1,)), TensorSpec("b", "FP64", (-1, 1))), (TensorSpec("y", "FP32", (-1,)),))

CASES: list[tuple[str, str, object, str | list[Any]]] = [
    ("integers are fine for a float", "FP32", [[1, 2]], [[1.0, 2.0]]),
    ("null is NaN", "FP64", [None, 1], [float("nan"), 1.0]),
    ("a string is no number", "FP32", [["1", 2]], "wrong_dtype"),
    ("a truth value is no number", "FP32", [True], "wrong_dtype"),
    ("a truth value is no integer", "INT64", [True, 1], "wrong_dtype"),
    ("a number is no truth value", "BOOL", [1, 0], "wrong_dtype"),
    ("truth values", "BOOL", [True, False], [True, False]),
    ("a fraction is no integer", "INT32", [1.0], "wrong_dtype"),
    ("null is no integer", "INT32", [None], "wrong_dtype"),
    ("too large for the type", "UINT8", [256], "wrong_dtype"),
    ("negative without a sign", "UINT32", [-1], "wrong_dtype"),
    ("beyond 64 bits", "INT64", [2**64], "wrong_dtype"),
    ("beyond every float", "FP64", [10**400], "wrong_dtype"),
    ("ragged", "FP32", [[1, 2], [3]], "bad_tensor"),
    ("numbers beside lists", "FP32", [1, [2]], "bad_tensor"),
    ("an object", "FP32", {"a": 1}, "wrong_dtype"),
    ("one long string among many short ones", "FP32", ["a" * 1_000_000, *["b"] * 1000], "wrong_dtype"),
    ("words", "BYTES", ["ä", ""], [b"\xc3\xa4", b""]),
    ("half a surrogate", "BYTES", ["\ud800"], [b"\xed\xa0\x80"]),
    ("a number is no word", "BYTES", ["a", 1], "wrong_dtype"),
    ("ragged words", "BYTES", [["a"], ["b", "c"]], "bad_tensor"),
]


@pytest.mark.parametrize(("dtype", "data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_json_becomes_a_tensor_or_a_fault(dtype: str, data: object, expected: str | list[Any]) -> None:
    spec = TensorSpec("x", dtype, (-1,))
    if isinstance(expected, str):
        with pytest.raises(Fault) as caught:
            tensors.from_json(data, spec)
        assert caught.value.code == expected
    else:
        found = tensors.from_json(data, spec)
        assert found.dtype == tensors.NUMPY[dtype]
        np.testing.assert_equal(found.tolist(), expected)


def test_a_list_too_deep_is_a_fault() -> None:
    data: Any = 1
    for _ in range(100):
        data = [data]
    with pytest.raises(Fault) as caught:
        tensors.from_json(data, X)
    assert caught.value.code == "bad_tensor"


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_a_tensor_survives_its_bytes(dtype: str) -> None:
    values: list[Any] = [b"", b"abc", b"\x00" * 300] if dtype == "BYTES" else [0, 1, 1]
    array = np.array(values, dtype=tensors.NUMPY[dtype])
    raw = tensors.to_bytes(array, dtype)
    back = tensors.from_bytes(memoryview(raw), (3,), TensorSpec("x", dtype, (-1,)))
    assert back.dtype == tensors.NUMPY[dtype]
    assert back.tolist() == array.tolist()


SHAPES: list[tuple[str, dict[str, Any], str]] = [
    ("too few columns", {"x": np.zeros((1, 3), np.float32)}, "wrong_shape"),
    ("no rows", {"x": np.zeros((0, 2), np.float32)}, "wrong_shape"),
    ("a flat list", {"x": np.zeros(2, np.float32)}, "wrong_shape"),
    ("NaN", {"x": np.full((1, 2), np.nan, np.float32)}, "not_finite"),
    ("infinity", {"x": np.full((1, 2), np.inf, np.float32)}, "not_finite"),
    ("too many rows", {"x": np.zeros((9, 2), np.float32)}, "too_many_rows"),
    ("nothing", {}, "missing_input"),
    ("too much", {"x": np.zeros((1, 2), np.float32), "z": np.zeros(1)}, "unknown_input"),
]


@pytest.mark.parametrize(("given_", "code"), [case[1:] for case in SHAPES], ids=[case[0] for case in SHAPES])
def test_the_signature_is_enforced(given_: dict[str, Any], code: str) -> None:
    with pytest.raises(Fault) as caught:
        tensors.checked(given_, PAIR, 8)
    assert caught.value.code == code


def test_inputs_must_agree_on_their_rows() -> None:
    with pytest.raises(Fault, match="rows"):
        tensors.checked({"a": np.zeros(2, np.int64), "b": np.zeros((3, 1))}, TWO, 8)


def test_nan_may_be_allowed() -> None:
    loose = Signature(PAIR.inputs, PAIR.outputs, allow_nan=True)
    assert tensors.checked({"x": np.full((3, 2), np.nan, np.float32)}, loose, 8) == 3


def test_what_json_lacks_becomes_null() -> None:
    assert tensors.to_json(np.array([np.nan, np.inf, 1.0])) == [None, None, 1.0]


def binary(size: int, raw: bytes, shape: list[int] | None = None, **more: Any) -> tuple[bytes, bytes]:
    entry = {
        "name": "x",
        "datatype": "FP32",
        "shape": shape or [1, 2],
        "parameters": {"binary_data_size": size},
        **more,
    }
    head = json.dumps({"id": "7", "inputs": [entry]}).encode()
    return head + raw, str(len(head)).encode()


def listed(dtype: str, shape: list[int]) -> tuple[bytes, None]:
    entry = {"name": "x", "datatype": dtype, "shape": shape, "data": []}
    return json.dumps({"inputs": [entry]}).encode(), None


def test_a_binary_request() -> None:
    raw = np.array([[1, 2]], np.float32).tobytes()
    body, header = binary(8, raw)
    found, wanted = oip.parse(body, header, PAIR)
    assert found["x"].tolist() == [[1, 2]]
    assert wanted == oip.Wanted("7", (("y", False),))


ODD: list[tuple[str, tuple[bytes, bytes | None], str]] = [
    ("truncated", binary(8, bytes(7)), "bad_binary"),
    ("oversized", binary(8, bytes(9)), "bad_binary"),
    ("size and shape disagree", binary(4, bytes(4)), "bad_binary"),
    ("negative size", binary(-8, bytes(8)), "bad_binary"),
    ("astronomic shape", binary(8, bytes(8), [2**39, 2**39]), "bad_binary"),
    ("negative shape", binary(8, bytes(8), [-1, 2]), "wrong_shape"),
    ("nothing, astronomically often", binary(0, b"", [0, 2**39, 2**39]), "wrong_shape"),
    ("nothing, astronomically often, as JSON", listed("FP32", [0, 2**39, 2**39]), "wrong_shape"),
    ("wrong datatype", binary(8, bytes(8), datatype="FP64"), "wrong_dtype"),
    ("data as well", binary(8, bytes(8), data=[1, 2]), "bad_binary"),
    ("header too large", (b"{}", b"3"), "bad_header"),
    ("header negative", (b"{}", b"-1"), "bad_header"),
    ("header absurd", (b"{}", b"9" * 40), "bad_header"),
    ("shared memory", binary(8, bytes(8), parameters={"shared_memory_region": "r"}), "unsupported"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "code"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_an_odd_request_is_a_fault(parts: tuple[bytes, bytes | None], code: str) -> None:
    with pytest.raises(Fault) as caught:
        oip.parse(*parts, PAIR)
    assert caught.value.code == code


NO_TEXTS = [binary(0, b"", [0, 2**39, 2**39], datatype="BYTES"), listed("BYTES", [0, 2**39, 2**39])]


@pytest.mark.parametrize("parts", NO_TEXTS, ids=["binary", "JSON"])
def test_no_texts_astronomically_often_are_a_fault(parts: tuple[bytes, bytes | None]) -> None:
    texts = Signature((TensorSpec("x", "BYTES", (-1, -1, -1)),), PAIR.outputs)
    with pytest.raises(Fault) as caught:
        oip.parse(*parts, texts)
    assert caught.value.code == "wrong_shape"


def only_faults(work: Callable[[], object]) -> None:
    try:
        work()
    except Fault as fault:
        assert fault.code in CODES
        assert 400 <= fault.status < 500
        assert fault.sentence().encode("utf-8", "backslashreplace")


QUICK = settings(deadline=None, max_examples=50)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["x", "t", "inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size", "id", "columns",
         "dataframe_split", "dataframe_records", "instances", "FP32"]), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@QUICK
@given(st.integers(-3, 40), st.lists(st.integers(-1, 5) | st.just(2**39), max_size=4), st.binary(max_size=40))
def test_any_binary_tensor_is_a_tensor_or_a_fault(size: int, shape: list[int], raw: bytes) -> None:
    body, header = binary(size, raw, shape)
    only_faults(lambda: tensors.checked(oip.parse(body, header, PAIR)[0], PAIR, 8))


@QUICK
@given(st.binary(max_size=60), st.integers(0, 5))
def test_any_bytes_tensor_is_a_tensor_or_a_fault(raw: bytes, count: int) -> None:
    only_faults(lambda: tensors.from_bytes(memoryview(raw), (count,), WORDS.inputs[0]))


@QUICK
@given(st.binary(max_size=60), st.none() | st.binary(max_size=4))
def test_any_bytes_are_a_request_or_a_fault(raw: bytes, header: bytes | None) -> None:
    only_faults(lambda: oip.parse(raw, header, PAIR))
    only_faults(lambda: native.parse(raw, PAIR))
    only_faults(lambda: mlflow.parse(raw, PAIR))


@QUICK
@given(JSONS)
def test_any_json_is_a_request_or_a_fault(value: object) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": value}
    bodies = [value, {"inputs": value}, {"inputs": {"x": value}}, {"inputs": [value]}, {"inputs": [entry]},
              {"instances": value}, {"dataframe_split": value}, {"dataframe_split": {"data": value}},
              {"dataframe_records": value}, {"inputs": [entry], "outputs": value}]  # fmt: skip
    for body in bodies:
        raw = json.dumps(body).encode()
        for parse in (native.parse, mlflow.parse, lambda raw, signature: oip.parse(raw, None, signature)[0]):
            only_faults(lambda parse=parse, raw=raw: tensors.checked(parse(raw, PAIR), PAIR, 8))  # type: ignore[misc]


@QUICK
@given(st.binary(max_size=50), st.sampled_from(["gzip", "deflate", "zstd", "", "identity"]))
def test_any_compressed_body_is_unpacked_or_a_fault(raw: bytes, encoding: str) -> None:
    only_faults(lambda: coding.unpack(raw, encoding, 100))


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [(gzip.compress(b"hello"), "gzip"), (zlib.compress(b"hello"), "deflate"), (zlib.compress(b"hello")[2:-4], "deflate"),
     (gzip.compress(b"hel") + gzip.compress(b"lo"), "gzip"), (b"hello", "identity")],
    ids=["gzip", "deflate with its header", "raw deflate", "two gzip members", "none"],
)  # fmt: skip
def test_known_encodings(packed: bytes, encoding: str) -> None:
    assert coding.unpack(packed, encoding, 100) == b"hello"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_never_unpacked(encoding: str) -> None:
    packed = coding.pack(bytes(50_000_000), encoding)
    with pytest.raises(Fault) as caught:
        coding.unpack(packed, encoding, 1000)
    assert caught.value.code == "body_too_large"


def test_a_body_of_many_members_costs_no_more_than_its_length() -> None:
    """Copying the rest for each of 50,000 empty members would take seconds, and minutes for the largest body."""
    few = gzip.compress(b"a") * 500
    assert coding.unpack(few, "gzip", 1000) == b"a" * 500
    with pytest.raises(Fault) as caught:
        coding.unpack(gzip.compress(b"") * 50_000, "gzip", 1000)
    assert caught.value.code == "bad_encoding" and "parts" in str(caught.value)


@QUICK
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 40), st.integers(0, 60))
def test_members_are_put_together_whatever_the_pieces(parts: list[bytes], piece: int, cut: int) -> None:
    packed = b"".join(gzip.compress(part) for part in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coding, "PIECE_BYTES", piece)
        assert coding.unpack(packed, "gzip", 5000) == b"".join(parts)
        if cut:
            only_faults(lambda: coding.unpack(packed[:-cut], "gzip", 5000))


def test_an_answer_with_binary_outputs() -> None:
    outputs = {"y": np.array([[1, 2]], np.float32)}
    raw, size = oip.answer(outputs, oip.Wanted("7", (("y", True),)), target(), PAIR)
    assert size is not None
    head = json.loads(raw[:size])
    assert (head["id"], head["model_version"]) == ("7", "11")
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(raw[size:], np.float32).tolist() == [1, 2]


MLFLOW: list[tuple[str, Signature, dict[str, Any], dict[str, Any]]] = [
    ("split", PAIR, {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, {"x": [[1, 2]]}),
    ("split without columns", PAIR, {"dataframe_split": {"data": [[1, 2]]}}, {"x": [[1, 2]]}),
    ("records by name", TWO, {"dataframe_records": [{"b": 2.5, "a": 1}]}, {"a": [1], "b": [[2.5]]}),
    ("a column of lists", PAIR, {"dataframe_split": {"columns": ["x"], "data": [[[1, 2]]]}}, {"x": [[1, 2]]}),
    ("instances by name", TWO, {"instances": [{"a": 1, "b": [2.5]}]}, {"a": [1], "b": [[2.5]]}),
    ("inputs without a name", PAIR, {"inputs": [[1, 2]], "params": None}, {"x": [[1, 2]]}),
]


CSV: list[tuple[str, Signature, bytes, dict[str, Any] | str]] = [
    ("columns in their order", PAIR, b"a,b\n1,2.5\n3,4\n", {"x": [[1, 2.5], [3, 4]]}),
    ("by name, with a byte order mark", TWO, b"\xef\xbb\xbfb,a\r\n2.5,1\r\n", {"a": [1], "b": [[2.5]]}),
    ("text", WORDS, b't\n"a,b"\nc\n', {"t": [b"a,b", b"c"]}),
    ("a word for a number", PAIR, b"a,b\n1,x\n", "wrong_dtype"),
    ("a fraction for an integer", TWO, b"a,b\n1.5,2\n", "wrong_dtype"),
    ("an empty cell", PAIR, b"a,b\n1,\n", "wrong_dtype"),
    ("no rows", PAIR, b"a,b\n", "bad_tensor"),
    ("nothing", PAIR, b"", "bad_tensor"),
    ("ragged", PAIR, b"a,b\n1,2\n3\n", "bad_tensor"),
    ("no text", PAIR, b"\xff\xfe\x00", "bad_tensor"),
    ("an open quote", PAIR, b'a,b\n"1,2\n', "bad_tensor"),
    ("unknown columns of several inputs", TWO, b"c,d\n1,2\n", "unknown_input"),
]


@pytest.mark.parametrize(("signature", "body", "expected"), [case[1:] for case in CSV], ids=[case[0] for case in CSV])
def test_mlflow_csv(signature: Signature, body: bytes, expected: dict[str, Any] | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(Fault) as caught:
            mlflow.parse_csv(body, signature)
        assert caught.value.code == expected
        return
    found = mlflow.parse_csv(body, signature)
    assert {name: array.tolist() for name, array in found.items()} == expected
    tensors.checked(found, signature, 8)


@QUICK
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='ab12.,"\n\r-e', max_size=60).map(str.encode)))
def test_any_csv_is_a_request_or_a_fault(raw: bytes) -> None:
    for signature in (PAIR, TWO, WORDS):
        only_faults(lambda signature=signature: tensors.checked(mlflow.parse_csv(raw, signature), signature, 8))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("signature", "body", "expected"), [case[1:] for case in MLFLOW], ids=[case[0] for case in MLFLOW]
)
def test_mlflow_forms(signature: Signature, body: dict[str, Any], expected: dict[str, Any]) -> None:
    found = mlflow.parse(json.dumps(body).encode(), signature)
    assert {name: array.tolist() for name, array in found.items()} == expected
    tensors.checked(found, signature, 8)
