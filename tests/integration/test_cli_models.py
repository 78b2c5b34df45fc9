"""The `models` and `bench` commands, each a process: what they do to a store, and what they say. No Kafka."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumer.demo.processes import environment
from consumer.models.events import FailedStatus, Snapshot, VersionStatus
from consumer.observe import http
from consumer.observe.metrics import Metrics
from consumer.observe.status import Status
from schemas.reasons import Failure, Reason, Stage
from tests import models_zoo as zoo
from tests.commands import loadonce
from tests.replica import until
from tests.s3 import s3_server

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pair.keras`, and ed25519 keys as openssl makes them: ours and theirs."""
    folder = tmp_path_factory.mktemp("sources")
    zoo.sequential().save(folder / "pair.keras")
    for name in ("ours", "theirs"):
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, timeout=60)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def added(sources: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A store with the signed version 1 of `pair`, and what adding it has said."""
    store = tmp_path_factory.mktemp("added") / "models"
    options = {"MODEL_STORE": str(store), "DISK_CACHE": str(cache)}
    command = ["add", "pair", str(sources / "pair.keras"), "--key", str(sources / "ours.pem"), "--json"]
    done = loadonce("models", *command, options=options)
    assert done.returncode == 0, done.stderr
    return store, json.loads(done.stdout)


@pytest.fixture
def store(added: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return shutil.copytree(added[0], tmp_path / "models")


@pytest.fixture
def run(store: Path, cache: Path) -> Run:
    def run(*command: str, **options: str) -> subprocess.CompletedProcess[str]:
        given = {"MODEL_STORE": str(store), "DISK_CACHE": str(cache), "HTTP_PORT": "0"} | options
        return loadonce(*command, options=given)

    return run


def last(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


def test_adding_says_how_fast_it_is_and_writes_it_down(added: tuple[Path, Any]) -> None:
    store, document = added
    assert (document["key"], document["version"], document["format"], document["signed"]) == ("pair", 1, "keras", True)
    assert [each["rows"] for each in document["latencies"]][:2] == [1, 8]
    assert all(each["rows_per_s"] > 0 for each in document["latencies"])
    manifest = json.loads((store / "pair" / "1" / "manifest.json").read_text())
    assert manifest["inputs"] == [{"name": "pair", "datatype": "FP32", "shape": [-1, 2]}]
    assert manifest["serving"].get("warmup_rows", [1, 2]) == document["serving"]["warmup_rows"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_adding_that_is_ended_leaves_nothing_in_the_store(
    sources: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    store = tmp_path / "models"
    store.mkdir()
    options = {"MODEL_STORE": str(store), "DISK_CACHE": str(tmp_path / "cache")}  # empty: opening takes seconds
    with subprocess.Popen(
        [sys.executable, "-m", "consumer", "models", "add", "pair", str(sources / "pair.keras")],
        env=environment(options),
        stderr=subprocess.PIPE,
        text=True,
    ) as adding:
        try:
            until(lambda: adding.poll() is not None or [*store.glob(".loadonce-*/new/manifest.json")], 50, "its copy")
            adding.send_signal(number)
            _, said = adding.communicate(timeout=60)
        finally:
            adding.kill()
    assert adding.returncode == code
    assert "Traceback" not in said
    assert list(store.iterdir()) == []


def test_what_was_signed_is_served_and_tampering_is_told(run: Run, store: Path, sources: Path) -> None:
    ours = {"MANIFEST_PUBLIC_KEY": str(sources / "ours.pub")}
    folder = store / "pair" / "1"

    good = run("models", "verify", **ours)
    assert good.returncode == 0, good.stderr
    assert "good" in good.stdout

    other = run("models", "verify", "--json", MANIFEST_PUBLIC_KEY=str(sources / "theirs.pub"))
    assert (other.returncode, json.loads(other.stdout)[0]["signature"]) == (1, "bad")
    assert "not the signature of this manifest" in last(other)

    shutil.copytree(folder, store / "other" / "1")
    moved = run("models", "verify", "other", **ours)
    assert (moved.returncode, "as other/1" in last(moved)) == (1, True)

    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"shape"', '"shape" '))
    changed = run("models", "verify", "pair", **ours)
    assert (changed.returncode, "not the signature of this manifest" in last(changed)) == (1, True)

    again = run("models", "sign", "pair", "--key", str(sources / "ours.pem"))
    assert (again.returncode, again.stdout.startswith("signed pair/1 (content ")) == (0, True), again.stderr
    assert run("models", "verify", "pair", **ours).returncode == 0

    with (folder / "model.keras").open("ab") as file:
        file.write(b"x")
    longer = run("models", "verify", "pair")
    assert (longer.returncode, "digest of model.keras" in last(longer)) == (1, True)
    refused = run("models", "sign", "pair", "--key", str(sources / "ours.pem"))
    assert (refused.returncode, "digest of model.keras" in last(refused)) == (65, True)


def test_a_manifest_can_be_required(run: Run, store: Path) -> None:
    for name in ("manifest.json", "manifest.json.sig"):
        (store / "pair" / "1" / name).unlink()

    assert run("models", "verify").returncode == 0
    required = run("models", "verify", REQUIRE_MANIFEST="true")

    assert required.returncode == 1
    assert "LOADONCE_REQUIRE_MANIFEST" in last(required)
    assert "loadonce models add" in last(required)


def test_the_list_says_what_is_served_and_why(run: Run, store: Path) -> None:
    shutil.copytree(store / "pair" / "1", store / "pair" / "2")
    (store / "pair" / "2" / "manifest.json.sig").unlink()
    assert run("models", "alias", "pair", "stable", "1").returncode == 0

    [first, second] = json.loads(run("models", "list", "--json").stdout)["models"]
    assert (first["is_signed"], second["is_signed"], first["running"]) == (True, False, None)
    assert first["content"] == second["content"]
    assert ("stable" in first["served"], "latest" in second["served"]) == (True, True)

    [first, second] = json.loads(run("models", "list", "--json", VERSION_POLICY="pair=stable").stdout)["models"]
    assert (bool(first["served"]), second["served"]) == (True, "")

    table = run("models", "list").stdout
    assert first["content"][:12] in table
    assert "signed" in table
    assert "running" not in table


def test_the_list_has_what_a_consumer_here_has_loaded(run: Run, store: Path) -> None:
    for number in ("2", "3"):
        shutil.copytree(store / "pair" / "1", store / "pair" / number)
    status = Status(time.monotonic, 60)
    status.models = Snapshot(
        models=tuple(
            VersionStatus("pair", number, f"pair/{number}", "keras", 1, in_use=0, current=number == 2, pinned=False)
            for number in (1, 2)
        ),
        failed=(FailedStatus("pair", 3, Failure(Reason.MODEL_CORRUPT, Stage.LOAD, "torn\x1b[2J", 1), True, None),),
    )
    with http.serving(status, Metrics(status), lambda: None, "127.0.0.1", 0) as port:
        document = json.loads(run("models", "list", "--json", HTTP_PORT=str(port)).stdout)
        table = run("models", "list", HTTP_PORT=str(port)).stdout

    assert document["consumer_answers"]
    assert [each["running"] for each in document["models"]] == [
        "loaded",
        "current",
        "failed: model-corrupt: torn\x1b[2J",
    ]
    assert "failed: model-corrupt: torn?[2J" in table


STRANGER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"models": [1]}')
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_another_program_at_that_port_does_not_matter(run: Run) -> None:
    with subprocess.Popen([sys.executable, "-c", STRANGER], stdout=subprocess.PIPE, text=True) as stranger:
        try:
            assert stranger.stdout is not None
            done = run("models", "list", "--json", HTTP_PORT=stranger.stdout.readline().strip())
        finally:
            stranger.kill()
    assert done.returncode == 0, done.stderr
    assert not json.loads(done.stdout)["consumer_answers"]


def test_bench_prints_rows_per_second(run: Run) -> None:
    done = run("bench", "model", "pair", "--rows", "1,16", "--seconds", "0.5", "--json")
    table = run("bench", "model", "pair", "--version", "1", "--rows", "4", "--seconds", "0.1")

    assert done.returncode == 0, done.stderr
    assert [each["rows"] for each in json.loads(done.stdout)["latencies"]] == [1, 16]
    assert table.returncode == 0, table.stderr
    assert "rows/s" in table.stdout


@pytest.mark.parametrize(
    ("command", "code", "named"),
    [
        (["models", "sign", "pair", "--key", "nowhere.pem"], 66, "nowhere.pem"),
        (["models", "sign", "pair", "--key", "PUBLIC"], 65, "openssl genpkey"),
        (["models", "sign", "pair", "7", "--key", "PRIVATE"], 66, "no version 7"),
        (["models", "sign", "pair"], 64, "--key"),
        (["models", "add", "pair", "SOURCE", "--buckets", "8,4"], 64, "--buckets 8,4"),
        (["bench", "model", "pair", "--rows", "0"], 64, "--rows 0"),
        (["bench", "model", "pair", "--version", "9"], 66, "no version 9"),
        (["bench", "model", "nobody"], 66, "nobody"),
    ],
)
def test_what_cannot_be_done(run: Run, sources: Path, command: list[str], code: int, named: str) -> None:
    files = {"PUBLIC": "ours.pub", "PRIVATE": "ours.pem", "SOURCE": "pair.keras"}
    done = run(*[str(sources / files[part]) if part in files else part for part in command])

    assert done.returncode == code
    assert named in last(done)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["remove", "pair", "1"], ["alias", "pair", "stable", "1"]])
def test_a_bucket_is_not_changed_from_here(run: Run, command: list[str]) -> None:
    done = run("models", *command, MODEL_STORE="s3://bucket/models")

    assert done.returncode == 65
    assert "LOADONCE_MODEL_STORE" in last(done)


def test_a_bucket_is_listed_verified_and_measured(
    run: Run, store: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for path in (store / "pair" / "1").iterdir():
            server.put(f"pair/1/{path.name}", path.read_bytes())
        bucket = {"MODEL_STORE": "s3://models", "DISK_CACHE": str(tmp_path / "cache")}

        listed = run("models", "list", "--json", **bucket)
        ours = run("models", "verify", "--json", MANIFEST_PUBLIC_KEY=str(sources / "ours.pub"), **bucket)
        theirs = run("models", "verify", MANIFEST_PUBLIC_KEY=str(sources / "theirs.pub"), **bucket)
        bench = run("bench", "model", "pair", "--rows", "1", "--seconds", "0.1", "--json", **bucket)

    assert listed.returncode == 0, listed.stderr
    [version] = json.loads(listed.stdout)["models"]
    assert (version["key"], version["version"], version["is_signed"]) == ("pair", 1, True)
    assert ours.returncode == 0, ours.stderr
    assert json.loads(ours.stdout)[0]["signature"] == "good"
    assert (theirs.returncode, "not the signature" in last(theirs)) == (1, True)
    assert bench.returncode == 0, bench.stderr


def test_a_key_that_is_none_is_an_option_that_cannot_work(run: Run, sources: Path) -> None:
    done = run("models", "verify", MANIFEST_PUBLIC_KEY=str(sources / "ours.pem"))

    assert done.returncode == 78
    assert "LOADONCE_MANIFEST_PUBLIC_KEY" in last(done)
    assert "private key" in last(done)
