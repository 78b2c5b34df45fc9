"""JSON Schema and AsyncAPI: what is committed is what the code says, and says what the codec does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from schemas import documents
from schemas.codec import encode_request, encode_response
from schemas.messages import ContentType, Request, Response, Tensor
from schemas.reasons import Failure, Reason, Stage
from schemas.records import dead_letter_headers
from schemas.tensor import DTYPES


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((documents.FOLDER / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def every_tensor() -> tuple[Tensor, ...]:
    return tuple(
        Tensor(name, np.array([[1, 0]]).astype(dtype) if dtype.kind != "O" else np.array([[b"a", b""]], object))
        for name, dtype in DTYPES.items()
    )


def test_the_committed_documents_are_what_the_code_says() -> None:
    assert documents.drifted() == []


def test_drift_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    documents_of = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(documents.FOLDER, folder, ignore=documents_of)
    assert documents.drifted(folder) == []
    (folder / "asyncapi.json").write_text((folder / "asyncapi.json").read_text() + " ")
    (folder / "request.schema.json").unlink()
    (folder / "old.schema.json").write_text("{}")
    assert documents.drifted(folder) == ["asyncapi.json", "old.schema.json", "request.schema.json"]
    documents.write(folder)
    assert documents.drifted(folder) == ["old.schema.json"]


def test_the_command_fails_on_drift_and_names_it(tmp_path: Path) -> None:
    shutil.copytree(Path(documents.__file__).parent.parent, tmp_path / "schemas")
    altered = tmp_path / "schemas" / "documents" / "request.schema.json"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "schemas.documents", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert run("--check").returncode == 0
    before = altered.read_text()
    altered.write_text(before.replace("FP32", "FP33"))
    checked = run("--check")
    assert (checked.returncode, "request.schema.json" in checked.stderr) == (1, True)
    assert run().returncode == 0
    assert altered.read_text() == before


def test_what_the_codec_writes_is_valid() -> None:
    request = Request(every_tensor(), "a", ("y",), {"p": 1})
    validator("request.schema.json").validate(json.loads(encode_request(request, ContentType.JSON)))
    validator("request.schema.json").validate(json.loads(encode_request(Request(every_tensor()[:1]), ContentType.JSON)))
    response = Response("digits", "3", every_tensor(), "a", {"p": 1})
    validator("response.schema.json").validate(json.loads(encode_response(response, ContentType.JSON)))


@pytest.mark.parametrize(
    "change",
    [
        {"datatype": "FP31"},
        {"datatype": 1},
        {"shape": [-1]},
        {"shape": [1.5]},
        {"shape": [1] * 9},
        {"shape": [65_537]},
        {"shape": 1},
        {"data": None},
        {"data": ["1"]},
        {"data": [True]},
        {"data": [[["1"]]]},
        {"datatype": "INT8", "data": [128]},
        {"datatype": "UINT8", "data": [-1]},
        {"datatype": "INT8", "data": [1.5]},
        {"datatype": "BOOL", "data": [1]},
        {"datatype": "BYTES", "data": [1]},
        {"name": None},
    ],
)
def test_what_the_codec_refuses_is_not_valid(change: dict[str, Any]) -> None:
    good = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    schema = validator("request.schema.json")
    assert schema.is_valid({"inputs": [good]})
    assert not schema.is_valid({"inputs": [good | change]})


@pytest.mark.parametrize("document", [{}, {"inputs": []}, [], {"inputs": [{}] * 65}, {"inputs": "x"}, {"inputs": [1]}])
def test_what_is_no_request_is_not_valid(document: Any) -> None:
    assert not validator("request.schema.json").is_valid(document)


def test_headers() -> None:
    job = validator("job-headers.schema.json")
    assert job.is_valid({})
    assert job.is_valid({"model-key": "a", "model-version": "stable", "content-type": "application/json"})
    for bad in ({"model-key": "a/b"}, {"model-version": "1.0"}, {"content-type": "text/plain"}, {"expires-at": "soon"}):
        assert not job.is_valid(bad)
    prediction = validator("prediction-headers.schema.json")
    good = {
        "model-key": "a",
        "model-version": "1",
        "content-type": "application/msgpack",
        "job-position": "jobs/0/1",
    }
    assert prediction.is_valid(good)
    assert not prediction.is_valid(good | {"model-version": "stable"})
    assert not prediction.is_valid(good | {"job-position": "jobs"})
    assert not prediction.is_valid({})


@pytest.mark.parametrize("reason", list(Reason))
def test_dead_letter_headers(reason: Reason) -> None:
    schema = validator("dead-letter-headers.schema.json")
    for stage in Stage:
        written = dead_letter_headers(
            [],
            Failure(reason, stage, "m" * 600, attempts=1),
            position="jobs/0/1",
            failed_at_ms=1,
            consumer="c",
            truncated=True,
        )
        headers = {name: value.decode() for name, value in written}
        schema.validate(headers)
        for name in headers.keys() - {"dlq-attempts", "dlq-truncated"}:
            assert not schema.is_valid({other: value for other, value in headers.items() if other != name})
        assert not schema.is_valid(headers | {"dlq-reason": "other"})


def test_asyncapi_refers_to_what_is_there() -> None:
    document = json.loads((documents.FOLDER / "asyncapi.json").read_text(encoding="utf-8"))
    assert document["asyncapi"] == "3.0.0"
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {"inference.jobs", "inference.predictions", "inference.dead-letters"}
    references = list(refs(document))
    assert len(references) > 10
    for reference in references:
        if reference.startswith("./"):
            assert (documents.FOLDER / reference).is_file()
            continue
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def refs(node: Any) -> Any:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)
