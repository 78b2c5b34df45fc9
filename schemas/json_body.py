"""JSON bodies: UTF-8, with `NaN`, `Infinity` and `-Infinity`; data as flat or nested lists."""

import json
import math
from itertools import chain
from typing import Any

import numpy as np

from schemas.limits import Limits
from schemas.messages import Request, Response, Tensor
from schemas.reasons import Reason, RefusedError
from schemas.tensor import DTYPES, datatype_of, tensor_from_list

_INFINITIES = {"Infinity": math.inf, "-Infinity": -math.inf}
_CONSTANTS = {"NaN": math.nan, **_INFINITIES}
_DECODER = json.JSONDecoder(parse_constant=_CONSTANTS.__getitem__)
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def parse(body: bytes, tensors: str, limits: Limits) -> Any:  # noqa: ARG001 - an encoding's common signature
    """The document. RefusedError(bad-body): not UTF-8, not JSON, nested too deep."""
    try:
        # As text: json.loads of bytes would guess UTF-16 and UTF-32 too.
        return _DECODER.decode(str(body, "utf-8"))
    except (ValueError, RecursionError, MemoryError):
        raise RefusedError(Reason.BAD_BODY, "the value is not JSON in UTF-8") from None


def tensor(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    """The tensor of a flat list, or of nested lists that match the shape. RefusedError(bad-body)."""
    if type(data) is not list:
        raise RefusedError(Reason.BAD_BODY, "data is missing or not a list")
    flat = _flat(data, shape) if data and type(data[0]) is list else data
    made = tensor_from_list(name, datatype, shape, flat)
    if made.array.dtype.kind in "fV":
        _refuse_overflow(made, flat)
    return made


def dump_request(request: Request) -> bytes:
    """The body of a job. RefusedError(bad-input): BYTES that are not UTF-8."""
    document: dict[str, Any] = {}
    if request.id is not None:
        document["id"] = request.id
    document["inputs"] = [_entry(tensor, "input", "publish", Reason.BAD_INPUT) for tensor in request.inputs]
    if request.outputs is not None:
        document["outputs"] = [{"name": name} for name in request.outputs]
    if request.parameters is not None:
        document["parameters"] = request.parameters
    return _ENCODER.encode(document).encode()


def dump_response(response: Response) -> bytes:
    """The body of a prediction. RefusedError(inference-failed): BYTES that are not UTF-8."""
    document: dict[str, Any] = {}
    if response.id is not None:
        document["id"] = response.id
    document["model_name"] = response.model_name
    document["model_version"] = response.model_version
    if response.parameters is not None:
        document["parameters"] = response.parameters
    document["outputs"] = [_entry(tensor, "output", "publish", Reason.INFERENCE_FAILED) for tensor in response.outputs]
    return _ENCODER.encode(document).encode()


def _flat(data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Nested lists, as deep as `shape` is long and in its sizes, as one flat list."""
    level = [data]
    for size in shape:
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise RefusedError(Reason.BAD_BODY, "nested data does not match the shape")
        level = list(chain.from_iterable(level))
        if not level:  # a dimension of 0: there is nothing below it to match
            break
    return level


def _refuse_overflow(made: Tensor, flat: list[Any]) -> None:
    """A literal such as 1e999 reads as infinity without saying so; the constants are known by identity."""
    for index in np.flatnonzero(np.isinf(made.array.reshape(-1))).tolist():
        if not any(flat[index] is constant for constant in _INFINITIES.values()):
            raise RefusedError(Reason.BAD_BODY, "a number is out of the range of its datatype")


def _entry(tensor: Tensor, what: str, verb: str, reason: Reason) -> dict[str, Any]:
    array = tensor.array
    datatype = datatype_of(array)
    data = array.reshape(-1).tolist()
    if DTYPES[datatype].hasobject:
        try:
            data = [element if isinstance(element, str) else str(element, "utf-8") for element in data]
        except UnicodeDecodeError:
            raise RefusedError(
                reason,
                f"{what} '{tensor.name}' is not UTF-8 text, which JSON cannot carry; "
                f"{verb} the job as application/msgpack",
            ) from None
    return {"name": tensor.name, "datatype": datatype, "shape": list(array.shape), "data": data}
