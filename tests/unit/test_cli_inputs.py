"""What `loadonce publish` and `predict` read from files and standard input."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from consumer.cli.inputs import Format, read_requests
from consumer.exits import Exit, FatalError
from schemas.messages import Request


def read(source: Path, form: Format | None = None, *, datatype: str = "FP32", rows_per_job: int = 0) -> list[Request]:
    return list(read_requests(source, form, datatype=datatype, rows_per_job=rows_per_job))


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_an_array_is_one_job_of_all_its_rows(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "rows.npy", rows)

    [request] = read(tmp_path / "rows.npy")

    np.testing.assert_array_equal(request.inputs[0].array, rows)
    assert request.inputs[0].array.dtype == np.float32


def test_an_array_splits_into_jobs_and_the_last_has_the_rest(tmp_path: Path) -> None:
    rows = np.arange(14, dtype=np.int64).reshape(7, 2)
    np.save(tmp_path / "rows.npy", rows)

    requests = read(tmp_path / "rows.npy", rows_per_job=3)

    assert [len(request.inputs[0].array) for request in requests] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([request.inputs[0].array for request in requests]), rows)


def test_bare_rows_take_the_datatype_that_is_named(tmp_path: Path) -> None:
    [request] = read(write(tmp_path / "rows.json", "[[1, 2], [3, 4]]"), datatype="INT32")

    assert request.inputs[0].array.dtype == np.int32
    np.testing.assert_array_equal(request.inputs[0].array, [[1, 2], [3, 4]])


def test_text_rows(tmp_path: Path) -> None:
    [request] = read(write(tmp_path / "rows.json", '["a", "ä"]'), datatype="BYTES")

    assert request.inputs[0].array.tolist() == [b"a", "ä".encode()]


def test_no_rows_are_one_job_of_none(tmp_path: Path) -> None:
    [request] = read(write(tmp_path / "rows.json", "[]"))

    assert request.inputs[0].array.shape == (0,)


def test_lines_may_be_rows_and_requests(tmp_path: Path) -> None:
    whole = {"id": "x", "inputs": [{"name": "a", "datatype": "INT8", "shape": [1], "data": [1]}]}
    bare, request = read(write(tmp_path / "jobs.jsonl", f"[[1.5]]\n\n{json.dumps(whole)}\n"))

    assert bare.inputs[0].array.tolist() == [[1.5]]
    assert (request.id, request.inputs[0].name) == ("x", "a")


def test_standard_input_is_lines_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[[1]]\n[[2]]\n")))

    assert [request.inputs[0].array.tolist() for request in read(Path("-"))] == [[[1.0]], [[2.0]]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.json", "[[1, 2], [3]]", "does not match the shape"),
        ("rows.json", "[1, 2", "neither a request nor"),
        ("rows.json", '{"inputs": []}', "inputs"),
        ("rows.json", "3", "not a map"),
        ("rows.json", "[" * 100_000, "neither a request nor"),
        ("rows.json", '[["text"]]', "is not FP32"),
        ("rows.json", " \n", "empty"),
        ("jobs.jsonl", "[[1]]\nnonsense\n", "line 2"),
        ("rows.npy", b"\x93NUMPY nonsense", "not an array"),
        ("rows.csv", "1,2", "--format"),
    ],
)
def test_what_cannot_be_a_job_is_named(tmp_path: Path, name: str, content: bytes | str, said: str) -> None:
    with pytest.raises(FatalError, match=said) as caught:
        read(write(tmp_path / name, content))

    assert caught.value.exit_code == Exit.DATA
    assert name in str(caught.value)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.array([{"a": 1}], object), allow_pickle=True)

    with pytest.raises(FatalError, match="allow_pickle"):
        read(tmp_path / "rows.npy")


def test_a_single_number_is_no_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.float32(1))

    with pytest.raises(FatalError, match="rows first"):
        read(tmp_path / "one.npy")


def test_a_missing_file_and_an_unreadable_one_differ(tmp_path: Path) -> None:
    with pytest.raises(FatalError) as missing:
        read(tmp_path / "nowhere.npy")
    with pytest.raises(FatalError) as unreadable:
        read(tmp_path, Format.NPY)

    assert missing.value.exit_code == Exit.STORE_MISSING
    assert unreadable.value.exit_code == Exit.IO
