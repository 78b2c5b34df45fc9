"""What a helper is asked and answers: lines of JSON.

The helper believes what it is asked. Its answers are checked as a stranger's: what it opens may have taken it over.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from consumer.models.engine import Threads
from consumer.models.errors import LoadError, one_line
from consumer.models.exporting import ExportOptions
from consumer.models.servable import Endpoint, Format, Servable, ServingOptions
from consumer.models.signature import TensorSpec, signature_of
from consumer.models.store import MODEL_FILES, Located
from schemas.tensor import DTYPES

LINE_BYTES = 4 * 1024 * 1024
"""The longest line."""
MAX_TENSORS = 1024
"""Inputs, and outputs."""
MAX_RANK = 254
"""tensorflow/core/framework/tensor_shape.h"""
NAME_CHARS = 1024

_TENSOR = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]{0,1023}:[0-9]{1,5}")
"""An operation's name as TensorFlow's graphs allow it, and the number of its output."""

Kind = Literal["permanent", "passing", "too-large"]
_KINDS: tuple[Kind, ...] = ("permanent", "passing", "too-large")


class WireError(Exception):
    """A line that no helper in its right mind writes."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Open this version; what has to be written for it goes to `target`, which is yet to be made."""

    located: Located
    target: Path
    export: ExportOptions
    serving: ServingOptions
    threads: Threads
    memory_bytes: int | None
    """Beyond what the helper needs for itself; None: no limit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """TensorFlow is imported."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The version was opened and called. `document` is what `servable` checks."""

    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The version cannot be opened."""

    kind: Kind
    message: str


Answer = Ready | Opened | Failed


def request_line(request: OpenRequest) -> bytes:
    """One line, its end included."""
    return _line(
        {
            "key": request.located.key,
            "version": request.located.version,
            "path": str(request.located.path),
            "files": request.located.files,
            "target": str(request.target),
            "export": asdict(request.export),
            "serving": asdict(request.serving),
            "threads": asdict(request.threads),
            "memory_bytes": request.memory_bytes,
        }
    )


def read_request(line: bytes) -> OpenRequest:
    """What `request_line` has written. The version comes without fingerprint and manifest, which have been checked."""
    asked = json.loads(line)
    files = tuple(asked["files"])
    export = {**asked["export"], "custom_objects": tuple(asked["export"]["custom_objects"])}
    serving: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in asked["serving"].items()
    }
    return OpenRequest(
        Located(asked["key"], asked["version"], Path(asked["path"]), files, (), None),
        Path(asked["target"]),
        ExportOptions(**export),
        ServingOptions(**serving),
        Threads(**asked["threads"]),
        asked["memory_bytes"],
    )


def answer_line(answer: Answer) -> bytes:
    """One line, its end included."""
    match answer:
        case Ready():
            return b'{"answer":"ready"}\n'
        case Opened(document):
            return _line({"answer": "opened", "servable": dict(document)})
        case Failed(kind, message):
            return _line({"answer": "failed", "kind": kind, "message": message})


def read_answer(line: bytes) -> Answer:
    """One line of at most `LINE_BYTES`. WireError."""
    answer = _parsed(line)
    match answer:
        case {"answer": "ready"}:
            return Ready()
        case {"answer": "opened", "servable": dict(document)}:
            return Opened(document)
        case {"answer": "failed", "kind": str(kind), "message": str(message)} if kind in _KINDS:
            return Failed(kind, one_line(message))
    raise WireError("it answers something else than was asked")


def document_of(servable: Servable, target: Path) -> dict[str, Any]:
    """A servable without what depends on where it is; `target` is the folder that it was to be written to."""
    return {
        "in_place": servable.folder != target,
        "format": servable.format,
        "inputs": [_endpoint_document(endpoint) for endpoint in servable.inputs],
        "outputs": [_endpoint_document(endpoint) for endpoint in servable.outputs],
        "weights_bytes": servable.weights_bytes,
    }


def servable(document: Mapping[str, Any], located: Located, target: Path, serving: ServingOptions) -> Servable:
    """Check what `document_of` should have made for this version. WireError."""
    if document.keys() != {"in_place", "format", "inputs", "outputs", "weights_bytes"}:
        raise WireError("a servable has other parts")
    format_: Format = document["format"]
    in_place, weights_bytes = document["in_place"], document["weights_bytes"]
    if format_ != MODEL_FILES.get(located.model_file):
        raise WireError("it is of another format than its file")
    if type(in_place) is not bool or (in_place and format_ != "savedmodel"):
        raise WireError("only a SavedModel can stay where it is")
    if type(weights_bytes) is not int or not 0 <= weights_bytes < 2**63:
        raise WireError("its weights have no size")
    inputs, outputs = _endpoints(document["inputs"]), _endpoints(document["outputs"])
    try:
        signature = signature_of([endpoint.spec for endpoint in inputs], [endpoint.spec for endpoint in outputs])
    except LoadError as error:
        raise WireError(str(error)) from None
    folder = located.path if in_place else target
    return Servable(folder, format_, inputs, outputs, signature.rows, weights_bytes, serving=serving)


def servable_line(document: Mapping[str, Any]) -> bytes:
    """A document to be kept."""
    return _line(document)


def read_servable(line: bytes) -> Mapping[str, Any]:
    """A document that was kept, yet to be checked. WireError."""
    document = _parsed(line)
    if not isinstance(document, dict):
        raise WireError("a servable is a map")
    return document


def _endpoints(documents: Any) -> tuple[Endpoint, ...]:
    if not isinstance(documents, list) or not 0 < len(documents) <= MAX_TENSORS:
        raise WireError(f"not 1 to {MAX_TENSORS} tensors")
    return tuple(_endpoint(document) for document in documents)


def _endpoint(document: Any) -> Endpoint:
    match document:
        case {"name": str(name), "datatype": str(datatype), "shape": shape, "tensor": str(tensor), **rest} if not rest:
            pass
        case _:
            raise WireError("a tensor has other parts")
    if not 0 < len(name) <= NAME_CHARS or not _is_text(name):
        raise WireError("a tensor's name is empty, too long or no text")
    if datatype not in DTYPES:
        raise WireError("a tensor has a datatype that no job can carry")
    if not _TENSOR.fullmatch(tensor):
        raise WireError("a tensor of the graph is called as none can be")
    return Endpoint(TensorSpec(name, datatype, _shape(shape)), tensor)


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    if shape is None:
        return None
    if not isinstance(shape, list) or not 0 < len(shape) <= MAX_RANK:
        raise WireError("a tensor has no rank")
    if not all(dim is None or (type(dim) is int and 0 <= dim < 2**63) for dim in shape):
        raise WireError("a tensor has a dimension that is none")
    return tuple(shape)


def _endpoint_document(endpoint: Endpoint) -> dict[str, Any]:
    spec = endpoint.spec
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape, "tensor": endpoint.tensor}


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    if len(line) > LINE_BYTES:
        raise WireError(f"a line has more than {LINE_BYTES} bytes")
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise WireError("a line is not JSON") from None
