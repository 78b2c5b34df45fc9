"""A file or standard input -> the requests that are in it, checked as the consumer will check them."""

import io
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.exits import Exit, FatalError

if TYPE_CHECKING:
    from schemas.messages import Request

STANDARD_INPUT = Path("-")
_MAX_BYTES = 1024**3
_TENSOR = "input"  # a model of one input takes its tensor by any name


class Format(StrEnum):
    """What a file may hold: an array, a request or rows, or one of these a line."""

    NPY = "npy"
    JSON = "json"
    JSONL = "jsonl"


def read_requests(source: Path, form: Format | None, *, datatype: str, rows_per_job: int) -> Iterator["Request"]:
    """Give the requests one by one.

    A .npy array and a bare JSON list are rows: one request each, or one for every `rows_per_job` rows where that is not
    0. A JSON object is a whole request of the contract. `form` is told by the file's ending where it is None, and is
    JSONL for standard input. FatalError: 66 no such file, 74 it cannot be read, 65 it holds what cannot be a job, with
    the number of the line.
    """
    if form is None:
        form = _form_of(source)
    content = _read(source)
    if form is Format.NPY:
        yield from _split(_array(content, source), rows_per_job)
        return
    lines = content.splitlines() if form is Format.JSONL else [content]
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{source}, line {number}" if form is Format.JSONL else str(source)
            yield from _document(line, where, datatype, rows_per_job)


def _form_of(source: Path) -> Format:
    if source == STANDARD_INPUT:
        return Format.JSONL
    try:
        return Format(source.suffix.lstrip(".").lower())
    except ValueError:
        raise FatalError(
            Exit.DATA, f"{source}: neither .npy nor .json nor .jsonl; say with --format which of them it is"
        ) from None


def _read(source: Path) -> bytes:
    try:
        if source == STANDARD_INPUT:
            content = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with source.open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise FatalError(Exit.STORE_MISSING, f"{source}: no such file") from None
    except OSError as error:
        raise FatalError(Exit.IO, f"{source}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise FatalError(Exit.DATA, f"{source}: more than 1 GiB; split it")
    if not content.strip():
        raise FatalError(Exit.DATA, f"{source}: empty; a job needs inputs")
    return content


def _array(content: bytes, source: Path) -> "Request":
    import numpy as np

    from schemas.messages import Request
    from schemas.tensor import tensor_from_array

    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
        tensor = tensor_from_array(_TENSOR, array)
    except (ValueError, EOFError, OSError, AttributeError) as error:
        raise FatalError(Exit.DATA, f"{source}: not an array that can be sent: {error}") from None
    if tensor.array.ndim == 0:
        raise FatalError(Exit.DATA, f"{source}: a single number; an array has its rows first")
    return Request((tensor,))


def _document(content: bytes, where: str, datatype: str, rows_per_job: int) -> Iterator["Request"]:
    from schemas.codec import decode_request
    from schemas.limits import Limits
    from schemas.messages import ContentType
    from schemas.reasons import RefusedError

    bare = content.lstrip()[:1] == b"["
    try:
        request = decode_request(_wrap(content, datatype) if bare else content, ContentType.JSON, Limits())
    except (RefusedError, ValueError, RecursionError) as error:
        raise FatalError(Exit.DATA, f"{where}: neither a request nor a list of rows: {error}") from None
    yield from _split(request, rows_per_job) if bare else (request,)


def _wrap(content: bytes, datatype: str) -> bytes:
    """Rows -> the request that holds them; whether they are even is for its decoder to say."""
    rows = row = json.loads(content)
    shape = []
    while isinstance(row, list):
        shape.append(len(row))
        row = row[0] if row else None
    tensor = {"name": _TENSOR, "datatype": datatype, "shape": shape, "data": rows}
    return json.dumps({"inputs": [tensor]}).encode()


def _split(request: "Request", rows_per_job: int) -> Iterator["Request"]:
    from schemas.messages import Request, Tensor

    [tensor] = request.inputs
    rows = len(tensor.array)
    step = rows_per_job or max(1, rows)
    for start in range(0, max(1, rows), step):
        yield Request((Tensor(tensor.name, tensor.array[start : start + step]),))
