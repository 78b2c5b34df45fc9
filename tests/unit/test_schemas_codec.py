"""Bodies to and from messages: what the contract allows, in both encodings."""

import json
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from schemas.codec import decode_request, decode_response, encode_request, encode_response
from schemas.limits import Limits
from schemas.messages import ContentType, Request, Response, Tensor
from schemas.msgpack_body import SMALL
from schemas.reasons import Reason, RefusedError
from schemas.tensor import DTYPES

LIMITS = Limits()
MSGPACK, JSON = ContentType
BOTH = pytest.mark.parametrize("content_type", [MSGPACK, JSON])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def dump(document: Any, content_type: ContentType) -> bytes:
    """A body as a stranger writes it."""
    return json.dumps(document).encode() if content_type is JSON else bytes(msgpack.packb(document))


def tensor_map(content_type: ContentType, **changes: Any) -> dict[str, Any]:
    data = [1.0, 2.0] if content_type is JSON else np.array([1, 2], "<f4").tobytes()
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": data, **changes}


def decode(document: Any, content_type: ContentType, limits: Limits = LIMITS) -> Request:
    return decode_request(dump(document, content_type), content_type, limits)


def refusal(read: Callable[..., object], *arguments: object) -> Reason:
    with pytest.raises(RefusedError) as refused:
        read(*arguments)
    assert refused.value.message.isprintable()
    return refused.value.reason


def arrays(datatype: str) -> st.SearchStrategy[NDArray[Any]]:
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        # Text, so that JSON can carry it too.
        return hnp.arrays(object, SHAPES, elements=st.text(max_size=8).map(str.encode), fill=st.nothing())
    if datatype == "BF16":  # every pattern of bits is one; hypothesis does not know the type
        return hnp.arrays(np.uint16, SHAPES).map(lambda bits: bits.view(dtype))
    return hnp.arrays(dtype, SHAPES)


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind in "fV":
        return np.array_equal(one.astype(np.float64), other.astype(np.float64), equal_nan=True)
    return bool(one.tolist() == other.tolist())


@BOTH
@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_tensors_survive_the_round_trip(datatype: str, content_type: ContentType) -> None:
    @given(array=arrays(datatype), name=st.text(st.characters(codec="utf-8"), max_size=8))
    def holds(array: NDArray[Any], name: str) -> None:
        request = Request((Tensor(name, array), Tensor("other", array)))
        back = decode_request(encode_request(request, content_type), content_type, LIMITS)
        response = Response("m", "3", (Tensor(name, array),))
        served = decode_response(encode_response(response, content_type), content_type, LIMITS)
        for tensor in (back.inputs[0], back.inputs[1], served.outputs[0]):
            assert same(tensor.array, array)
        assert (back.inputs[0].name, back.inputs[1].name, served.outputs[0].name) == (name, "other", name)

    holds()


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BYTES"}))
def test_in_msgpack_every_bit_survives(datatype: str) -> None:
    @given(array=arrays(datatype))
    def holds(array: NDArray[Any]) -> None:
        body = encode_request(Request((Tensor("x", array),)), MSGPACK)
        assert decode_request(body, MSGPACK, LIMITS).inputs[0].array.tobytes() == array.tobytes()

    holds()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@BOTH
@given(
    identifier=st.none() | st.text(max_size=40),
    outputs=st.none() | st.lists(st.text(max_size=3), max_size=3),
    parameters=st.none() | st.dictionaries(st.text(max_size=3), json_values, max_size=3),
)
def test_what_surrounds_the_tensors_survives(
    content_type: ContentType, identifier: str | None, outputs: list[str] | None, parameters: dict[str, Any] | None
) -> None:
    tensor = Tensor("x", np.zeros((1, 1), np.int8))
    request = Request((tensor,), identifier, None if outputs is None else tuple(outputs), parameters)
    back = decode_request(encode_request(request, content_type), content_type, LIMITS)
    assert (back.id, back.outputs, back.parameters) == (identifier, request.outputs, parameters)
    response = Response("m", "3", (tensor,), identifier, back.parameters)
    served = decode_response(encode_response(response, content_type), content_type, LIMITS)
    assert (served.id, served.parameters, served.model_name, served.model_version) == (identifier, parameters, "m", "3")


@BOTH
def test_a_prediction_names_only_what_its_job_had(content_type: ContentType) -> None:
    load = json.loads if content_type is JSON else msgpack.unpackb
    bare = load(encode_response(Response("m", "3", (Tensor("y", np.zeros((1, 1), "f4")),)), content_type))
    assert bare.keys() == {"model_name", "model_version", "outputs"}
    assert bare["outputs"][0].keys() == {"name", "datatype", "shape", "data"}
    full = load(encode_response(Response("m", "3", (), "a", {}), content_type))
    assert full == {"id": "a", "model_name": "m", "model_version": "3", "parameters": {}, "outputs": []}


