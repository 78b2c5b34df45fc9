"""msgpack bodies: data as raw little-endian bytes, or as a flat list.

Two readers of one format. `msgpack.unpackb` is the fast one, for small bodies of the usual sizes. The other walks the
document with an `Unpacker`: nothing is allocated by a length that is only declared (the C reader allocates a list of
the length it is promised, so that a few nested bytes ask for gigabytes), what nobody asked for is skipped unread, and
raw data is not copied but viewed. It has the last word on whatever the fast one does not take.
"""

import math
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from msgpack import Packer, Unpacker, UnpackException, packb, unpackb
from numpy.typing import NDArray

from schemas.limits import Limits
from schemas.messages import Request, Response, Tensor
from schemas.reasons import Reason, RefusedError
from schemas.tensor import DTYPES, datatype_of, little_endian, tensor_from_bytes, tensor_from_list

SMALL = 64 * 1024
"""Bodies up to this many bytes are read at once, which copies their data; larger ones are walked, which does not."""

# Bounds of the fast reader; what is past them is walked. The C reader's 1024 levels, each a list of 1024, are 8 MB.
_SMALL_LIST = 1024
_SMALL_MAP = 64

KEY_TYPES = frozenset({str, bytes, int, float, bool, type(None)})
"""What a map that is read may have for keys. Not timestamps: anybody can make many of one hash, and a map of 64,000
such keys takes minutes to build."""

# Bounds of the walk.
_KEYS = 1024  # of the document, and of a tensor
_CONTAINERS = 16 * 1024  # in any one value: an empty list costs 1 byte on the wire and 64 in memory

_UNREADABLE = (ValueError, TypeError, OverflowError, MemoryError, RecursionError, UnpackException)
BIN_HEADERS = {0xC4: 2, 0xC5: 3, 0xC6: 5}
"""First byte of raw bytes -> size of their header."""
_READ = frozenset({"id", "model_name", "model_version", "inputs", "outputs", "parameters"})
_READ_OF_TENSOR = frozenset({"name", "datatype", "shape"})


def parse(body: bytes, tensors: str, limits: Limits) -> Any:
    """The document. RefusedError: bad-body, or too-large where the lists are longer than the limits allow."""
    if len(body) <= SMALL:
        try:
            return unpackb(body, max_array_len=_SMALL_LIST, max_map_len=_SMALL_MAP, strict_map_key=False)
        except _UNREADABLE:
            pass
    try:
        return _Walk(body, limits).document(tensors)
    except RefusedError:
        raise
    except _UNREADABLE:
        raise RefusedError(Reason.BAD_BODY, "the value is not msgpack, or not the shape it should have") from None


