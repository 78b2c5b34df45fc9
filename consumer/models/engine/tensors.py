"""numpy arrays to and from TF_Tensor.

Memory is never shared on the way in: a kernel may keep its input past the call (a variable that was assigned it).
"""

import ctypes
import math
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from consumer.models.engine.library import Deallocator, open_library

_CODES: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 1,
    np.dtype(np.float64): 2,
    np.dtype(np.int32): 3,
    np.dtype(np.uint8): 4,
    np.dtype(np.int16): 5,
    np.dtype(np.int8): 6,
    np.dtype(np.object_): 7,
    np.dtype(np.int64): 9,
    np.dtype(np.bool_): 10,
    np.dtype(ml_dtypes.bfloat16): 14,
    np.dtype(np.uint16): 17,
    np.dtype(np.float16): 19,
    np.dtype(np.uint32): 22,
    np.dtype(np.uint64): 23,
}
"""numpy's dtypes, of this machine's byte order, and TF_DataType of tensorflow/c/tf_datatype.h."""

_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_STRING = 7
_STRING_BYTES = 24
"""sizeof(TF_TString), tensorflow/core/platform/ctstring_internal.h. One of zeros is an empty string."""

_COPIED_BYTES = 16 * 1024
"""Up to here one more copy is quicker than asking numpy for an address, or making an array that owns a TF_Tensor."""


def to_tensor(array: NDArray[Any]) -> int:
    """A new TF_Tensor with a copy of the array, of any strides; the caller deletes it.

    BYTES are object arrays of `bytes`. ValueError: a dtype that TensorFlow has not or that no job carries, or an object
    array of anything else. MemoryError.
    """
    code = _CODES.get(array.dtype)
    if code is None:
        array = array.astype(array.dtype.newbyteorder("="))
        code = _CODES.get(array.dtype)
        if code is None:
            raise ValueError(f"dtype {array.dtype.name} is none of the contract's")
    if code == _STRING:
        return _to_strings(array)
    lib = open_library()
    shape = array.shape
    rank = len(shape)
    nbytes = array.nbytes
    tensor: int | None = lib.allocate_tensor(code, _dims(shape), rank, nbytes)
    if tensor is None:
        raise MemoryError
    if nbytes:
        data = lib.tensor_data(tensor)
        if data is None:
            lib.delete_tensor(tensor)
            raise MemoryError
        if nbytes <= _COPIED_BYTES:
            ctypes.memmove(data, array.tobytes(), nbytes)
        else:
            contiguous = np.ascontiguousarray(array)  # named, or it is gone before it is read
            ctypes.memmove(data, contiguous.ctypes.data, nbytes)
    return tensor


def to_array(tensor: int) -> NDArray[Any]:
    """A read-only array of a TF_Tensor's elements; it takes the tensor over and deletes it.

    Large ones are not copied: the tensor lives as long as the array or a view of it. BYTES become an object array of
    `bytes`. ValueError: a datatype that no job carries.
    """
    lib = open_library()
    owner = _Owner(tensor)
    code = lib.tensor_type(tensor)
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise ValueError(f"TensorFlow's datatype {code} is none of the contract's")
    shape = tuple([lib.dim(tensor, index) for index in range(lib.num_dims(tensor))])
    array: NDArray[Any]
    if code == _STRING:
        array = _from_strings(tensor, shape)
    else:
        nbytes = lib.tensor_byte_size(tensor)
        if nbytes <= _COPIED_BYTES:
            array = np.ndarray(shape, dtype, ctypes.string_at(lib.tensor_data(tensor), nbytes) if nbytes else b"")
            return array  # read-only: so are bytes
        owner.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (nbytes,),
            "data": (lib.tensor_data(tensor), True),
        }
        array = np.asarray(owner).view(dtype).reshape(shape)
    array.flags.writeable = False
    return array


class _Owner:
    """Deletes a TF_Tensor when the last array over it is gone."""

    __slots__ = ("__array_interface__", "_delete", "_tensor")

    __array_interface__: dict[str, Any]

    def __init__(self, tensor: int) -> None:
        self._tensor = tensor
        self._delete = open_library().delete_tensor

    def __del__(self) -> None:
        self._delete(self._tensor)


def _dims(shape: tuple[int, ...]) -> Any:
    return (ctypes.c_int64 * len(shape))(*shape)


# TensorFlow frees the elements' own memory only where it made them: not with TF_AllocateTensor.
_buffers: dict[int, Any] = {}
"""The memory of the string tensors that TensorFlow holds, by address."""


def _free(data: int, nbytes: int, _argument: int | None) -> None:
    dealloc = open_library().string_dealloc
    for address in range(data, data + nbytes, _STRING_BYTES):
        dealloc(address)
    del _buffers[data]


_FREE = Deallocator(_free)


def _to_strings(array: NDArray[Any]) -> int:
    elements = array.reshape(-1).tolist()
    if not set(map(type, elements)) <= {bytes}:
        raise ValueError("BYTES elements are bytes")
    lib = open_library()
    nbytes = _STRING_BYTES * len(elements)
    buffer = (ctypes.c_uint64 * max(1, nbytes // 8))()  # of zeros, and aligned
    data = ctypes.addressof(buffer)
    copy = lib.string_copy
    for address, element in zip(range(data, data + nbytes, _STRING_BYTES), elements, strict=True):
        copy(address, element, len(element))
    _buffers[data] = buffer
    # What it refuses, it has already given to the deallocator.
    tensor: int | None = lib.new_tensor(_STRING, _dims(array.shape), array.ndim, data, nbytes, _FREE, None)
    if tensor is None:
        raise MemoryError
    return tensor


def _from_strings(tensor: int, shape: tuple[int, ...]) -> NDArray[Any]:
    lib = open_library()
    count = math.prod(shape)
    array = np.empty(count, object)
    if count:
        start = lib.tensor_data(tensor)
        addresses = range(start, start + _STRING_BYTES * count, _STRING_BYTES)
        pointer, size, read = lib.string_data, lib.string_size, ctypes.string_at
        array[:] = [read(pointer(address), size(address)) for address in addresses]
    return array.reshape(shape)
