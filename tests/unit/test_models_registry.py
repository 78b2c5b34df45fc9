"""What a server that is not, or not quite, MLflow's can do to a store in a registry: nothing."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from consumer.models.remote import open_store
from consumer.models.store import Catalog

MODELS = "/api/2.0/mlflow/registered-models/search"
VERSIONS = "/api/2.0/mlflow/model-versions/search"
PLACE = "/api/2.0/mlflow/model-versions/get-download-uri"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
GOOD: dict[str, Any] = {
    MODELS: {"registered_models": [{"name": "digits", "aliases": [{"alias": "stable", "version": "1"}]}]},
    VERSIONS: {"model_versions": [{"name": "digits", "version": "1", "status": "READY", "source": "x"}]},
    PLACE: {"artifact_uri": "mlflow-artifacts:/0/m/artifacts"},
    FILES: {"files": [{"path": "model.keras", "file_size": "5"}]},
}


class Impostor(ThreadingHTTPServer):
    """Answers with what it was told to, and keeps what it was asked with."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: dict[str, Any] = dict(GOOD)
        self.asked: list[tuple[str, str | None]] = []

    def look(self, folder: Path) -> Catalog:
        store = open_store(f"mlflow+http://127.0.0.1:{self.server_port}", folder, 10**6)
        return store.scan(store.scan(None, time.time()), time.time())


class Answer(BaseHTTPRequestHandler):
    server: Impostor

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        answer = self.server.answers.get(path)
        if isinstance(answer, int):
            self.send_response(answer)
            self.send_header("Location", "/elsewhere")
            body = b""
        else:
            self.send_response(200 if answer is not None else 404)
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    with Impostor() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


def test_what_it_expects(impostor: Impostor, tmp_path: Path) -> None:
    catalog = impostor.look(tmp_path)
    assert list(catalog.models["digits"].versions) == [1]
    assert catalog.models["digits"].aliases == {"stable": 1}


@pytest.mark.parametrize("path", [MODELS, VERSIONS])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        {"registered_models": 1, "model_versions": [1]},
        302,
        404,
        500,
        403,
    ],
)
def test_a_registry_that_makes_no_sense_is_a_problem(
    impostor: Impostor, tmp_path: Path, path: str, answer: Any
) -> None:
    impostor.answers[path] = answer
    assert impostor.look(tmp_path).problem
    assert not [path for path, _ in impostor.asked if "elsewhere" in path]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (PLACE, {"artifact_uri": "file:///etc"}),
        (PLACE, {"artifact_uri": "mlflow-artifacts:/"}),
        (PLACE, {"artifact_uri": "mlflow-artifacts:/\ud800"}),
        (PLACE, 500),
        (FILES, 404),
        (FILES, {"files": [{"path": "\ud800", "is_dir": True}]}),
        (FILES, {"files": [{"path": "again", "is_dir": True}]}),  # a folder in itself without end
        (FILES, {"files": [{"path": f"{number}"} for number in range(10_001)]}),
        (VERSIONS, {"model_versions": [{"name": "digits", "version": "\ud800", "status": "READY"}]}),
        (VERSIONS, {"model_versions": [{"name": "digits", "version": "1", "status": "PENDING_REGISTRATION"}]}),
        (VERSIONS, {"model_versions": [{"name": "../digits", "version": "1", "status": "READY"}]}),
    ],
)
def test_a_version_that_makes_no_sense_is_none(impostor: Impostor, tmp_path: Path, path: str, answer: Any) -> None:
    impostor.answers[path] = answer
    catalog = impostor.look(tmp_path)
    assert catalog.problem is None
    assert not catalog.models["digits"].versions
    assert not list(tmp_path.rglob("*"))


def test_a_hostile_name_refuses_the_version(impostor: Impostor, tmp_path: Path) -> None:
    impostor.answers[FILES] = {"files": [{"path": "model.keras", "file_size": 1}, {"path": "../../x", "file_size": 1}]}
    assert impostor.look(tmp_path).models["digits"].versions[1].refusal


def test_an_alias_that_no_job_can_name_hides_only_itself(impostor: Impostor, tmp_path: Path) -> None:
    aliases: list[dict[str, Any]] = [
        {"alias": name, "version": "1"} for name in ("1", "a" * 200, "stable", "\x1b[31m", "\ud800")
    ]
    aliases += [{"alias": "broken", "version": "-1"}, {"alias": None, "version": 1}]
    impostor.answers[MODELS] = {"registered_models": [{"name": "digits", "aliases": aliases}]}
    catalog = impostor.look(tmp_path)
    assert catalog.models["digits"].aliases == {"stable": 1}
    assert list(catalog.models["digits"].versions) == [1]
    shown = f"'1', '{'a' * 64}', '\\x1b[31m', '\\ud800', 'broken'"
    assert catalog.problems == [f"digits: 6 of its aliases are left out, as no job can name them: {shown}"]
    impostor.answers[MODELS] = {"registered_models": [{"name": "digits", "aliases": aliases[:1]}]}
    catalog = impostor.look(tmp_path)
    assert catalog.models["digits"].aliases == {}
    assert catalog.problems == ["digits: 1 of its aliases are left out, as no job can name them: '1'"]
    impostor.answers[MODELS] = GOOD[MODELS]
    assert impostor.look(tmp_path).problems == []


@pytest.mark.parametrize("name", ["digits/1", "../digits", None, "digits\n"])
def test_the_aliases_of_a_name_that_is_none_are_not_a_file_of_another_model(
    impostor: Impostor, tmp_path: Path, name: str | None
) -> None:
    hostile = {"name": name, "aliases": [{"alias": "stable", "version": "1"}]}
    impostor.answers[MODELS] = {"registered_models": [hostile]}
    catalog = impostor.look(tmp_path)
    assert list(catalog.models) == ["digits"]
    assert catalog.models["digits"].versions[1].files == ("model.keras",)
    assert catalog.models["digits"].aliases == {}


def test_credentials_are_those_of_mlflow(impostor: Impostor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    impostor.look(tmp_path)
    assert {authorization for _, authorization in impostor.asked} == {"Bearer t"}
    impostor.asked.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p")
    impostor.look(tmp_path)
    assert {authorization for _, authorization in impostor.asked} == {"Basic dTpw"}
