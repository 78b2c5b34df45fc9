"""Bodies to and from typed messages, in either encoding: limits first, then the document's shape, then its data."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from schemas import json_body, msgpack_body
from schemas.limits import Limits
from schemas.messages import ContentType, Request, Response, Tensor
from schemas.msgpack_body import KEY_TYPES
from schemas.reasons import Reason, RefusedError

MAX_PARAMETER_DEPTH = 32
"""How deep `parameters` may nest: what is echoed must also be writable, and writers recurse."""


class _Body(Protocol):
    """What an encoding has to offer; `json_body` and `msgpack_body` do."""

    def parse(self, body: bytes, tensors: str, limits: Limits) -> Any:
        """The document, `tensors` naming its list of tensors. RefusedError(bad-body, too-large)."""

    def tensor(self, name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
        """The tensor that a document's `data` makes. RefusedError(bad-body)."""

    def dump_request(self, request: Request) -> bytes:
        """The body of a job."""

    def dump_response(self, response: Response) -> bytes:
        """The body of a prediction."""


_BODIES: dict[ContentType, _Body] = {ContentType.MSGPACK: msgpack_body, ContentType.JSON: json_body}


def decode_request(body: bytes | None, content_type: ContentType, limits: Limits) -> Request:
    """A job's value. None (a tombstone) is no request.

    RefusedError: `too-large` wherever a limit is passed, else `bad-body` for whatever is not the shape of a request; no
    other exception. Tensors are read-only; raw data is not copied out of bodies above `msgpack_body.SMALL` bytes.
    """
    document = _parse(body, content_type, "inputs", limits)
    try:
        if not document.get("inputs"):
            raise _bad_body("inputs is missing or empty")
        inputs = _tensors(document, "inputs", content_type, limits)
        return Request(inputs, _optional_text(document, "id"), _output_names(document), _parameters(document))
    except RefusedError as refused:
        raise _size_first(refused, document, "inputs", limits) from None


def decode_response(body: bytes | None, content_type: ContentType, limits: Limits) -> Response:
    """A prediction's value. RefusedError as `decode_request` has it."""
    document = _parse(body, content_type, "outputs", limits)
    try:
        return Response(
            model_name=_text(document.get("model_name"), "model_name"),
            model_version=_text(document.get("model_version"), "model_version"),
            outputs=_tensors(document, "outputs", content_type, limits),
            id=_optional_text(document, "id"),
            parameters=_parameters(document),
        )
    except RefusedError as refused:
        raise _size_first(refused, document, "outputs", limits) from None


def encode_request(request: Request, content_type: ContentType) -> bytes:
    """The body of a job.

    RefusedError(bad-input): BYTES that are not UTF-8, in JSON. ValueError: a dtype that the contract does not have.
    TypeError: parameters that the encoding cannot carry.
    """
    return _BODIES[content_type].dump_request(request)


def encode_response(response: Response, content_type: ContentType) -> bytes:
    """The body of a prediction; made for one call per job, with arrays that are slices of rows of a batch's outputs.

    In msgpack an array's memory is copied once, into the body. RefusedError: `inference-failed` for BYTES that are not
    UTF-8, in JSON; `output-too-large` past the 4 GiB of a msgpack bin.
    """
    return _BODIES[content_type].dump_response(response)


def _parse(body: bytes | None, content_type: ContentType, tensors: str, limits: Limits) -> dict[Any, Any]:
    if body is None:
        raise _bad_body("there is no value")
    if len(body) > limits.body_bytes:
        raise _too_large(f"the value has {len(body)} bytes; the limit is {limits.body_bytes}")
    document = _BODIES[content_type].parse(body, tensors, limits)
    if type(document) is not dict:
        raise _bad_body("the value is not a map")
    return document


def _tensors(document: dict[Any, Any], key: str, content_type: ContentType, limits: Limits) -> tuple[Tensor, ...]:
    entries = document.get(key)
    if type(entries) is not list:
        raise _bad_body(f"{key} is not a list")
    if len(entries) > limits.tensors:
        raise _too_large(f"{key} holds {len(entries)} tensors; the limit is {limits.tensors}")
    body = _BODIES[content_type]
    tensors = []
    for index, entry in enumerate(entries):
        try:
            tensors.append(_tensor(entry, body, limits))
        except RefusedError as refused:
            # By its number: a name is the sender's text, and messages hold none of that.
            raise RefusedError(refused.reason, f"{key}[{index}]: {refused.message}") from None
    return tuple(tensors)


