"""Every byte is hostile until checked: nothing but a refusal comes out, and memory stays in proportion."""

import json
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode_request, decode_response, encode_request
from schemas.limits import Limits
from schemas.messages import ContentType, Request, Tensor
from schemas.msgpack_body import SMALL
from schemas.reasons import Reason, RefusedError

LIMITS = Limits()
MSGPACK, JSON = ContentType
MIB = 1024 * 1024

REQUEST = Request(
    inputs=(
        Tensor("image", np.arange(6, dtype=np.float32).reshape(2, 3)),
        Tensor("words", np.array([["a"], ["bc"]], object)),
        Tensor("flags", np.array([[True], [False]])),
    ),
    id="job",
    outputs=("scores",),
    parameters={"a": [1, {"b": None}]},
)
VALID = {content_type: encode_request(REQUEST, content_type) for content_type in ContentType}


def read(body: bytes, content_type: ContentType) -> Reason | None:
    """The reason of the refusal, if it is one; any other exception fails the test."""
    reason = None
    for decode in (decode_request, decode_response):
        try:
            decode(body, content_type, LIMITS)
        except RefusedError as refused:
            reason = refused.reason
            assert reason in {Reason.BAD_BODY, Reason.TOO_LARGE}
            assert refused.message.isprintable()
    return reason


def peak(body: bytes, content_type: ContentType) -> int:
    """The most memory, in bytes, that reading the body took beside the body itself."""
    tracemalloc.start()
    try:
        read(body, content_type)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.sampled_from(ContentType))
def test_any_bytes(body: bytes, content_type: ContentType) -> None:
    read(body, content_type)