def test_a_prediction_in_msgpack_as_a_stranger_reads_it() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    text = np.array([["a"], [b"\xff"]], object)
    response = Response("m", "3", (Tensor("y", rows[1:2]), Tensor("t", text), Tensor("z", rows[:0])))
    assert msgpack.unpackb(encode_response(response, MSGPACK))["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": rows[1:2].tobytes()},
        {"name": "t", "datatype": "BYTES", "shape": [2, 1], "data": ["a", b"\xff"]},
        {"name": "z", "datatype": "FP32", "shape": [0, 2], "data": b""},
    ]


@pytest.mark.parametrize("size", [0, 255, 256, 65_535, 65_536])
def test_raw_data_of_every_length_of_length(size: int) -> None:
    response = Response("m", "3", (Tensor("y", np.ones((1, size), np.uint8)),))
    body = encode_response(response, MSGPACK)
    assert body == msgpack.packb(msgpack.unpackb(body))
    assert decode_response(body, MSGPACK, LIMITS).outputs[0].array.sum() == size


def test_arrays_of_any_layout_and_order_are_written() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    for content_type in ContentType:
        body = encode_request(Request((Tensor("x", array),)), content_type)
        assert decode_request(body, content_type, LIMITS).inputs[0].array.tolist() == array.tolist()


def test_json_that_cannot_carry_bytes_says_so() -> None:
    text = Tensor("words", np.array([b"\xff"], object))
    with pytest.raises(RefusedError, match="output 'words' is not UTF-8 text, which JSON cannot carry") as refused:
        encode_response(Response("m", "3", (text,)), JSON)
    assert refused.value.reason is Reason.INFERENCE_FAILED
    with pytest.raises(RefusedError, match="publish the job as application/msgpack"):
        encode_request(Request((text,)), JSON)


def test_json_carries_nan_and_infinities() -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP16", "shape": [3], "data": [NaN, Infinity, -Infinity]}]}'
    array = decode_request(body, JSON, LIMITS).inputs[0].array
    assert np.isnan(array[0])
    assert array[1:].tolist() == [float("inf"), float("-inf")]
    assert b"[NaN,Infinity,-Infinity]" in encode_response(Response("m", "3", (Tensor("y", array),)), JSON)


@pytest.mark.parametrize("literal", ["1e999", "-1e999", "65520", "1e400"])
def test_a_finite_number_never_becomes_infinity(literal: str) -> None:
    for datatype in ("FP16", "FP64"):
        body = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[2],"data":[Infinity,{literal}]}}]}}'.encode()
        if datatype == "FP64" and literal == "65520":
            continue
        assert refusal(decode_request, body, JSON, LIMITS) is Reason.BAD_BODY


@pytest.mark.parametrize(
    ("shape", "data", "good"),
    [
        ([2, 2], [1, 2, 3, 4], True),
        ([2, 2], [[1, 2], [3, 4]], True),
        ([4], [1, 2, 3, 4], True),
        ([2, 1, 2], [[[1, 2]], [[3, 4]]], True),
        ([], [1], True),
        ([0, 2], [], True),
        ([2, 0], [[], []], True),
        ([2, 0], [], True),
        ([2, 2], [[1, 2, 3, 4]], False),
        ([2, 2], [[1, 2], [3, 4, 5]], False),
        ([2, 2], [[1], [2, 3, 4]], False),
        ([2, 2], [[1, 2], 3, 4], False),
        ([2, 2], [1, 2, [3, 4]], False),
        ([4], [[1, 2, 3, 4]], False),
        ([2, 1, 2], [[1, 2], [3, 4]], False),
        ([2, 2], [[[1, 2], [3, 4]]], False),
        ([2, 2], [1, 2, 3], False),
        ([2, 2], [1, 2, 3, 4, 5], False),
        ([], 1, False),
        ([1], {"0": 1}, False),
        ([1], "1", False),
        ([1], None, False),
    ],
)
def test_data_in_json_is_flat_or_nested_as_the_shape(shape: list[int], data: Any, good: bool) -> None:
    body = dump({"inputs": [{"name": "x", "datatype": "INT32", "shape": shape, "data": data}]}, JSON)
    if good:
        array = decode_request(body, JSON, LIMITS).inputs[0].array
        assert (array.shape, array.reshape(-1).tolist()) == (tuple(shape), np.array(data).reshape(-1).tolist())
    else:
        assert refusal(decode_request, body, JSON, LIMITS) is Reason.BAD_BODY


