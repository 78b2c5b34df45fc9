"""A store in a bucket, of a real S3-compatible server that is stopped and started."""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from consumer.models.errors import PassingLoadError, PermanentLoadError, StaleError, TooLargeError
from consumer.models.opening import Opener, OpenOptions
from consumer.models.remote import RemoteStore, downloads, objects
from consumer.models.remote import open_store as remote_store
from consumer.models.remote.objects import PIECE_BYTES
from consumer.models.store import Catalog, Located
from tests.replica import until
from tests.s3 import S3Server, s3_server
from tests.stores import DOUBLE

CACHE_BYTES = 200 * 1024**2
BIG = os.urandom(3 * PIECE_BYTES + 12_345)  # four pieces

Open = Callable[..., RemoteStore]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as environment, s3_server(tmp_path_factory.mktemp("s3")) as started:
        for name, value in started.environment.items():
            environment.setenv(name, value)
        yield started


@pytest.fixture
def bucket(server: S3Server) -> Iterator[S3Server]:
    yield server
    server.empty()


@pytest.fixture
def open_store(tmp_path: Path) -> Open:
    def opened(url: str = "s3://models", cache_bytes: int = CACHE_BYTES) -> RemoteStore:
        return remote_store(url, tmp_path / "cache", cache_bytes)

    return opened


def put(bucket: S3Server, folder: str, files: dict[str, bytes], stated: dict[str, bytes] | None = None) -> None:
    """Store a version with a manifest; `stated` are the contents that it has the digests of, where not those stored."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in (stated or files).items()}
    for name, content in files.items():
        bucket.put(f"{folder}/{name}", content)
    bucket.put(f"{folder}/manifest.json", json.dumps({"files": digests}).encode())


def look(store: RemoteStore, catalog: Catalog | None = None) -> Catalog:
    return store.scan(catalog, time.time())


def found(store: RemoteStore, key: str = "digits", version: int = 1) -> Located:
    return look(store, look(store)).models[key].versions[version]


def fetch(store: RemoteStore, located: Located) -> Located:
    return store.fetch(located, threading.Event())


def wait_for_pieces(cache: Path, count: int) -> None:
    """Until so many of the big file's pieces are on disk."""
    until(
        lambda: [path.stat().st_size for path in cache.rglob("model.keras")] == [count * PIECE_BYTES],
        30,
        f"{count} pieces",
    )


def ranges(bucket: S3Server, since: int, name: str) -> list[str]:
    return [request.range for request in bucket.requests(since) if request.path.endswith(name) and request.range]


# looking --------------------------------------------------------------------------------------------------------------


def test_with_a_manifest_a_version_is_complete_when_its_files_are_there(bucket: S3Server, open_store: Open) -> None:
    store = open_store()
    put(bucket, "digits/1", {"saved_model.pb": b"graph"}, {"saved_model.pb": b"graph", "variables/v": b"weights"})
    catalog = look(store)
    assert not catalog.models["digits"].versions
    assert catalog.settling
    catalog = look(store, catalog)
    assert not catalog.settling
    assert catalog.problems == [
        "digits: version 1 lacks 'variables/v', which its manifest names; is it still being copied?"
    ]
    bucket.put("digits/1/variables/other", b"x")
    catalog = look(store, catalog)
    assert catalog.settling
    assert catalog.problems == []
    bucket.delete("digits/1/variables/other")
    bucket.put("digits/1/variables/v", b"weights")
    catalog = look(store, catalog)
    assert catalog.models["digits"].versions[1].files == ("manifest.json", "saved_model.pb", "variables/v")
    assert not catalog.settling


def test_without_a_manifest_two_looks_must_see_the_same(bucket: S3Server, open_store: Open) -> None:
    store = open_store()
    bucket.put("digits/1/saved_model.pb", b"graph")
    catalog = look(store)
    bucket.put("digits/1/variables/v", b"weights")
    catalog = look(store, catalog)
    assert not catalog.models["digits"].versions
    assert look(store, catalog).models["digits"].versions[1].nbytes == len(b"graph" + b"weights")


