"""A running consumer whose store is looked at when it is told to, and one whose store is a bucket that goes away."""

import contextlib
import json
import signal
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from consumer.local import LocalKafka
from consumer.models.digest import sha256
from tests.conftest import Topics
from tests.ledger import ANSWERS_S, Ledger
from tests.replica import Replica, options, replica, until
from tests.s3 import s3_server
from tests.stores import DOUBLE

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The digest of a file of no bytes."""


def served(process: Replica) -> int:
    version = process.events("served")[-1]["version"]
    assert isinstance(version, int)
    return version


def version_of(store: Path, own: Path, number: int) -> None:
    """The model again, under another number."""
    from tests.models_zoo import publish

    publish(store / DOUBLE / "1", own, DOUBLE, number)


def post(process: Replica, path: str) -> int:
    """The status of a POST."""
    [listening] = process.events("http listening")
    request = urllib.request.Request(f"http://127.0.0.1:{listening['port']}{path}", method="POST")
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=5) as response:
        return int(response.status)
    return 0


def test_the_store_is_looked_at_when_asked_for(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    own = tmp_path / "store"
    own.mkdir()
    version_of(store, own, 1)
    with replica(tmp_path / "log", **options(kafka, topics, own, PRELOAD=DOUBLE, STORE_POLL_S=3600)) as process:
        process.wait_ready()
        version_of(store, own, 2)
        process.process.send_signal(signal.SIGHUP)
        until(lambda: served(process) == 2, ANSWERS_S, "version 2 after SIGHUP")
        version_of(store, own, 3)
        assert post(process, "/models/refresh") == 202
        until(lambda: served(process) == 3, ANSWERS_S, "version 3 after the request")
        until(lambda: process.get("/models")[1]["models"][DOUBLE]["current"] == 3, ANSWERS_S, "the snapshot")
        assert process.stop() == 0


def test_a_version_whose_files_do_not_all_come_is_said_and_taken_once_they_have(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    own = tmp_path / "store"
    own.mkdir()
    version_of(store, own, 1)
    with replica(tmp_path / "log", **options(kafka, topics, own, PRELOAD=DOUBLE, STORE_POLL_S=3600)) as process:
        process.wait_ready()
        version_of(store, tmp_path / "elsewhere", 2)
        folder = tmp_path / "elsewhere" / DOUBLE / "2"
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        last = "assets/late.txt"
        digests = {name: sha256(folder / name) for name in names} | {last: EMPTY}
        (folder / "manifest.json").write_text(json.dumps({"files": digests}))
        folder.rename(own / DOUBLE / "2")
        process.process.send_signal(signal.SIGHUP)
        until(lambda: process.events("store problem"), ANSWERS_S, "the problem in the log, at the second look")
        [said] = process.events("store problem")
        assert last in said["problem"]
        until(
            lambda: process.get("/models")[1]["store_problems"] == [said["problem"]], ANSWERS_S, "the same in /models"
        )
        assert served(process) == 1
        (own / DOUBLE / "2" / last).parent.mkdir(exist_ok=True)
        (own / DOUBLE / "2" / last).touch()
        process.process.send_signal(signal.SIGHUP)
        until(lambda: served(process) == 2, ANSWERS_S, "version 2, complete")
        until(lambda: not process.get("/models")[1]["store_problems"], ANSWERS_S, "a store without problems")
        assert process.stop() == 0


def test_a_bucket_that_goes_away_and_comes_back(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(kafka, topics)
    files = [path for path in (store / DOUBLE / "1").rglob("*") if path.is_file()]
    with ExitStack() as stack:
        bucket = stack.enter_context(s3_server(tmp_path / "s3"))
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)

        def upload(number: int) -> None:
            for path in files:
                bucket.put(f"{DOUBLE}/{number}/{path.relative_to(store / DOUBLE / '1')}", path.read_bytes())

        upload(1)
        given = options(kafka, topics, tmp_path, PRELOAD=DOUBLE) | {"MODEL_STORE": "s3://models"}
        process = stack.enter_context(replica(tmp_path / "log", **given)).wait_ready()
        ledger.publish(100)
        ledger.settle()
        bucket.stop()
        until(lambda: process.events("store problem"), ANSWERS_S, "the store's absence in the log")
        ledger.publish(100)
        ledger.settle()  # what is loaded goes on
        bucket.start()
        upload(2)
        until(lambda: served(process) == 2, ANSWERS_S, "version 2 from the bucket")
        ledger.publish(100)
        ledger.settle()
        assert process.stop() == 0