def _tensor(entry: Any, body: _Body, limits: Limits) -> Tensor:
    if type(entry) is not dict:
        raise _bad_body("a tensor is not a map")
    shape = entry.get("shape")
    if type(shape) is not list:
        raise _bad_body("shape is missing or not a list")
    if len(shape) > limits.rank:
        raise _too_large(f"the rank is {len(shape)}; the limit is {limits.rank}")
    elements = 1
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:
            raise _bad_body("a dimension of shape is not an integer of at least 0")
        elements *= dimension or 1  # no rows of something huge is huge all the same: it is what a model is run on
    if elements > limits.elements or (shape and shape[0] > limits.rows):
        raise _too_large(_over_limits(shape, limits) or "")
    datatype = entry.get("datatype")
    if type(datatype) is not str:
        raise _bad_body("datatype is missing or not a string")
    return body.tensor(_text(entry.get("name"), "name"), datatype, tuple(shape), entry.get("data"))


def _size_first(refused: RefusedError, document: dict[Any, Any], key: str, limits: Limits) -> RefusedError:
    """`too-large` where any tensor's shape is, whatever else is wrong: size comes before body."""
    tensors = document.get(key)
    if refused.reason is not Reason.TOO_LARGE and type(tensors) is list:
        for index, entry in enumerate(tensors[: limits.tensors]):
            shape = entry.get("shape") if type(entry) is dict else None
            if type(shape) is list and (problem := _over_limits(shape, limits)):
                return _too_large(f"{key}[{index}]: {problem}")
    return refused


def _over_limits(shape: list[Any], limits: Limits) -> str | None:
    """What is too large about a shape, if anything is. Its dimensions are not checked yet."""
    if len(shape) > limits.rank:
        return f"the rank is {len(shape)}; the limit is {limits.rank}"
    if any(type(dimension) is not int for dimension in shape):
        return None
    if shape and shape[0] > limits.rows:
        return f"there are more than {limits.rows} rows, the limit"
    if min(shape, default=0) >= 0 and math.prod([dimension or 1 for dimension in shape]) > limits.elements:
        return f"there are more than {limits.elements} elements, the limit"
    return None


def _output_names(document: dict[Any, Any]) -> tuple[str, ...] | None:
    outputs = document.get("outputs")
    if outputs is None:
        return None
    if type(outputs) is not list or not all(type(output) is dict for output in outputs):
        raise _bad_body("outputs is not a list of maps")
    return tuple([_text(output.get("name"), "an output's name") for output in outputs])


def _parameters(document: dict[Any, Any]) -> Mapping[Any, Any] | None:
    parameters = document.get("parameters")
    if parameters is None:
        return None
    if type(parameters) is not dict:
        raise _bad_body("parameters is not a map")
    level: list[Any] = [parameters]
    for _ in range(MAX_PARAMETER_DEPTH):
        if not all(KEY_TYPES.issuperset(map(type, outer)) for outer in level if type(outer) is dict):
            raise _bad_body("a key in parameters is neither text, bytes nor a number")
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return parameters
    raise _bad_body(f"parameters nest deeper than {MAX_PARAMETER_DEPTH} levels")


def count_values(parameters: Mapping[Any, Any]) -> int:
    """How many values and keys `parameters` has, at all levels."""
    count = 0
    level: list[Any] = [parameters]
    while level:
        count += sum([2 * len(outer) if type(outer) is dict else len(outer) for outer in level])
        level = [inner for outer in level for inner in _inner(outer)]
    return count


def _inner(outer: Any) -> list[Any]:
    """The maps and lists in a map or list."""
    return [inner for inner in (outer.values() if type(outer) is dict else outer) if type(inner) in (dict, list)]


def _optional_text(document: dict[Any, Any], key: str) -> str | None:
    value = document.get(key)
    return None if value is None else _text(value, key)


def _text(value: Any, what: str) -> str:
    if type(value) is not str:
        raise _bad_body(f"{what} is missing or not a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
            raise _bad_body(f"{what} is not Unicode text") from None
    return value


def _bad_body(message: str) -> RefusedError:
    return RefusedError(Reason.BAD_BODY, message)


def _too_large(message: str) -> RefusedError:
    return RefusedError(Reason.TOO_LARGE, message)