def test_versions_and_aliases_come_move_and_go(bucket: S3Server, open_store: Open) -> None:
    store = open_store("s3://models/team/store")
    put(bucket, "team/store/digits/1", {"model.keras": b"one"})
    bucket.put("team/store/digits/aliases.json", b'{"stable": 1}')
    bucket.put("team/storehouse/wine/1/model.keras", b"another store")
    first = look(store)
    assert list(first.models) == ["digits"]
    assert first.models["digits"].aliases == {"stable": 1}
    put(bucket, "team/store/digits/2", {"model.keras": b"two"})
    bucket.put("team/store/digits/aliases.json", b'{"stable": 2}')
    second = look(store, first)
    assert second.models["digits"].newest_first == [2, 1]
    assert second.models["digits"].aliases == {"stable": 2}
    assert second.models["digits"].versions[1] is first.models["digits"].versions[1]
    bucket.put("team/store/digits/aliases.json", b"{")
    third = look(store, second)
    assert third.models["digits"].aliases == {"stable": 2}
    assert third.problems == ["digits: aliases.json is not JSON"]
    for name in ("1/model.keras", "1/manifest.json", "2/model.keras"):
        bucket.delete(f"team/store/digits/{name}")
    assert not look(store, third).models["digits"].versions


def test_a_look_at_what_has_not_changed_is_one_request(bucket: S3Server, open_store: Open) -> None:
    store = open_store()
    for version in range(1, 6):
        put(bucket, f"digits/{version}", {"model.keras": b"x"})
    catalog = look(store)
    since = len(bucket.requests())
    assert look(store, catalog) == catalog
    assert len(bucket.requests(since)) == 1


def test_broken_manifests_are_that_versions_problem(bucket: S3Server, open_store: Open) -> None:
    store = open_store()
    for version, manifest in enumerate((b"{", b"[]", b'{"files": {"../x": "00"}}', b" " * (1024**2 + 1)), start=1):
        bucket.put(f"digits/{version}/model.keras", b"x")
        bucket.put(f"digits/{version}/manifest.json", manifest)
    put(bucket, "digits/9", {"model.keras": b"x"})
    versions = look(store, look(store)).models["digits"].versions
    assert [versions[number].refusal is None for number in sorted(versions)] == [False, False, False, False, True]
    assert versions[4].refusal == "manifest.json has more than 1048576 bytes"
    with pytest.raises(PermanentLoadError, match=r"manifest\.json is not JSON"):
        fetch(store, versions[1])


@pytest.mark.parametrize(
    "name",
    [
        "../../../escaped",
        "//escaped",
        "a\\b",
        "a\x07b",
        "x" * 300,
        "model.keras/x",
        "model.keras?versionId=1",
        "a/../b",
    ],
)
def test_hostile_names_refuse_the_version_and_are_never_written(
    bucket: S3Server, open_store: Open, tmp_path: Path, name: str
) -> None:
    store = open_store()
    bucket.put("digits/1/model.keras", b"x")
    bucket.put(f"digits/1/{name}", b"hostile")
    put(bucket, "wine/1", {"model.keras": b"x"})
    catalog = look(store)
    located = catalog.models["digits"].versions[1]
    assert located.refusal
    with pytest.raises(PermanentLoadError):
        fetch(store, located)
    assert fetch(store, catalog.models["wine"].versions[1]).nbytes
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"hostile"]


def test_a_store_that_is_away_keeps_what_was_known(bucket: S3Server, open_store: Open) -> None:
    store = open_store()
    put(bucket, "digits/1", {"model.keras": b"x"})
    bucket.put("digits/2/model.keras", b"without a manifest")
    known = look(store)
    assert known.settling
    bucket.stop()
    away = look(store, known)
    assert away.problem is not None
    assert away.problem.startswith("the model store cannot be read: it cannot be reached")
    assert not away.settling
    assert away.models == known.models
    bucket.start()
    assert sorted(look(store, away).models["digits"].versions) == [1, 2]


