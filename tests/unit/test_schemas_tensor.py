"""Tensors to and from numpy."""

import numpy as np
import pytest

from schemas.messages import Tensor
from schemas.reasons import Reason, RefusedError
from schemas.tensor import DTYPES, datatype_of, tensor_from_array, tensor_from_bytes, tensor_from_list, tensor_to_bytes

V2_DATATYPES = [
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
FIXED = [datatype for datatype in V2_DATATYPES if datatype != "BYTES"]


def test_every_datatype_of_the_contract_and_no_other() -> None:
    assert sorted(DTYPES) == sorted(V2_DATATYPES)
    assert [DTYPES[datatype].itemsize for datatype in FIXED] == [1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8]


@pytest.mark.parametrize("datatype", V2_DATATYPES)
def test_an_array_has_the_datatype_of_its_dtype(datatype: str) -> None:
    assert datatype_of(np.zeros((2,), DTYPES[datatype])) == datatype


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "float128"])
def test_a_foreign_dtype_is_named(dtype: str) -> None:
    with pytest.raises(ValueError, match=np.dtype(dtype).name.replace("[", r"\[")):
        tensor_from_array("x", np.zeros(2, dtype))


@pytest.mark.parametrize("datatype", FIXED)
def test_raw_bytes_are_viewed_not_copied(datatype: str) -> None:
    body = bytearray(3 * DTYPES[datatype].itemsize)
    array = tensor_from_bytes("x", datatype, (3,), memoryview(body).toreadonly()).array
    body[DTYPES[datatype].itemsize] = 1
    assert (array.view(np.uint8) == np.frombuffer(body, np.uint8)).all()
    assert not array.flags.writeable


@pytest.mark.parametrize("datatype", FIXED)
def test_an_array_becomes_raw_bytes_without_a_copy(datatype: str) -> None:
    array = np.zeros((2, 3), DTYPES[datatype])
    raw = tensor_to_bytes(array)
    array.reshape(-1).view(np.uint8)[0] = 1
    assert raw[0] == 1
    assert raw.nbytes == array.nbytes


def test_bytes_on_the_wire_are_little_endian_and_row_major() -> None:
    array = np.array([[1, 2], [3, 4]], ">i2", order="F")
    assert datatype_of(array) == "INT16"
    assert bytes(tensor_to_bytes(array)) == b"\1\0\2\0\3\0\4\0"
    made = tensor_from_array("x", array).array
    assert made.dtype == np.dtype("<i2")
    assert made.flags.c_contiguous
    assert bytes(tensor_to_bytes(array[:, 1])) == b"\2\0\4\0"


def test_an_array_that_is_right_already_is_not_copied() -> None:
    array = np.zeros((2, 3), np.float64)
    assert tensor_from_array("x", array).array is array


def test_rank_0_stays_rank_0() -> None:
    assert tensor_from_array("x", np.float32(1)).array.shape == ()
    assert tensor_from_bytes("x", "FP32", (), bytes(4)).array.shape == ()
    assert tensor_to_bytes(np.array(1, ">f4")).nbytes == 4


def test_text_becomes_bytes() -> None:
    for text in (np.array([["a", "é"]]), np.array([["a", b"\xc3\xa9"]], object)):
        made = tensor_from_array("x", text).array
        assert made.tolist() == [[b"a", "é".encode()]]
        assert datatype_of(made) == "BYTES"
    with pytest.raises(ValueError, match="holds a float"):
        tensor_from_array("x", np.array([1.5], object))


@pytest.mark.parametrize(
    ("datatype", "shape", "size"),
    [
        ("FP32", (2, 3), 23),
        ("FP32", (2, 3), 25),
        ("FP32", (2, 3), 0),
        ("FP32", (0, 3), 4),
        ("INT8", (2**32, 2**32), 0),  # 2**64: 0 in 64 bits
        ("INT64", (2**61 + 1,), 8),  # 2**64 + 8: 8 in 64 bits
        ("COMPLEX64", (1,), 8),
        ("fp32", (1,), 4),
        ("BYTES", (1,), 4),
    ],
)
def test_data_that_does_not_fill_its_shape_is_bad_body(datatype: str, shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(RefusedError) as refused:
        tensor_from_bytes("x", datatype, shape, bytes(size))
    assert refused.value.reason is Reason.BAD_BODY


def test_no_rows_are_a_tensor() -> None:
    assert tensor_from_bytes("x", "FP32", (0, 4), b"").array.shape == (0, 4)
    assert tensor_from_list("x", "BYTES", (0, 4), []).array.shape == (0, 4)


@pytest.mark.parametrize("shape", [(0, 2**62, 2**62), (0, 2**64)])
def test_an_empty_shape_that_numpy_cannot_make_is_too_large(shape: tuple[int, ...]) -> None:
    with pytest.raises(RefusedError) as refused:
        tensor_from_bytes("x", "FP32", shape, b"")
    assert refused.value.reason is Reason.TOO_LARGE


def test_a_bool_is_0_or_1() -> None:
    assert tensor_from_bytes("x", "BOOL", (2,), b"\1\0").array.tolist() == [True, False]
    with pytest.raises(RefusedError) as refused:
        tensor_from_bytes("x", "BOOL", (2,), b"\1\2")
    assert refused.value.reason is Reason.BAD_BODY


@pytest.mark.parametrize(
    ("datatype", "element"),
    [
        ("BOOL", 1),
        ("BOOL", "true"),
        ("INT8", 128),
        ("INT8", 1.0),
        ("INT8", True),
        ("UINT8", -1),
        ("INT64", 2**63),
        ("UINT64", 2**64),
        ("FP16", 65520.0),
        ("FP32", 1e39),
        ("FP32", -(10**39)),
        ("BF16", 3.4e38),
        ("FP64", 10**400),
        ("FP64", True),
        ("FP64", "1"),
        ("FP64", None),
        ("FP64", [1.0]),
        ("BYTES", 1),
        ("BYTES", None),
        ("BYTES", "\ud800"),
        ("INT32", b"1"),
    ],
)
def test_an_element_of_another_type_or_out_of_range_is_bad_body(datatype: str, element: object) -> None:
    good = {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
    assert tensor_from_list("x", datatype, (1,), [good]).array.size == 1
    with pytest.raises(RefusedError) as refused:
        tensor_from_list("x", datatype, (2,), [good, element])
    assert refused.value.reason is Reason.BAD_BODY


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_infinities_and_nan_are_numbers(datatype: str) -> None:
    made = tensor_from_list("x", datatype, (3,), [float("inf"), float("-inf"), float("nan")]).array
    assert made.astype(np.float64)[:2].tolist() == [float("inf"), float("-inf")]
    assert np.isnan(made.astype(np.float64)[2])


def test_a_tensor_does_not_print_its_elements() -> None:
    assert "7" not in repr(Tensor("x", np.array([7])))
