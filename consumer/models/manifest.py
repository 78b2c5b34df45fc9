"""`manifest.json`: what a version's files must be, what it takes and gives, and how it wants to be served.

    {"files": {"model.keras": "<sha256 in hex>"},
     "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}], "outputs": [...],
     "serving": {"warmup_rows": [1, 2], "batch_buckets": [8, 32], "jit_compile": false, "mixed_precision": "none"}}

Every part is optional. Tensors are written as the Open Inference Protocol's model metadata has them: -1 is a dimension
that may vary; a shape of null is any rank.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from consumer.models import documents
from consumer.models.documents import DocumentError
from consumer.models.engine import MixedPrecision
from consumer.models.errors import PermanentLoadError
from consumer.models.servable import Servable, ServingOptions
from consumer.models.signature import TensorSpec
from schemas.tensor import DTYPES

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
MANIFEST_BYTES = 1024 * 1024
MAX_FILES = 10_000
"""Files of a version."""
NAME_BYTES = 255
"""Of one part of a file's name: NAME_MAX of Linux' file systems."""
PATH_BYTES = 1024
"""Of a file's name below its version; what an S3 key may have in all."""

_DIGEST = re.compile("[0-9a-fA-F]{64}")
_PARTS = ("files", "inputs", "outputs", "serving")
_SERVING = tuple(option.name for option in fields(ServingOptions))
_PRECISIONS: tuple[MixedPrecision, ...] = get_args(MixedPrecision)
_MAX_TENSORS = 1024
_MAX_SIZES = 64
_MAX_ROWS = 65_536
"""Of one call: what MAX_BATCH_ROWS may be at most."""
_MAX_RANK = 32
_MAX_DIMENSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked `manifest.json`. `files` are digests by relative name, sha256 in lower-case hex."""

    files: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    serving: ServingOptions = field(default_factory=ServingOptions)


def parse(text: bytes) -> Manifest:
    """Check the text of a `manifest.json`. DocumentError says what is wrong in it."""
    document = documents.parse(text, MANIFEST)
    for name in document:
        # What others add stays theirs; what was meant for us must not be lost.
        if name not in _PARTS and (near := _nearest(name, _PARTS)):
            raise _wrong(f"it has a part {_shown(name)}; is `{near}` meant?")
    return Manifest(
        files=_files(document.get("files", {})),
        inputs=_specs(document.get("inputs", []), "inputs"),
        outputs=_specs(document.get("outputs", []), "outputs"),
        serving=_serving(document.get("serving", {})),
    )


def document_of(manifest: Manifest) -> dict[str, Any]:
    """What `parse` reads back as the same manifest. Options that are as they would be anyway are left out."""
    usual = ServingOptions()
    serving = {name: getattr(manifest.serving, name) for name in _SERVING}
    return {
        "files": dict(manifest.files),
        "inputs": [_document_of(spec) for spec in manifest.inputs],
        "outputs": [_document_of(spec) for spec in manifest.outputs],
        "serving": {name: value for name, value in serving.items() if value != getattr(usual, name)},
    }


def check_signature(manifest: Manifest | None, servable: Servable) -> None:
    """Compare the tensors that a manifest states with those the model has. PermanentLoadError: wrong signature."""
    if manifest is None:
        return
    for what, stated, endpoints in (
        ("input", manifest.inputs, servable.inputs),
        ("output", manifest.outputs, servable.outputs),
    ):
        if stated:
            _must_match(what, stated, [endpoint.spec for endpoint in endpoints])


def fits(name: str) -> bool:
    """Whether a file of a version may be called so: relative, nothing hidden, UTF-8, within the lengths."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:  # a surrogate: bytes of the disk that are not UTF-8
        return False
    parts = encoded.split(b"/")
    return (
        len(encoded) <= PATH_BYTES
        and b"\0" not in encoded
        and all(0 < len(part) <= NAME_BYTES and not part.startswith(b".") for part in parts)
    )


