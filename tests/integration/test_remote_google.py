"""A store in Google Cloud Storage whose credentials are searched for where nobody answers."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from consumer.models.remote import objects, open_store
from consumer.models.store import Catalog
from tests.replica import until

SEARCH_S = 60.0
"""Google's library asks a silent metadata server three times, and then decides to go without credentials."""


class Listing(BaseHTTPRequestHandler):
    """The one answer of the JSON API that a look needs."""

    def do_GET(self) -> None:
        found = {"name": "digits/1/model.keras", "bucket": "models", "size": "5", "generation": "1"}
        body = json.dumps({"kind": "storage#objects", "items": [found]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of objects, and no credentials anywhere."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Listing) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        try:
            yield
        finally:
            server.shutdown()


@contextmanager
def silent_metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a machine of Google's cloud asks for credentials: here it takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{silent.getsockname()[1]}")
        yield


def test_a_search_for_credentials_that_nobody_answers(
    google: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("gs://models", tmp_path / "cache", 10**6)

    def look(seconds: float) -> Catalog:
        monkeypatch.setattr(objects, "LIST_S", seconds)
        return store.scan(None, time.time())

    def searches() -> int:
        return sum(thread.name == "store-client" for thread in threading.enumerate())

    with silent_metadata(monkeypatch):
        first, second = look(0.2), look(0.2)
        assert first.problem == "the model store cannot be read: it did not answer in time; what was known of it stays"
        assert second.problem == first.problem
        assert searches() == 1
    until(lambda: look(5).problem is None, SEARCH_S, "the objects")
    with silent_metadata(monkeypatch):
        assert list(look(5).models) == ["digits"]  # nothing is searched for again