def test_a_store_that_does_not_answer_is_given_up(
    bucket: S3Server, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    put(bucket, "digits/1", {"model.keras": b"x"})
    known = look(store)
    monkeypatch.setattr(objects, "LIST_S", 0.5)
    assert bucket.pid
    os.kill(bucket.pid, signal.SIGSTOP)
    try:
        away = look(store, known)
    finally:
        os.kill(bucket.pid, signal.SIGCONT)
    assert away.problem == "the model store cannot be read: it did not answer in time; what was known of it stays"
    assert away.models == known.models


def test_a_bucket_that_is_not_there_is_a_problem(bucket: S3Server, open_store: Open) -> None:
    problem = look(open_store("s3://nobodys")).problem
    assert problem is not None
    assert "no such bucket" in problem


def test_looking_again_sees_that_version_only(bucket: S3Server, open_store: Open) -> None:
    store = open_store()
    for version in (1, 10):
        put(bucket, f"digits/{version}", {"model.keras": b"x"})
    located = found(store)
    assert store.look_again(located) == located.fingerprint
    bucket.put("digits/10/model.keras", b"other")
    assert store.look_again(located) == located.fingerprint
    bucket.put("digits/1/model.keras", b"other")
    assert store.look_again(located) not in (None, located.fingerprint)
    bucket.delete("digits/1/model.keras")
    assert store.look_again(located) is None


# fetching -------------------------------------------------------------------------------------------------------------


def test_a_version_is_downloaded_once(bucket: S3Server, open_store: Open) -> None:
    files = {"saved_model.pb": b"graph", "variables/a": BIG, "variables/empty": b"", "assets/deep/er/vocabulary": b"w"}
    put(bucket, "digits/7", files)
    located = found(open_store(), version=7)
    copy = fetch(open_store(), located)
    assert {name: (copy.path / name).read_bytes() for name in files} == files
    assert (copy.path_in_store, copy.files, copy.manifest) == (
        "digits/7/saved_model.pb",
        located.files,
        located.manifest,
    )
    since = len(bucket.requests())
    assert fetch(open_store(), located) == copy  # another process, later
    assert not bucket.requests(since)


def test_an_interrupted_download_goes_on_where_it_was(bucket: S3Server, open_store: Open, tmp_path: Path) -> None:
    put(bucket, "digits/1", {"model.keras": BIG})
    located = found(open_store())
    bucket.stop()
    bucket.start(answers=3)  # the manifest again, and two of four pieces; then it hangs
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, open_store(), located)
        wait_for_pieces(tmp_path, 2)
        bucket.stop()
        with pytest.raises(PassingLoadError, match="cannot be reached"):
            first.result(60)
    with pytest.raises(PassingLoadError, match="cannot be reached"):
        fetch(open_store(), located)
    bucket.start()
    since = len(bucket.requests())
    assert (fetch(open_store(), located).path / "model.keras").read_bytes() == BIG
    assert ranges(bucket, since, "model.keras") == [
        f"bytes={2 * PIECE_BYTES}-{3 * PIECE_BYTES - 1}",
        f"bytes={3 * PIECE_BYTES}-{len(BIG) - 1}",
    ]


def test_a_cancelled_download_ends_and_is_gone_on_with(bucket: S3Server, open_store: Open, tmp_path: Path) -> None:
    bucket.put("digits/1/model.keras", BIG)
    located = found(open_store())
    bucket.stop()
    bucket.start(answers=1)
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(open_store().fetch, located, cancelled)
        wait_for_pieces(tmp_path, 1)
        cancelled.set()
        bucket.stop()  # the piece that hangs
        with pytest.raises(PassingLoadError):
            first.result(60)
    bucket.start()
    since = len(bucket.requests())
    with pytest.raises(PassingLoadError, match="cancelled"):
        open_store().fetch(located, cancelled)
    assert not ranges(bucket, since, "model.keras")
    fetch(open_store(), located)
    assert len(ranges(bucket, since, "model.keras")) == 3


def test_pieces_that_were_spoilt_on_disk_are_not_trusted(bucket: S3Server, open_store: Open, tmp_path: Path) -> None:
    put(bucket, "digits/1", {"model.keras": BIG})
    located = found(open_store())
    bucket.stop()
    bucket.start(answers=2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fetch, open_store(), located)
        wait_for_pieces(tmp_path, 1)
        bucket.stop()
        with pytest.raises(PassingLoadError):
            first.result(60)
    (piece,) = (tmp_path / "cache" / "pieces").rglob("model.keras")
    piece.write_bytes(b"\0" * piece.stat().st_size)
    bucket.start()
    with pytest.raises(PassingLoadError, match="interrupted"):
        fetch(open_store(), located)
    assert (fetch(open_store(), located).path / "model.keras").read_bytes() == BIG


