"""What a manifest may say, and what becomes of one that says something else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from consumer.models.documents import DocumentError
from consumer.models.errors import PermanentLoadError
from consumer.models.manifest import Manifest, check_signature, document_of, parse
from consumer.models.servable import Endpoint, Servable, ServingOptions
from consumer.models.signature import TensorSpec

DIGEST = "0123456789abcdef" * 4


def parsed(**document: Any) -> Manifest:
    return parse(json.dumps(document).encode())


def test_what_differs_from_the_defaults_is_written() -> None:
    serving = ServingOptions(jit_compile=False, mixed_precision="none")  # not the same as to say nothing
    document = document_of(Manifest(serving=serving))
    assert document["serving"] == {"jit_compile": False, "mixed_precision": "none"}
    assert parsed(**document).serving == serving


def test_everything_a_manifest_may_say() -> None:
    manifest = parsed(
        files={"saved_model.pb": DIGEST.upper(), "variables/variables.index": DIGEST},
        inputs=[
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "any", "datatype": "BYTES", "shape": None},
        ],
        outputs=[{"name": "y", "datatype": "INT64", "shape": [4]}],
        serving={
            "warmup_rows": [1, 65_536],
            "batch_buckets": [8, 32],
            "jit_compile": True,
            "mixed_precision": "bfloat16",
        },
        made_by="somebody",
    )
    assert manifest == Manifest(
        {"saved_model.pb": DIGEST, "variables/variables.index": DIGEST},
        (TensorSpec("x", "FP32", (None, 3)), TensorSpec("any", "BYTES", None)),
        (TensorSpec("y", "INT64", (4,)),),
        ServingOptions((1, 65_536), (8, 32), jit_compile=True, mixed_precision="bfloat16"),
    )
    assert parse(json.dumps(document_of(manifest)).encode()) == manifest
    assert parsed() == Manifest()
    assert document_of(Manifest()) == {"files": {}, "inputs": [], "outputs": [], "serving": {}}


@pytest.mark.parametrize(
    ("serving", "why"),
    [
        ([], "not a map"),
        ({"warmup_row": [1]}, "no option 'warmup_row'; is `warmup_rows` meant?"),
        ({"Batch_Bucket": [1]}, "is `batch_buckets` meant?"),
        ({"jit-compile": True}, "is `jit_compile` meant?"),
        ({"threads": 1}, "there are warmup_rows, batch_buckets, jit_compile, mixed_precision"),
        ({"x\n" * 1000: 1}, "no option 'x?x?"),
        ({"warmup_rows": 1}, "warmup_rows"),
        ({"warmup_rows": []}, "warmup_rows is empty"),
        ({"warmup_rows": [0]}, "warmup_rows"),
        ({"warmup_rows": [65_537]}, "warmup_rows"),
        ({"warmup_rows": [1.0]}, "warmup_rows"),
        ({"warmup_rows": [True]}, "warmup_rows"),
        ({"warmup_rows": [1] * 65}, "warmup_rows"),
        ({"batch_buckets": [8, 8]}, "ascending"),
        ({"batch_buckets": [8, 4]}, "ascending"),
        ({"batch_buckets": ["8"]}, "batch_buckets"),
        ({"batch_buckets": list(range(1, 66))}, "batch_buckets"),
        ({"jit_compile": 1}, "jit_compile"),
        ({"jit_compile": None}, "jit_compile"),
        ({"mixed_precision": None}, "mixed_precision is not one of none, bfloat16, float16"),
        ({"mixed_precision": "bf16"}, "mixed_precision"),
        ({"mixed_precision": ["bfloat16"]}, "mixed_precision"),
    ],
)
def test_serving_options_that_cannot_be(serving: Any, why: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(why)) as told:
        parsed(serving=serving)
    assert str(told.value).startswith("manifest.json: `serving`")
    assert str(told.value).isprintable()


def spec(**change: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [-1, 3]} | change


@pytest.mark.parametrize("part", ["inputs", "outputs"])
@pytest.mark.parametrize(
    "tensors",
    [
        {},
        [1],
        [{}],
        [spec(name=1)],
        [spec(datatype="FP8")],
        [spec(datatype=["FP32"])],
        [spec(shape=[])],
        [spec(shape=[-2])],
        [spec(shape=[1.0])],
        [spec(shape=[True])],
        [spec(shape=[None])],
        [spec(shape=[1] * 33)],
        [spec(shape=[2**63])],
        [spec(shape="3")],
        [spec(), spec()],
        [spec(name=str(number)) for number in range(1025)],
    ],
)
def test_tensors_that_cannot_be(part: str, tensors: Any) -> None:
    with pytest.raises(DocumentError, match=f"manifest.json: `{part}`"):
        parsed(**{part: tensors})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        ".a",
        "a/.b",
        "a\0b",
        "\ud800",
        "a" * 256,
        "/".join(["a" * 200] * 6),
    ],
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(DocumentError, match="cannot be a file of a version") as told:
        parsed(files={name: DIGEST})
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    "files", [[], {"a": 1}, {"a": "abc"}, {"a": DIGEST + "0"}, {"manifest.json": DIGEST}, {"manifest.json.sig": DIGEST}]
)
def test_files_that_cannot_be(files: Any) -> None:
    with pytest.raises(DocumentError, match=r"manifest\.json: `files`"):
        parsed(files=files)


@pytest.mark.parametrize(("name", "meant"), [("file", "files"), ("Input", "inputs"), ("servings", "serving")])
def test_a_part_that_was_misspelt(name: str, meant: str) -> None:
    with pytest.raises(DocumentError, match=f"is `{meant}` meant"):
        parsed(**{name: {}})


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_document(text: bytes) -> None:
    with pytest.raises(DocumentError, match=r"^manifest.json is not"):
        parse(text)


# the model's own signature -----------------------------------------------------------------------------------------

INPUT = TensorSpec("x", "FP32", (None, 3))
OUTPUT = TensorSpec("y", "FP32", (None,))
SERVABLE = Servable(
    Path("unused"), "keras", (Endpoint(INPUT, "x:0"),), (Endpoint(OUTPUT, "y:0"),), rows=None, weights_bytes=0
)


@pytest.mark.parametrize("manifest", [None, Manifest(), Manifest(inputs=(INPUT,), outputs=(OUTPUT,))])
def test_the_right_signature_and_none(manifest: Manifest | None) -> None:
    check_signature(manifest, SERVABLE)


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        (
            Manifest(inputs=(INPUT, TensorSpec("z", "FP32", (None,)))),
            "the manifest has an input 'z', the model has none",
        ),
        (Manifest(outputs=(TensorSpec("z", "FP32", (None,)),)), "the model has an output 'y', the manifest has none"),
        (
            Manifest(inputs=(TensorSpec("x", "FP64", (None, 3)),)),
            "the manifest says input 'x' is FP64 [-1, 3], and in the model it is FP32 [-1, 3]",
        ),
        (Manifest(inputs=(TensorSpec("x", "FP32", (None, 4)),)), "FP32 [-1, 4]"),
        (Manifest(inputs=(TensorSpec("x", "FP32", None),)), "FP32 of any rank"),
        (Manifest(inputs=(INPUT,), outputs=(TensorSpec("y", "FP32", (None, 1)),)), "output 'y'"),
    ],
)
def test_the_wrong_signature(manifest: Manifest, why: str) -> None:
    with pytest.raises(PermanentLoadError, match="^wrong signature: .*" + re.escape(why)):
        check_signature(manifest, SERVABLE)
