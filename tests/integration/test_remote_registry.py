"""A store in MLflow's registry, of a real MLflow server with a database and its own artifacts."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumer.models.errors import PassingLoadError
from consumer.models.remote import AddressError, open_store
from consumer.models.store import Catalog
from tests.replica import until

pytestmark = pytest.mark.timeout(500)

START_S = 240.0
"""Importing MLflow and making its database takes a minute on a busy machine."""
BIG = os.urandom(20_000_000)


class Mlflow:
    """A server whose registry is filled through its own REST API."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder / 'registry.db'}"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        log = self._folder / "log.txt"
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, log.read_text("utf-8", "replace")[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(response.status == 200)
            return False

        until(answers, START_S, "an MLflow server")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def post(self, what: str, **body: Any) -> dict[str, Any]:
        return self._send("POST", f"api/2.0/mlflow/{what}", json.dumps(body).encode())

    def register(self, name: str, files: dict[str, bytes]) -> int:
        """Upload the artifacts and make them the next version of a model."""
        run = self.post("runs/create", experiment_id="0")["run"]["info"]
        source = f"{run['artifact_uri']}/model"
        root = source.removeprefix("mlflow-artifacts:/")
        for file, content in files.items():
            self._send("PUT", f"api/2.0/mlflow-artifacts/artifacts/{root}/{file}", content)
        found = self.post("model-versions/create", name=name, source=source, run_id=run["run_id"])
        return int(found["model_version"]["version"])

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self.post("registered-models/alias", name=name, alias=alias, version=str(version))

    def _send(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/{path}", data=body, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.loads(response.read() or b"{}")
            assert isinstance(answer, dict)
            return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    started = Mlflow(tmp_path_factory.mktemp("mlflow"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


def test_a_registry_is_a_store(server: Mlflow, tmp_path: Path) -> None:
    store = open_store(f"mlflow+{server.url}", tmp_path, 10**9)

    def look(catalog: Catalog | None) -> Catalog:
        return store.scan(catalog, time.time())

    assert look(None) == Catalog({})
    for name in ("digits", "wine", "a name that no job can have"):
        server.post("registered-models/create", name=name)
    keras = {"MLmodel": b"flavors:", "data/model.keras": BIG, "data/keras_module.txt": b"keras", "conda.yaml": b""}
    graph = {"MLmodel": b"flavors:", "tfmodel/saved_model.pb": b"graph", "tfmodel/variables/variables.index": b"i"}
    assert [server.register("digits", keras), server.register("wine", graph)] == [1, 1]
    server.register("wine", {"MLmodel": b"flavors:", "model.pkl": b"of another library"})
    server.set_alias("digits", "stable", 1)
    first = look(look(None))
    assert {key: list(entry.versions) for key, entry in first.models.items()} == {"digits": [1], "wine": [1]}
    assert first.models["digits"].aliases == {"stable": 1}
    assert not first.problems

    copy = store.fetch(first.models["digits"].versions[1], threading.Event())
    assert copy.path_in_store == "digits/1/model.keras"
    assert (copy.path / "model.keras").read_bytes() == BIG
    copy = store.fetch(first.models["wine"].versions[1], threading.Event())
    assert copy.files == ("saved_model.pb", "variables/variables.index")
    assert (copy.path / "variables/variables.index").read_bytes() == b"i"

    # what an interrupted download has left is gone on with
    assert server.register("digits", keras | {"data/model.keras": BIG[::-1]}) == 2
    server.set_alias("digits", "stable", 2)
    server.set_alias("digits", "2nd", 2)  # jobs cannot name it
    second = look(look(first))
    assert second.problems == ["digits: 1 of its aliases are left out, as no job can name them: '2nd'"]
    assert second.models["digits"].newest_first == [2, 1]
    assert second.models["digits"].aliases == {"stable": 2}
    located = second.models["digits"].versions[2]
    server.stop()
    with pytest.raises(PassingLoadError, match="cannot be reached"):
        store.fetch(located, threading.Event())
    away = look(second)
    assert away.problem is not None
    assert away.models == second.models
    server.start()
    (pieces,) = (tmp_path / "pieces").iterdir()
    had = pieces / "digits" / "2" / "model.keras"
    had.parent.mkdir(parents=True, exist_ok=True)
    had.write_bytes(BIG[::-1][:8_388_608] + b"half of a piece")
    copy = store.fetch(located, threading.Event())
    assert (copy.path / "model.keras").read_bytes() == BIG[::-1]

    server.post("registered-models/create", name="late")
    server.register("late", keras)
    assert look(look(away)).models["late"].versions[1].nbytes == len(BIG) + len(b"keras")


@pytest.mark.parametrize(
    "url",
    [
        "mlflow+http://user:hidden@host",
        "mlflow+http://host?token=hidden",
        "mlflow+http://host#hidden",
        "mlflow+http:///hidden",
        "mlflow+http://host:hidden",
        "mlflow+ftp://hidden",
    ],
)
def test_urls_that_are_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(AddressError) as refused:
        open_store(url, tmp_path, 1)
    assert "hidden" not in str(refused.value)