def tensor(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    """The tensor of raw bytes or of a flat list. RefusedError(bad-body)."""
    if type(data) is list:
        return tensor_from_list(name, datatype, shape, data)
    if type(data) is bytes or type(data) is memoryview:
        return tensor_from_bytes(name, datatype, shape, data)
    raise RefusedError(Reason.BAD_BODY, "data is missing, or neither bin nor a flat list")


class _Walk:
    """One pass over a body, keeping what a message needs and skipping the rest."""

    def __init__(self, body: bytes, limits: Limits) -> None:
        self._view = memoryview(body)
        self._limits = limits
        self._unpacker = Unpacker(max_buffer_size=max(len(body), 1), strict_map_key=False)
        self._unpacker.feed(body)

    def document(self, tensors: str) -> dict[Any, Any]:
        document = self._map(_READ, tensors, self._tensors)
        if self._unpacker.tell() != len(self._view):
            raise RefusedError(Reason.BAD_BODY, "there are bytes after the end of the value")
        return document

    def _map(self, read: frozenset[str], special: str, read_special: Callable[[], Any]) -> dict[Any, Any]:
        keys = self._unpacker.read_map_header()
        if keys > _KEYS:
            raise RefusedError(Reason.BAD_BODY, f"a map has {keys} keys")
        found: dict[Any, Any] = {}
        for _ in range(keys):
            key = _value(self._next())
            if key == special:
                found[key] = read_special()
            elif key in read:
                found[key] = _value(self._next())
            else:
                self._unpacker.skip()
        return found

    def _tensors(self) -> list[Any]:
        count = self._unpacker.read_array_header()
        if count > self._limits.tensors:
            message = f"there are {count} tensors; the limit is {self._limits.tensors}"
            raise RefusedError(Reason.TOO_LARGE, message)
        return [self._tensor() for _ in range(count)]

    def _tensor(self) -> Any:
        start = self._unpacker.tell()
        if _is_map(self._view[start : start + 1]):
            return self._map(_READ_OF_TENSOR, "data", self._data)
        return _value(self._next())

    def _data(self) -> memoryview | list[Any] | None:
        """Raw bytes, a flat list, or None for anything else: another tensor may be wrong in a way that comes first."""
        data = self._next()
        if header := BIN_HEADERS.get(data[0]):
            return data[header:]
        if data[0] & 0xF0 != 0x90 and data[0] not in (0xDC, 0xDD):
            return None
        unpacker = Unpacker(max_buffer_size=len(data), object_hook=_no_container, list_hook=_no_container)
        unpacker.feed(data)
        count = int(unpacker.read_array_header())
        if count > self._limits.elements:
            raise RefusedError(Reason.TOO_LARGE, f"data has more than {self._limits.elements} elements, the limit")
        try:
            return list(islice(unpacker, count))
        except ValueError:  # a container; text that is not UTF-8
            return None

    def _next(self) -> memoryview:
        """The bytes of the next value, all of them there: skipping allocates nothing and fails where they are not."""
        start = self._unpacker.tell()
        self._unpacker.skip()
        return self._view[start : self._unpacker.tell()]


def _value(data: memoryview) -> Any:
    """A value whose elements are all there, so that lengths may be as long as its bytes allow."""
    containers = 0

    def count(container: list[Any]) -> list[Any]:
        nonlocal containers
        containers += 1
        if containers > _CONTAINERS:
            raise RefusedError(Reason.TOO_LARGE, f"a value holds more than {_CONTAINERS} lists and maps")
        return container

    def as_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        if not KEY_TYPES.issuperset([type(key) for key, _ in count(pairs)]):
            raise RefusedError(Reason.BAD_BODY, "the key of a map is neither text, bytes nor a number")
        return dict(pairs)

    size = len(data)
    return unpackb(
        data, max_array_len=size, max_map_len=size, strict_map_key=False, object_pairs_hook=as_map, list_hook=count
    )


def _is_map(first: memoryview) -> bool:
    return bool(first) and (first[0] & 0xF0 == 0x80 or first[0] in {0xDE, 0xDF})


def _no_container(_: Any) -> Any:
    raise ValueError


def dump_request(request: Request) -> bytes:
    """The body of a job: arrays are copied once, into it."""
    keys = 1 + (request.id is not None) + (request.outputs is not None) + (request.parameters is not None)
    parts: list[Any] = [Packer().pack_map_header(keys)]
    _add_common(parts, request.id, request.parameters)
    if request.outputs is not None:
        parts += [_OUTPUTS, packb([{"name": name} for name in request.outputs])]
    parts.append(_INPUTS)
    _add_tensors(parts, request.inputs)
    return b"".join(parts)


def dump_response(response: Response) -> bytes:
    """The body of a prediction: arrays are copied once, into it."""
    keys = 3 + (response.id is not None) + (response.parameters is not None)
    parts: list[Any] = [_response_head(keys, response.model_name, response.model_version)]
    _add_common(parts, response.id, response.parameters)
    parts.append(_OUTPUTS)
    _add_tensors(parts, response.outputs)
    return b"".join(parts)


class ResponseRows:
    """Bodies of predictions that differ in little but their rows: all of the same outputs, none of them BYTES.

    As `dump_response` writes them; arrays are copied once, into the body. ValueError: a dtype that the contract does
    not have.
    """

    def __init__(self, model_name: str, model_version: str, outputs: Mapping[str, NDArray[Any]]) -> None:
        self._model = model_name, model_version
        self._outputs = [(name, datatype_of(array), array.shape[1:]) for name, array in outputs.items()]
        arrays = [little_endian(array, DTYPES[datatype_of(array)]) for array in outputs.values()]
        self._memories = [array.reshape(-1).view(np.uint8).data for array in arrays]
        self._row_bytes = [array[:1].nbytes for array in arrays]
        self._heads: dict[int, list[bytes]] = {}
        self.row_bytes = sum(self._row_bytes)
        """What a row takes."""

    def body(self, start: int, stop: int, identifier: str | None, parameters: Any) -> bytes:
        """The body of the prediction of these rows. RefusedError(output-too-large): past the 4 GiB of a msgpack bin."""
        heads = self._heads.get(stop - start) or self._heads_of(stop - start)
        if identifier is None and parameters is None:
            parts: list[Any] = [_response_head(3, *self._model)]
        else:
            keys = 3 + (identifier is not None) + (parameters is not None)
            parts = [_response_head(keys, *self._model)]
            _add_common(parts, identifier, parameters)
        for head, memory, row in zip(heads, self._memories, self._row_bytes, strict=True):
            parts += (head, memory[start * row : stop * row])
        return b"".join(parts)

    def _heads_of(self, rows: int) -> list[bytes]:
        heads = [_tensor_head(name, datatype, (rows, *dims)) for name, datatype, dims in self._outputs]
        heads[0] = _OUTPUTS + _list_head(len(heads)) + heads[0]
        self._heads[rows] = heads
        return heads


_ID = packb("id")
_PARAMETERS = packb("parameters")
_INPUTS = packb("inputs")
_OUTPUTS = packb("outputs")


def _add_common(parts: list[Any], identifier: str | None, parameters: Any) -> None:
    if identifier is not None:
        parts += [_ID, packb(identifier)]
    if parameters is not None:
        parts += [_PARAMETERS, packb(parameters)]


def _add_tensors(parts: list[Any], tensors: tuple[Tensor, ...]) -> None:
    parts.append(_list_head(len(tensors)))
    for entry in tensors:
        array = entry.array
        datatype = datatype_of(array)
        dtype = DTYPES[datatype]
        parts.append(_tensor_head(entry.name, datatype, array.shape))
        parts.append(packb(array.reshape(-1).tolist()) if dtype.hasobject else little_endian(array, dtype))


# What repeats from job to job is written once.


@lru_cache(maxsize=1024)
def _response_head(keys: int, model_name: str, model_version: str) -> bytes:
    packer = Packer(autoreset=False)
    packer.pack_map_header(keys)
    for text in ("model_name", model_name, "model_version", model_version):
        packer.pack(text)
    return bytes(packer.bytes())


@lru_cache(maxsize=128)
def _list_head(length: int) -> bytes:
    return bytes(Packer().pack_array_header(length))


@lru_cache(maxsize=4096)
def _tensor_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """Everything of a tensor before its elements."""
    packer = Packer(autoreset=False)
    packer.pack_map_header(4)
    for value in ("name", name, "datatype", datatype, "shape", list(shape), "data"):
        packer.pack(value)
    head = bytes(packer.bytes())
    dtype = DTYPES[datatype]
    return head if dtype.hasobject else head + _bin_head(math.prod(shape) * dtype.itemsize)


def _bin_head(size: int) -> bytes:
    if size < 1 << 8:
        return struct.pack(">BB", 0xC4, size)
    if size < 1 << 16:
        return struct.pack(">BH", 0xC5, size)
    if size < 1 << 32:
        return struct.pack(">BI", 0xC6, size)
    raise RefusedError(Reason.OUTPUT_TOO_LARGE, f"a tensor of {size} bytes is more than msgpack can carry")