def test_a_copy_that_was_spoilt_on_disk_is_downloaded_again(bucket: S3Server, open_store: Open) -> None:
    put(bucket, "digits/1", {"model.keras": b"right"})
    located = found(open_store())
    (fetch(open_store(), located).path / "model.keras").write_bytes(b"wrong")
    assert (fetch(open_store(), located).path / "model.keras").read_bytes() == b"right"


@pytest.mark.parametrize("content", [b"other", b"less", b"", b"more than before", None])
def test_an_object_that_changed_after_the_look_is_stale(
    bucket: S3Server, open_store: Open, content: bytes | None
) -> None:
    store = open_store()
    bucket.put("digits/1/model.keras", b"first")
    located = found(store)
    if content is None:
        bucket.delete("digits/1/model.keras")
    else:
        bucket.put("digits/1/model.keras", content)
    with pytest.raises(StaleError):
        fetch(store, located)
    if content is not None:
        assert (fetch(store, found(store)).path / "model.keras").read_bytes() == content


def test_what_is_not_what_its_manifest_says_is_refused(bucket: S3Server, open_store: Open, tmp_path: Path) -> None:
    put(bucket, "digits/1", {"model.keras": b"right"}, {"model.keras": b"wrong"})
    with pytest.raises(PermanentLoadError, match=r"digest of model\.keras"):
        fetch(open_store(), found(open_store()))
    assert not list((tmp_path / "cache").rglob("model.keras"))


def test_two_who_need_it_share_one_download(bucket: S3Server, open_store: Open) -> None:
    put(bucket, "digits/1", {"model.keras": BIG})
    located = found(open_store())
    since = len(bucket.requests())
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda _: fetch(open_store(), located), range(4)))
    assert len(set(map(id, copies))) == 4
    assert all(copy == copies[0] for copy in copies)
    assert len(ranges(bucket, since, "model.keras")) == 4


def test_the_least_recently_used_leaves_the_folder(
    bucket: S3Server, open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(cache_bytes=3_000)
    for version in range(1, 5):
        bucket.put(f"digits/{version}/model.keras", bytes([version]) * 1_000)
    bucket.put("digits/5/model.keras", b"5" * 3_001)
    versions = look(store, look(store)).models["digits"].versions
    with pytest.raises(TooLargeError):
        fetch(store, versions[5])
    kept = {number: fetch(store, versions[number]).path for number in (1, 2, 3)}
    with pytest.raises(PassingLoadError, match="no room"):  # all of them were used just now
        fetch(store, versions[4])
    assert all(path.exists() for path in kept.values())
    monkeypatch.setattr(downloads, "GRACE_S", 0.0)
    for age, number in enumerate((1, 3, 2)):  # 2 is the one that was not used for longest
        entry = kept[number].parent.parent
        os.utime(entry, (time.time() - 100 * (age + 1),) * 2)
    fetch(store, versions[4])
    assert [number for number in kept if kept[number].exists()] == [1, 3]


def test_a_real_model_comes_from_a_bucket(bucket: S3Server, open_store: Open, store: Path, tmp_path: Path) -> None:
    files = [path for path in (store / DOUBLE / "1").rglob("*") if path.is_file()]
    put(bucket, "twice/3", {str(path.relative_to(store / DOUBLE / "1")): path.read_bytes() for path in files})
    located = found(open_store(), "twice", 3)
    opener = Opener(OpenOptions(frozenset(), max_bytes=10**9), tmp_path / "opened", 10**9)
    try:
        loaded = opener.open(fetch(open_store(), located), threading.Event())
        answer = loaded.predict({"x": np.array([[1.0, 2.0]], np.float32)})
        assert answer["y"].tolist() == [[2.0, 4.0]]
        assert (loaded.key, loaded.version) == ("twice", 3)
        loaded.close()
    finally:
        opener.close(10)


def test_what_it_says_holds_no_secret(bucket: S3Server, open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrHidden")
    store = open_store()
    put(bucket, "digits/1", {"model.keras": b"x"})
    located = found(store)
    bucket.stop()
    said = [look(store).problem or ""]
    with pytest.raises(PassingLoadError) as refused:
        fetch(store, located)
    cause: BaseException | None = refused.value
    while cause is not None:
        said.append(repr(cause))
        cause = cause.__cause__
    assert not [text for text in said if "wJalrHidden" in text or "testing" in text or str(bucket.port) in text]