def test_data_in_msgpack_may_be_a_flat_list() -> None:
    document = {
        "inputs": [tensor_map(MSGPACK, data=[1, 2.5]), tensor_map(MSGPACK, datatype="BYTES", data=["é", b"\xff"])]
    }
    request = decode(document, MSGPACK)
    assert request.inputs[0].array.tolist() == [[1.0, 2.5]]
    assert request.inputs[1].array.tolist() == [["é".encode(), b"\xff"]]
    for data in ([[1, 2]], [1, True], [1, None], "ab", 12, None):
        assert refusal(decode, {"inputs": [tensor_map(MSGPACK, data=data)]}, MSGPACK) is Reason.BAD_BODY


@BOTH
def test_keys_that_the_contract_does_not_know_are_ignored(content_type: ContentType) -> None:
    tensor = tensor_map(content_type, parameters={"a": 1})
    request = decode({"inputs": [tensor], "model_name": "m", "more": [1]}, content_type)
    assert request.inputs[0].array.tolist() == [[1.0, 2.0]]


@BOTH
def test_null_is_absent(content_type: ContentType) -> None:
    request = decode(
        {"id": None, "outputs": None, "parameters": None, "inputs": [tensor_map(content_type)]}, content_type
    )
    assert (request.id, request.outputs, request.parameters) == (None, None, None)


DEEP: Any = []
for _ in range(40):
    DEEP = [DEEP]

ONE: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
BAD_TENSORS: list[dict[str, Any]] = [
    {"name": None},
    {"name": 1},
    {"datatype": None},
    {"datatype": 1},
    {"datatype": "FP31"},
    {"shape": None},
    {"shape": 1},
    {"shape": {}},
    {"shape": [-1]},
    {"shape": [1.5]},
    {"shape": [1.0]},
    {"shape": [True]},
    {"shape": ["1"]},
    {"shape": [None]},
    {"shape": [2]},
    {"shape": [], "data": []},
    {"shape": [-1, -1]},
    {"data": []},
]
BAD_REQUESTS: list[dict[str, Any]] = [
    {"inputs": None},
    {"inputs": []},
    {"inputs": {}},
    {"inputs": [1]},
    {"inputs": [[]]},
    {"id": 1},
    {"id": ["a"]},
    {"outputs": {}},
    {"outputs": "y"},
    {"outputs": ["y"]},
    {"outputs": [{}]},
    {"outputs": [{"name": 1}]},
    {"parameters": []},
    {"parameters": "a"},
    {"parameters": {"a": DEEP}},
]
BAD_DOCUMENTS: list[Any] = [
    None,
    [],
    "text",
    {},
    *({"inputs": [{**ONE, **change}]} for change in BAD_TENSORS),
    *({"inputs": [ONE], **change} for change in BAD_REQUESTS),
]


@BOTH
@pytest.mark.parametrize("document", BAD_DOCUMENTS, ids=[str(index) for index in range(len(BAD_DOCUMENTS))])
def test_what_is_no_request_is_bad_body(document: Any, content_type: ContentType) -> None:
    assert refusal(decode, document, content_type) is Reason.BAD_BODY


@BOTH
@pytest.mark.parametrize("missing", ["name", "datatype", "shape", "data"])
def test_a_tensor_needs_all_its_parts(missing: str, content_type: ContentType) -> None:
    tensor = tensor_map(content_type)
    del tensor[missing]
    assert refusal(decode, {"inputs": [tensor]}, content_type) is Reason.BAD_BODY


@BOTH
@pytest.mark.parametrize("body", [None, b"", b"\xff", b"\xc1", b"{", b"\x81", b"not a body"])
def test_what_is_no_body_is_bad_body(body: bytes | None, content_type: ContentType) -> None:
    assert refusal(decode_request, body, content_type, LIMITS) is Reason.BAD_BODY


@BOTH
def test_bytes_after_the_end_are_bad_body(content_type: ContentType) -> None:
    for padding in (0, 2 * SMALL):
        body = dump({"inputs": [tensor_map(content_type)], "more": "x" * padding}, content_type)
        assert decode_request(body, content_type, LIMITS).inputs
        assert refusal(decode_request, body + b"\x01", content_type, LIMITS) is Reason.BAD_BODY


def test_json_is_utf_8_only() -> None:
    text = json.dumps({"inputs": [tensor_map(JSON)]})
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        body = text.encode(encoding)
        assert refusal(decode_request, body, JSON, LIMITS) is Reason.BAD_BODY


