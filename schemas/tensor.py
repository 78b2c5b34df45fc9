"""Tensors to and from numpy: little-endian, row-major, without copies where the memory allows it."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.messages import Tensor
from schemas.reasons import Reason, RefusedError

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}
"""The datatypes of the Open Inference Protocol (V2) and their little-endian numpy dtypes.

BYTES is an object array of `bytes`. BF16 needs ml-dtypes, which a publisher may do without, and a little-endian machine
(ml-dtypes knows only the machine's own byte order).
"""

try:
    import ml_dtypes
except ImportError:
    pass
else:
    if sys.byteorder == "little":
        DTYPES["BF16"] = np.dtype(ml_dtypes.bfloat16)

_DATATYPES: dict[np.dtype[Any], str] = {
    order: datatype
    for datatype, dtype in DTYPES.items()
    for order in ((dtype,) if dtype.kind in "OV" else (dtype, dtype.newbyteorder(">")))
}
_BOOL = DTYPES["BOOL"]


def datatype_of(array: NDArray[Any]) -> str:
    """The contract's name for the array's dtype, of either byte order. ValueError where it has none."""
    try:
        return _DATATYPES[array.dtype]
    except KeyError:
        raise ValueError(f"dtype {array.dtype.name} has no datatype in the contract; it has {_known()}") from None


def tensor_from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Tensor:
    """A read-only view of `data`: raw little-endian row-major elements of `shape`, dimensions >= 0.

    RefusedError(bad-body): a datatype that is unknown or has no fixed size (BYTES), data that does not fill the shape
    exactly, a BOOL byte other than 0 and 1. RefusedError(too-large): more than numpy can address.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise unknown_datatype()
    if dtype.hasobject:
        raise RefusedError(Reason.BAD_BODY, "BYTES elements travel as a list, not as raw bytes")
    # Python's integers do not overflow, so no shape can wrap around to the size of its data.
    size = math.prod(shape) * dtype.itemsize
    if size != len(data):
        raise RefusedError(Reason.BAD_BODY, f"{len(data)} bytes of data do not fill a shape of {size} bytes")
    try:
        array: NDArray[Any] = np.ndarray(shape, dtype, data)
    except ValueError:  # an empty shape such as [0, 2**62, 2**62]
        raise RefusedError(Reason.TOO_LARGE, "the shape is larger than an array can be") from None
    if dtype is _BOOL and size and int(np.frombuffer(data, np.uint8).max()) > 1:
        raise RefusedError(Reason.BAD_BODY, "a BOOL byte is neither 0 nor 1")
    return Tensor(name, array)


def tensor_from_array(name: str, array: Any) -> Tensor:
    """A tensor of any array-like: contiguous and little-endian, copied only where it is not already; never cast.

    Text (numpy's `str` and `bytes` arrays, object arrays of both) becomes BYTES, `str` as UTF-8. ValueError: a dtype
    that the contract does not have, an object array of anything else.
    """
    array = np.asarray(array)
    kind = array.dtype.kind
    if kind in "OSU":
        return Tensor(name, _bytes_array(array.reshape(-1).tolist(), array.shape))
    return Tensor(name, little_endian(array, DTYPES[datatype_of(array)]))


def tensor_to_bytes(array: NDArray[Any]) -> memoryview:
    """The array's elements, raw, little-endian and row-major: a view, unless the array had to be made so.

    ValueError: a dtype that the contract does not have, or BYTES, which has no raw form.
    """
    dtype = DTYPES[datatype_of(array)]
    if dtype.hasobject:
        raise ValueError("BYTES elements travel as a list, not as raw bytes")
    return little_endian(array, dtype).reshape(-1).view(np.uint8).data


def little_endian(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array itself where it is contiguous and of `dtype`, else a copy that is."""
    # Not ascontiguousarray alone: it turns rank 0 into rank 1.
    return array if array.flags.c_contiguous and array.dtype == dtype else np.array(array, dtype, order="C")


def tensor_from_list(name: str, datatype: str, shape: Sequence[int], data: list[Any]) -> Tensor:
    """A tensor of a flat list of as many elements as `shape` has, each of its datatype; read-only.

    BOOL takes booleans, integers take integers in their range (no booleans, no fractions), floating point takes numbers
    whose finite values stay finite, BYTES takes text (as UTF-8) and bytes. RefusedError(bad-body) for all else.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise unknown_datatype()
    if math.prod(shape) != len(data):
        raise RefusedError(Reason.BAD_BODY, f"{len(data)} elements of data do not fill a shape of {math.prod(shape)}")
    if not set(map(type, data)) <= _ELEMENTS[dtype.kind]:
        raise RefusedError(Reason.BAD_BODY, f"an element of data is not {datatype}")
    try:
        array = _bytes_array(data, shape) if dtype.hasobject else _numbers(data, dtype).reshape(shape)
    except (ValueError, OverflowError):  # out of range; half of a surrogate pair; [0, 2**62, 2**62]
        raise RefusedError(Reason.BAD_BODY, f"an element of data is not {datatype}") from None
    array.flags.writeable = False
    return Tensor(name, array)


_ELEMENTS: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "V": {int, float},  # BF16
    "O": {str, bytes},
}
"""The types that an element of a list may have, by the dtype's kind."""


def _numbers(data: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "biu":
        return np.array(data, dtype)  # OverflowError for an integer out of range
    exact = np.array(data, np.float64)
    with np.errstate(over="ignore"):
        array = exact.astype(dtype)
    if not np.array_equal(np.isfinite(exact), np.isfinite(array)):
        raise OverflowError
    return array


def _bytes_array(data: list[Any], shape: Sequence[int]) -> NDArray[Any]:
    array = np.empty(len(data), object)
    array[:] = [_as_bytes(element) for element in data]
    return array.reshape(shape)


def _as_bytes(element: Any) -> bytes:
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode()
    raise ValueError(f"dtype object holds a {type(element).__name__}; BYTES elements are str or bytes")


def unknown_datatype() -> RefusedError:
    """The refusal that an unknown datatype earns."""
    return RefusedError(Reason.BAD_BODY, f"the datatype is not one of {_known()}")


def _known() -> str:
    return ", ".join(DTYPES)