def _must_match(what: str, stated: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    have = {spec.name: spec for spec in found}
    want = {spec.name: spec for spec in stated}
    for name in sorted(want.keys() ^ have.keys()):
        one, other = ("manifest", "model") if name in want else ("model", "manifest")
        raise PermanentLoadError(f"wrong signature: the {one} has an {what} {_shown(name)}, the {other} has none")
    for name, spec in want.items():
        actual = have[name]
        if (spec.datatype, spec.shape) != (actual.datatype, actual.shape):
            raise PermanentLoadError(
                f"wrong signature: the manifest says {what} {_shown(name)} is {_described(spec)}, "
                f"and in the model it is {_described(actual)}"
            )


def _files(files: Any) -> Mapping[str, str]:
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise _wrong(f"`files` is not a map of at most {MAX_FILES} names to digests")
    for name, digest in files.items():
        if not fits(name):
            raise _wrong(f"`files` has {_shown(name)}, which cannot be a file of a version")
        if name in (MANIFEST, SIGNATURE):
            raise _wrong(f"`files` has {name}, which cannot hold its own digest")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise _wrong(f"`files`: the digest of {_shown(name)} is not sha256 in hex")
    return {name: digest.lower() for name, digest in files.items()}


def _specs(specs: Any, part: str) -> tuple[TensorSpec, ...]:
    if not isinstance(specs, list) or len(specs) > _MAX_TENSORS:
        raise _wrong(f"`{part}` is not a list of at most {_MAX_TENSORS} tensors")
    checked = tuple(_spec(spec, part) for spec in specs)
    if len({spec.name for spec in checked}) < len(checked):
        raise _wrong(f"`{part}` has two tensors of one name")
    return checked


def _spec(spec: Any, part: str) -> TensorSpec:
    if not isinstance(spec, dict) or not isinstance(name := spec.get("name"), str):
        raise _wrong(f"`{part}` has a tensor without a name")
    datatype, shape = spec.get("datatype"), spec.get("shape")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise _wrong(f"`{part}`: the datatype of {_shown(name)} is none of {', '.join(DTYPES)}")
    if shape is None:
        return TensorSpec(name, datatype, None)
    if (
        not isinstance(shape, list)
        or not 0 < len(shape) <= _MAX_RANK
        or not all(type(dim) is int and -1 <= dim <= _MAX_DIMENSION for dim in shape)
    ):
        raise _wrong(f"`{part}`: the shape of {_shown(name)} is not 1 to {_MAX_RANK} dimensions, -1 for any")
    return TensorSpec(name, datatype, tuple(None if dim == -1 else dim for dim in shape))


def _serving(options: Any) -> ServingOptions:
    if not isinstance(options, dict):
        raise _wrong("`serving` is not a map")
    for name in options:
        if name not in _SERVING:
            near = _nearest(name, _SERVING)
            hint = f"is `{near}` meant?" if near else f"there are {', '.join(_SERVING)}"
            raise _wrong(f"`serving` has no option {_shown(name)}; {hint}")
    usual = ServingOptions()
    warmup_rows = _sizes(options, "warmup_rows", usual.warmup_rows)
    batch_buckets = _sizes(options, "batch_buckets", usual.batch_buckets)
    jit_compile = options.get("jit_compile")
    mixed_precision = options.get("mixed_precision")
    if not warmup_rows:
        raise _wrong("`serving`: warmup_rows is empty; leave it out for the usual ones")
    if list(batch_buckets) != sorted(set(batch_buckets)):
        raise _wrong("`serving`: batch_buckets are not ascending")
    if "jit_compile" in options and not isinstance(jit_compile, bool):
        raise _wrong("`serving`: jit_compile is neither true nor false")
    if "mixed_precision" in options and mixed_precision not in _PRECISIONS:
        raise _wrong(f"`serving`: mixed_precision is not one of {', '.join(_PRECISIONS)}")
    return ServingOptions(warmup_rows, batch_buckets, jit_compile, mixed_precision)


def _sizes(options: Mapping[str, Any], name: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    sizes = options.get(name, list(usual))
    if (
        not isinstance(sizes, list)
        or len(sizes) > _MAX_SIZES
        or not all(type(rows) is int and 1 <= rows <= _MAX_ROWS for rows in sizes)
    ):
        raise _wrong(f"`serving`: {name} is not a list of at most {_MAX_SIZES} numbers of rows, 1 to {_MAX_ROWS}")
    return tuple(sizes)


def _document_of(spec: TensorSpec) -> dict[str, Any]:
    shape = None if spec.shape is None else [-1 if dim is None else dim for dim in spec.shape]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape}


def _described(spec: TensorSpec) -> str:
    shape = "of any rank" if spec.shape is None else str([-1 if dim is None else dim for dim in spec.shape])
    return f"{spec.datatype} {shape}"


def _nearest(name: str, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name[:64].lower(), list(known), n=1, cutoff=0.7)
    return near[0] if near else None


def _shown(name: str) -> str:
    text = name if len(name) <= 64 else name[:61] + "..."
    return "'" + "".join(char if char.isprintable() else "?" for char in text) + "'"


def _wrong(what: str) -> DocumentError:
    return DocumentError(f"{MANIFEST}: {what}")