@pytest.mark.parametrize("key", ["id", "name"])
def test_half_of_a_surrogate_pair_is_no_text(key: str) -> None:
    tensor = tensor_map(JSON)
    document = {"id": "a", "inputs": [tensor]}
    (document if key == "id" else tensor)[key] = "\ud800"
    assert refusal(decode, document, JSON) is Reason.BAD_BODY


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        {"shape": [65_537, 1]},
        {"shape": [65_537, 0]},
        {"shape": [1] * 9},
        {"shape": [1] * 2000},
        {"shape": [1, 2**24 + 1]},
        {"shape": [4097, 4097]},
        {"shape": [1, 2**62]},
        {"shape": [65_537], "datatype": "nonsense"},
        {"shape": [65_537], "data": None},
        {"shape": [65_537], "name": 1},
        {"shape": [65_537, -1]},
    ],
)
def test_a_shape_over_the_limits_is_too_large_whatever_else_is_wrong(
    change: dict[str, Any], content_type: ContentType
) -> None:
    large = tensor_map(content_type, **change)
    broken = tensor_map(content_type, shape=[-1])
    for inputs in ([large], [broken, large], ["x", large]):
        document = {"inputs": inputs, "outputs": 1}
        assert refusal(decode, document, content_type) is Reason.TOO_LARGE


@BOTH
def test_more_than_the_limits_is_too_large(content_type: ContentType) -> None:
    two = {"inputs": [tensor_map(content_type), tensor_map(content_type)]}
    body = dump(two, content_type)
    assert len(decode_request(body, content_type, Limits(body_bytes=len(body), tensors=2)).inputs) == 2
    for limits in (
        Limits(body_bytes=len(body) - 1),
        Limits(tensors=1),
        Limits(rank=1),
        Limits(rows=0),
        Limits(elements=1),
    ):
        assert refusal(decode_request, body, content_type, limits) is Reason.TOO_LARGE
    # Size is judged without looking: these bytes are no body at all.
    assert refusal(decode_request, b"\xc1" * 9, content_type, Limits(body_bytes=8)) is Reason.TOO_LARGE


@BOTH
def test_the_limits_themselves_are_allowed(content_type: ContentType) -> None:
    limits = Limits(tensors=1, rows=2, rank=2, elements=4)
    tensor = tensor_map(content_type, datatype="INT8", shape=[2, 2], data=[1, 2, 3, 4])
    assert decode({"inputs": [tensor]}, content_type, limits).inputs[0].array.size == 4


def test_a_large_body_is_viewed_not_copied() -> None:
    array = np.arange(SMALL, dtype=np.float32).reshape(1, -1)
    body = encode_request(Request((Tensor("x", array),), id="a"), MSGPACK)
    request = decode_request(body, MSGPACK, LIMITS)
    assert request.inputs[0].array.tolist() == array.tolist()
    base: object = request.inputs[0].array.base
    assert base is body


walked = [
    {"id": "a", "parameters": {str(n): n for n in range(100)}},
    {"parameters": {"list": list(range(2000))}},
    {"parameters": {"ext": msgpack.ExtType(5, b"a"), "time": msgpack.Timestamp(1, 2), "bin": b"\xff"}},
    {"parameters": {1: None, None: 2}},
    {"outputs": [{"name": "y"}] * 2000},
    {"more": b"x" * (2 * SMALL), "id": "b"},
    {"inputs": [tensor_map(MSGPACK, datatype="INT64", shape=[1500, 2], data=list(range(3000)))]},
    {"inputs": [tensor_map(MSGPACK, datatype="BYTES", shape=[2], data=[b"a" * SMALL, "b" * SMALL])]},
    {"inputs": [tensor_map(MSGPACK, parameters={"deep": [[[1]]]}, more="x" * SMALL)]},
]


@pytest.mark.parametrize("change", walked, ids=[str(index) for index in range(len(walked))])
def test_large_and_long_bodies_mean_the_same(change: dict[str, Any]) -> None:
    document = {"inputs": [tensor_map(MSGPACK)], **change}
    request = decode(document, MSGPACK)
    assert request.id == document.get("id")
    assert request.parameters == document.get("parameters")
    assert (request.outputs and len(request.outputs)) == (document.get("outputs") and len(document["outputs"]))
    [tensor], [entry] = request.inputs, document["inputs"]
    assert tensor.array.shape == tuple(entry["shape"])
    if isinstance(entry["data"], list):
        wanted = [element.encode() if isinstance(element, str) else element for element in entry["data"]]
        assert tensor.array.reshape(-1).tolist() == wanted
    else:
        assert tensor.array.tobytes() == entry["data"]
    # What is echoed can be written.
    encode_response(Response("m", "1", (), request.id, request.parameters), MSGPACK)


@pytest.mark.parametrize("key", ["model_name", "model_version", "outputs"])
@BOTH
def test_a_response_needs_all_its_parts(key: str, content_type: ContentType) -> None:
    document: dict[str, Any] = {"model_name": "m", "model_version": "3", "outputs": [tensor_map(content_type)]}
    assert decode_response(dump(document, content_type), content_type, LIMITS).outputs
    for broken in ({**document, key: 1}, {k: v for k, v in document.items() if k != key}):
        body = dump(broken, content_type)
        assert refusal(decode_response, body, content_type, LIMITS) is Reason.BAD_BODY
