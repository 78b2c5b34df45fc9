"""MLflow's model registry as names and bytes: `name/version/file`, and the aliases as a file of their own.

Its REST API (https://mlflow.org/docs/latest/api_reference/rest-api.html) through the standard library: the `mlflow`
package takes seconds to import, and its calls have no deadline. A registry's versions do not change, so the files of
each are listed once.
"""

import base64
import contextlib
import http.client
import json
import os
import posixpath
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from consumer.models.manifest import MAX_FILES
from consumer.models.remote.address import READ_S, AddressError
from consumer.models.remote.objects import DOCUMENTS_S, LIST_S, PIECE_BYTES, PIECE_S, Blob, UnavailableError
from consumer.models.store import ALIAS, ALIASES, MAX_DEPTH, MAX_MODELS, MODEL_FILES, NAME, VERSION

SCHEMES = ("mlflow+http", "mlflow+https")
ANSWER_BYTES = 32 * 1024**2
"""Of one page of models, versions or files."""
_API = "api/2.0/mlflow"
_ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"
_PROXIED = "mlflow-artifacts:/"
"""What the server hands out itself; other places of artifacts would need their own credentials here."""
_READ_BYTES = 1024**2
_SHOWN = 5
"""Aliases that a problem names."""


class Registry:
    """The `Objects` of the registry behind `mlflow+http(s)://host:port`.

    A model's folder is found in its artifacts by its file, however deep: `data/model.keras` of the Keras flavour,
    `tfmodel/saved_model.pb` of TensorFlow's. Credentials are MLflow's: MLFLOW_TRACKING_TOKEN, or
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """

    def __init__(self, url: str) -> None:
        """AddressError, which does not repeat what may be a secret."""
        try:
            parts = urlsplit(url if url.isprintable() else "//[")
            port = parts.port
        except ValueError:
            raise AddressError("the registry's URL cannot be read") from None
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise AddressError("the registry's URL must be mlflow+http://host:port or mlflow+https://host:port")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise AddressError(
                "the registry's URL has credentials, a query or a fragment; credentials belong in "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        self.address = f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
        self._base = self.address.removeprefix("mlflow+")
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._lock = threading.Lock()
        self._files: dict[str, dict[str, Blob]] = {}  # by `name/version`
        self._places: dict[str, str] = {}  # the artifact behind each object
        self._aliases: dict[str, bytes] = {}
        self.left_out: Mapping[str, str] = {}

    def list(self, below: str = "") -> dict[str, Blob]:
        """As `Objects.list`: two requests for 1000 models, and some for each version that is new."""
        deadline = time.monotonic() + LIST_S
        if below:
            key, _, number = below.partition("/")
            answer = self._get(f"{_API}/model-versions/get", {"name": key, "version": number}, deadline)
            found = _mapping(answer, "model_version")
            return self._files_of(found, deadline) if found.get("status") == "READY" else {}
        models = self._pages("registered-models", "registered_models", 1000, deadline)
        versions = self._pages("model-versions", "model_versions", 10_000, deadline)
        aliases, left_out = _aliases(models)
        listed = {name: _blob(len(text), text) for name, text in aliases.items()}
        known = {}
        for version in versions:
            key, number = _text(version, "name"), str(version.get("version"))
            if version.get("status") != "READY" or not NAME.fullmatch(key) or not VERSION.fullmatch(number):
                continue
            name = f"{key}/{number}"
            files = self._files.get(name)
            if files is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError):  # it is no version before its files can be listed
                    files = self._files_of(version, deadline)
            if files is not None:
                known[name] = files
                listed |= files
        self._files, self._aliases, self.left_out = known, aliases, left_out
        return listed

    def pieces(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """As `Objects.pieces`: one request; where the server knows no ranges, what was had comes again, unused."""
        with self._lock:
            place = self._places.get(name)
        if place is None:
            raise FileNotFoundError
        with self._open(f"{_ARTIFACTS}/{place}", {}, {"Range": f"bytes={start}-"}) as response:
            done = start if response.status == http.client.PARTIAL_CONTENT else 0
            while done < start:
                skipped = self._read(response, min(PIECE_BYTES, start - done), time.monotonic() + PIECE_S)
                if not skipped:
                    return
                done += len(skipped)
            while done < size:
                piece = self._read(response, min(PIECE_BYTES, size - done), time.monotonic() + PIECE_S)
                yield piece
                if not piece:
                    return
                done += len(piece)

    def read_all(self, sizes: Mapping[str, int]) -> dict[str, bytes | OSError]:
        """As `Objects.read_all`, one after the other; aliases came with the listing."""
        deadline = time.monotonic() + DOCUMENTS_S
        found: dict[str, bytes | OSError] = {}
        for name, size in sizes.items():
            try:
                if time.monotonic() > deadline:
                    raise UnavailableError("its turn comes with the next look")
                found[name] = self._aliases.get(name) or b"".join(self.pieces(name, 0, size))
            except OSError as error:
                found[name] = error
        return found

    def _files_of(self, version: Mapping[str, Any], deadline: float) -> dict[str, Blob]:
        """The files of the folder that holds the model; none where there is no such folder. OSError."""
        key, number = _text(version, "name"), str(version.get("version"))
        answer = self._get(f"{_API}/model-versions/get-download-uri", {"name": key, "version": number}, deadline)
        uri = str(answer.get("artifact_uri"))
        root = uri.removeprefix(_PROXIED).strip("/")
        if not uri.startswith(_PROXIED) or not root:
            return {}
        sizes = dict(self._walk(root, "", 0, deadline))
        models = [path for path in sizes if posixpath.basename(path) in MODEL_FILES]
        if not models:
            return {}
        top = posixpath.dirname(min(models, key=lambda path: (path.count("/"), path)))
        prefix = f"{top}/" if top else ""
        # The registry has no digests; what a version was made of is in these, and never changes.
        origin = f"{version.get('source')} {version.get('creation_timestamp')}".encode(errors="replace")
        inside = {f"{key}/{number}/{path.removeprefix(prefix)}": path for path in sizes if path.startswith(prefix)}
        with self._lock:
            self._places |= {name: f"{root}/{path}" for name, path in inside.items()}
        return {name: _blob(sizes[path], origin) for name, path in inside.items()}

    def _walk(self, root: str, folder: str, depth: int, deadline: float) -> Iterator[tuple[str, int]]:
        answer = self._get(_ARTIFACTS, {"path": f"{root}/{folder}".rstrip("/")}, deadline)
        entries = _list(answer, "files")
        if len(entries) > MAX_FILES or depth > MAX_DEPTH:
            raise UnavailableError("it has too many files or folders")
        for entry in entries:
            name = str(entry.get("path"))
            path = f"{folder}{name}"
            if entry.get("is_dir"):
                yield from self._walk(root, f"{path}/", depth + 1, deadline)
            else:
                yield path, _number(entry.get("file_size"))

    def _pages(self, what: str, part: str, size: int, deadline: float) -> Iterable[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        query = {"max_results": str(size)}
        while len(found) <= MAX_MODELS:
            answer = self._get(f"{_API}/{what}/search", query, deadline)
            found += _list(answer, part)
            if not (token := answer.get("next_page_token")):
                return found
            query["page_token"] = str(token)
        raise UnavailableError(f"it has more than {MAX_MODELS} {part.replace('_', ' ')}")

    def _get(self, path: str, query: Mapping[str, str], deadline: float) -> dict[str, Any]:
        with self._open(path, query, {}) as response:
            text = self._read(response, ANSWER_BYTES + 1, deadline)
        if len(text) > ANSWER_BYTES:
            raise UnavailableError(f"it answers with more than {ANSWER_BYTES} bytes")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise UnavailableError("its answer is not that of MLflow's registry")
        return answer

    def _open(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> http.client.HTTPResponse:
        try:
            url = f"{self._base}/{quote(path)}" + (f"?{urlencode(query)}" if query else "")
        except UnicodeEncodeError:  # JSON may hold halves of characters
            raise UnavailableError("it has a name that is not Unicode") from None
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - http or https: checked
        if authorization := _authorization():
            request.add_unredirected_header("Authorization", authorization)
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=READ_S)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refused(error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"it cannot be reached ({type(error).__name__})") from None
        return response

    @staticmethod
    def _read(response: http.client.HTTPResponse, limit: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        left = limit
        try:
            while left and (part := response.read1(min(left, _READ_BYTES))):
                parts.append(part)
                left -= len(part)
                if time.monotonic() > deadline:
                    raise UnavailableError("it did not answer in time")
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            raise UnavailableError(f"it stopped answering ({type(error).__name__})") from None
        return b"".join(parts)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **options: Any) -> None:
        """Nowhere: a redirect becomes an HTTPError."""


def _refused(status: int) -> OSError:
    if status == http.client.NOT_FOUND:
        return FileNotFoundError(2, "there is no such model, or this is no MLflow server")
    if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return UnavailableError("it refuses the credentials")
    return UnavailableError(f"it answers with HTTP status {status}")


def _authorization() -> str | None:
    """As MLflow's own client: a name and password first."""
    name, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if name and password:
        return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


def _aliases(models: Iterable[Mapping[str, Any]]) -> tuple[dict[str, bytes], dict[str, str]]:
    """The `aliases.json` of each model, and what is wrong with those left out: MLflow's may be nearly anything."""
    files, left_out = {}, {}
    for model in models:
        key = _text(model, "name")
        if not NAME.fullmatch(key):
            continue
        taken, others = {}, []
        for entry in _list(model, "aliases"):
            alias, version = _text(entry, "alias"), str(entry.get("version"))
            if ALIAS.fullmatch(alias) and VERSION.fullmatch(version):
                taken[alias] = int(version)
            else:
                others.append(alias)
        if taken:
            files[f"{key}/{ALIASES}"] = json.dumps(taken, sort_keys=True).encode()
        if others:
            shown = ", ".join(repr(alias[:64]) for alias in others[:_SHOWN])
            left_out[key] = f"{len(others)} of its aliases are left out, as no job can name them: {shown}"
    return files, left_out


def _list(answer: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    found = answer.get(part, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise UnavailableError("its answer is not that of MLflow's registry")
    return found


def _mapping(answer: Mapping[str, Any], part: str) -> dict[str, Any]:
    return _list({part: [answer.get(part)]}, part)[0]


def _text(answer: Mapping[str, Any], part: str) -> str:
    value = answer.get(part)
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    """Numbers of 64 bits are strings in protobuf's JSON."""
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 19 else 0


def _blob(nbytes: int, origin: bytes) -> Blob:
    return Blob(nbytes, int.from_bytes(blake2b(origin, digest_size=8).digest()) >> 1)
