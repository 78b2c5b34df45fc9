"""The jobs of a soak: what each is, what it says, and what has to become of it, all told by its number and the seed."""

import zlib
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from tests import stores
from tests.swaps import MODEL

MODELS = (stores.DOUBLE, stores.SUM, MODEL)
"""The last is the one whose versions are swapped."""
BAD = {
    "not msgpack": "bad-body",
    "unknown model": "unknown-model",
    "expired": "expired",
    "wrong input": "bad-input",
}
"""Kinds of bad jobs, and the reason of their dead letters."""
BAD_SHARE = 0.05
_OF = 10_000


def kind_of(seed: int, number: int) -> str:
    """One of MODELS, whose prediction it is to get, or of BAD."""
    drawn = zlib.crc32(f"{seed}/{number}".encode())
    kinds: Sequence[str] = tuple(BAD) if drawn % _OF < BAD_SHARE * _OF else MODELS
    return kinds[drawn // _OF % len(kinds)]


def record(seed: int, number: int, now_ms: int) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Value and headers of the job. Its correlation id holds its number and when it was made."""
    kind = kind_of(seed, number)
    headers = [("correlation-id", f"{number}/{now_ms}".encode())]
    if kind == "expired":
        headers.append(("expires-at", b"1"))
    headers.append(("model-key", {"unknown model": "absent"}.get(kind, kind if kind in MODELS else MODELS[0]).encode()))
    if kind == "not msgpack":
        return b"\xc1", headers
    x = _x(number)
    if kind == stores.SUM:
        inputs = [_tensor("a", "FP32", [x, 1], "<f4"), _tensor("b", "INT32", [1, 1], "<i4")]
    elif kind == MODEL:
        inputs = [_tensor("features", "FP32", [x, 0, 0, 0], "<f4")]
    elif kind == "wrong input":
        inputs = [_tensor("x", "FP64", [x], "<f8")]
    else:
        inputs = [_tensor("x", "FP32", [x], "<f4")]
    value: bytes = msgpack.packb({"id": str(number), "inputs": inputs})
    return value, headers


def numbered(correlation_id: bytes) -> tuple[int, int]:
    """The job's number, and when it was made in milliseconds since the epoch."""
    number, made_ms = correlation_id.decode().split("/")
    return int(number), int(made_ms)


def values(document: dict[str, Any]) -> tuple[float, ...]:
    """All numbers of a prediction, its outputs in the order of their names."""
    outputs = sorted(document["outputs"], key=lambda output: str(output["name"]))
    return tuple(float(value) for output in outputs for value in np.frombuffer(output["data"], "<f4"))


def right_values(kind: str, number: int, version: int) -> tuple[float, ...]:
    """What `values` has to be for a job of one of MODELS, answered by this version."""
    x = _x(number)
    if kind == stores.SUM:
        return (x - 1, 0, x + 1, 2)  # difference, total
    if kind == MODEL:
        return (x + version,) * 3
    return (2 * x,)


def _x(number: int) -> int:
    return number % (1 << 20)  # FP32 is exact with what is made of it


def _tensor(name: str, datatype: str, row: list[int], dtype: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [1, len(row)], "data": np.array(row, dtype).tobytes()}