@given(st.data(), st.sampled_from(ContentType))
def test_a_valid_body_with_bytes_changed(data: st.DataObject, content_type: ContentType) -> None:
    body = bytearray(VALID[content_type])
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(body) - 1))
        body[index : index + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not body:
            break
    read(bytes(body), content_type)
    # The same through the other reader: a key that nobody asks for makes the body a large one.
    if content_type is MSGPACK and body and 0x80 <= body[0] < 0x8F:
        body[0] += 1
        read(bytes(body) + msgpack.packb("more") + msgpack.packb(bytes(SMALL)), content_type)


@pytest.mark.parametrize("content_type", list(ContentType))
def test_a_valid_body_cut_short(content_type: ContentType) -> None:
    for end in range(len(VALID[content_type])):
        assert read(VALID[content_type][:end], content_type) is Reason.BAD_BODY


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "inputs", "outputs", "parameters", "name", "datatype", "shape", "data", "model_name"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(documents)
def test_any_document_in_msgpack(document: Any) -> None:
    read(msgpack.packb(document), MSGPACK)
    if isinstance(document, dict):
        read(msgpack.packb({**document, "more": bytes(SMALL)}), MSGPACK)


@given(documents)
def test_any_document_in_json(document: Any) -> None:
    read(json.dumps(document, default=list).encode(), JSON)


def request_with(data: bytes) -> bytes:
    """A msgpack request of one tensor whose `data` is these bytes of msgpack."""
    head: bytes = msgpack.packb({"name": "x", "datatype": "FP32", "shape": [1]})
    tensor = bytes([head[0] + 1]) + head[1:] + bytes(msgpack.packb("data")) + data
    return b"\x81" + bytes(msgpack.packb("inputs")) + b"\x91" + tensor


BOMBS = {
    "nested lists of 2**32 - 1": b"\xdd\xff\xff\xff\xff" * 5000,
    "nested lists of 65535": b"\xdc\xff\xff" * 5000,
    "nested lists as long as the body": b"\xdc\x3a\x98" * 5000,
    "nested lists of 1023": b"\xdc\x03\xff" * 5000,
    "nested maps of 2**32 - 1": b"\xdf\xff\xff\xff\xff" * 5000,
    "nested lists of 1": b"\x91" * 100_000,
    "a bin of 4 GiB": b"\xc6\xff\xff\xff\xff",
    "text of 4 GiB": b"\xdb\xff\xff\xff\xff",
    "an extension of 4 GiB": b"\xc9\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_length_that_is_only_declared_allocates_nothing_like_it(name: str) -> None:
    bomb = BOMBS[name]
    parameters = b"\x81" + msgpack.packb("parameters") + bomb
    unknown = b"\x82" + msgpack.packb("more") + bytes(SMALL).join([b"\xc6\x00\x01\x00\x00", b""]) + b"\xa1a" + bomb
    for body in (bomb, request_with(bomb), parameters, unknown):
        assert read(body, MSGPACK) is Reason.BAD_BODY
        assert peak(body, MSGPACK) < 10 * MIB


CROWDS = {
    "empty lists": b"\x90",
    "empty maps": b"\x80",
    "lists of one": b"\x91\xc0",
    "maps of one": b"\x81\xc0\xc0",
    "empty extensions": b"\xc7\x00\x01",
    "nulls": b"\xc0",
    "numbers": b"\xcd\x10\x00",
    "texts": b"\xa2ab",
}


@pytest.mark.parametrize("place", ["data", "parameters", "inputs", "keys"])
@pytest.mark.parametrize("name", sorted(CROWDS))
def test_a_crowd_of_small_things_costs_in_proportion(name: str, place: str) -> None:
    count = MIB // len(CROWDS[name])
    crowd = b"\xdd" + count.to_bytes(4, "big") + CROWDS[name] * count
    body = {
        "data": request_with(crowd),
        "parameters": b"\x81" + msgpack.packb("parameters") + b"\x81" + msgpack.packb("a") + crowd,
        "inputs": b"\x81" + msgpack.packb("inputs") + crowd,
        "keys": b"\xdf" + (count // 2).to_bytes(4, "big") + CROWDS[name] * (count // 2 * 2),
    }[place]
    read(body, MSGPACK)
    # An object takes some 64 bytes and a place in a list 8: unhindered, empty maps take 72 times their size.
    assert peak(body, MSGPACK) < 35 * MIB


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"inputs":[', b'{"parameters":{"a":['])
def test_json_nested_too_deep(opening: bytes) -> None:
    assert read(opening * 100_000, JSON) is Reason.BAD_BODY


def test_an_integer_of_very_many_digits() -> None:
    for key in ("shape", "data", "id"):
        tensor = {"name": "x", "datatype": "INT8", "shape": "[1]", "data": "[1]", "id": "1"} | {key: f"[{'9' * 5000}]"}
        body = '{{"inputs":[{{"name":"x","datatype":"INT8","shape":{shape},"data":{data}}}],"id":{id}}}'.format(
            **tensor
        )
        assert read(body.encode(), JSON) is Reason.BAD_BODY


def test_a_map_of_very_many_keys_is_not_read_to_its_end() -> None:
    body = b"\xdf" + (2**20).to_bytes(4, "big") + b"\x00\xc0" * 2**20
    assert read(body, MSGPACK) is Reason.BAD_BODY


def timestamps_of_one_hash(count: int) -> bytes:
    """Keys that a dict takes quadratic time for: Python's hash of two numbers (xxHash) can be computed backwards."""
    low, mask, first, second, start = 0, 2**64 - 1, 11400714785074694791, 14029467366897019727, 2870177450012600261
    wanted = (12345 - (2 ^ start ^ 3527539)) & mask
    found: list[bytes] = []

    def back(accumulator: int) -> int:
        rotated = accumulator * pow(first, -1, 2**64) & mask
        return (rotated >> 31 | rotated << 33) & mask

    while len(found) < count:
        lane = (back((back(wanted) - low * second) & mask) - start) * pow(second, -1, 2**64) & mask
        seconds = lane - 2**64 if lane >> 63 else lane
        if abs(seconds) < 2**61 - 1:
            found.append(b"\xc7\x0c\xff" + low.to_bytes(4, "big") + seconds.to_bytes(8, "big", signed=True))
        low += 1
    return b"\xdf" + count.to_bytes(4, "big") + b"".join([key + b"\xc0" for key in found])


@pytest.mark.parametrize("count", [2, 40, 1_000, 60_000])
def test_a_map_of_keys_of_one_hash_is_refused_before_it_is_built(count: int) -> None:
    keys = timestamps_of_one_hash(count)
    one, other = list(msgpack.unpackb(timestamps_of_one_hash(2), strict_map_key=False))
    assert hash(one) == hash(other)
    body = request_with(msgpack.packb(b"\0\0\0\0"))
    for parameters in (keys, b"\x81" + msgpack.packb("a") + keys):
        assert read(b"\x82" + body[1:] + msgpack.packb("parameters") + parameters, MSGPACK) is Reason.BAD_BODY
