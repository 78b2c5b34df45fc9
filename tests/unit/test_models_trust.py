"""What must be right about a version before it is opened: real files, real keys, every way to tamper with them."""

import base64
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from consumer.models.digest import sha256
from consumer.models.errors import PermanentLoadError, StaleError
from consumer.models.store import Located, locate, scan
from consumer.models.trust import KeyFileError, load_private_key, load_public_key, sign, verify

OURS = Ed25519PrivateKey.generate()
THEIRS = Ed25519PrivateKey.generate()
PUBLIC = OURS.public_key().public_bytes_raw()


def graph(store: Path, key: str = "m", version: int = 1) -> Path:
    """A SavedModel's files, as far as digests go."""
    folder = store / key / str(version)
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    for name in ("saved_model.pb", "variables/variables.index", "assets/words.txt"):
        (folder / name).write_bytes(name.encode())
    return folder


def state(folder: Path) -> Path:
    """Write the manifest of what is in the folder."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    text = json.dumps({"files": {name: sha256(folder / name) for name in names}})
    (folder / "manifest.json").write_text(text)
    return folder


def put_signature(folder: Path, key: Ed25519PrivateKey = OURS, name: str = "m", version: int = 1) -> Path:
    text = sign((folder / "manifest.json").read_bytes(), name, version, key.private_bytes_raw())
    (folder / "manifest.json.sig").write_text(text)
    return folder


def signed(store: Path) -> Path:
    return put_signature(state(graph(store)))


def look(store: Path, key: str = "m", version: int = 1) -> Located:
    return scan(store, None, time.time() + 60).models[key].versions[version]


def check(located: Located, *, require: bool = False, public_key: bytes | None = None) -> str:
    return verify(located, require_manifest=require, public_key=public_key)


# digests -----------------------------------------------------------------------------------------------------------


def test_what_is_as_its_manifest_says_is_good_with_and_without_a_key(tmp_path: Path) -> None:
    signed(tmp_path)
    located = look(tmp_path)
    assert check(located) == check(located, require=True) == check(located, require=True, public_key=PUBLIC)


def test_the_content_id_is_that_of_the_files_that_are_opened(tmp_path: Path) -> None:
    graph(tmp_path)
    bare = check(look(tmp_path))
    assert len(bare) == 64
    assert check(look(signed(tmp_path / "signed").parents[1])) == bare  # neither manifest nor signature is in it
    renamed = graph(tmp_path / "renamed")
    (renamed / "assets" / "words.txt").rename(renamed / "assets" / "other.txt")
    assert check(look(tmp_path / "renamed")) != bare
    changed = graph(tmp_path / "changed")
    (changed / "variables" / "variables.index").write_bytes(b"other")
    assert check(look(tmp_path / "changed")) != bare


def test_beside_a_keras_file_nothing_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.keras").write_bytes(b"model")
    state(folder)
    before = check(look(tmp_path))
    (folder / "README").write_text("notes")
    assert check(look(tmp_path)) == before


def change(folder: Path) -> None:
    (folder / "variables" / "variables.index").write_bytes(b"Variables/variables.index")


def add(folder: Path) -> None:
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(b"x")


def add_outside_of_the_usual_folders(folder: Path) -> None:
    (folder / "fingerprint.pb").write_bytes(b"x")


def swap(folder: Path) -> None:
    one, other = folder / "saved_model.pb", folder / "assets" / "words.txt"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize(
    ("tamper", "why"),
    [
        (change, "the digest of variables.index is not the manifest's"),
        (add, "the manifest has no digest of variables.data-00000-of-00001"),
        (add_outside_of_the_usual_folders, "the manifest has no digest of fingerprint.pb"),
        (swap, "the digest of (saved_model.pb|words.txt) is not the manifest's"),
    ],
)
def test_files_that_are_not_as_the_manifest_says(
    tmp_path: Path, tamper: Callable[[Path], None], why: str, with_key: bool
) -> None:
    tamper(signed(tmp_path))
    with pytest.raises(PermanentLoadError, match=why):
        check(look(tmp_path), public_key=PUBLIC if with_key else None)


def test_a_version_that_lacks_a_file_is_not_taken_at_all(tmp_path: Path) -> None:
    folder = signed(tmp_path)
    whole = look(tmp_path)
    (folder / "assets" / "words.txt").unlink()
    assert scan(tmp_path, None, time.time() + 60).models["m"].versions == {}
    with pytest.raises(FileNotFoundError):  # it went after the look: opening will look again
        check(whole)
    alone = locate(folder, "m", 1)
    assert alone is not None
    with pytest.raises(PermanentLoadError, match=r"words\.txt, which the manifest names, is not there"):
        check(alone)


def outcome(task: Callable[[], object]) -> object:
    """What it gives or raises, on a thread that is left behind if it waits for ever: then `queue.Empty`."""
    answers: SimpleQueue[object] = SimpleQueue()

    def run() -> None:
        try:
            answers.put(task())
        except Exception as error:  # noqa: BLE001 - it is the answer
            answers.put(error)

    threading.Thread(target=run, daemon=True).start()
    return answers.get(timeout=30)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("variables/variables.index", "not a regular file"),
        ("manifest.json", "manifest.json is not a file"),
        ("manifest.json.sig", "manifest.json.sig is not a file"),
    ],
)
def test_a_pipe_that_takes_the_place_of_a_file_after_the_look_is_not_waited_for(
    tmp_path: Path, name: str, why: str
) -> None:
    folder = signed(tmp_path)
    located = look(tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)  # opening it would wait for one who writes
    error = outcome(lambda: check(located, public_key=PUBLIC))
    assert isinstance(error, PermanentLoadError if name.startswith("manifest") else OSError)
    assert why in str(error)


# a manifest is required --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "{}", '{"files": {}}'])
@pytest.mark.parametrize(
    ("require", "key", "option"),
    [(True, None, "LOADONCE_REQUIRE_MANIFEST"), (False, PUBLIC, "LOADONCE_MANIFEST_PUBLIC_KEY")],
    ids=["required", "signed"],
)
def test_without_digests_it_is_refused(
    tmp_path: Path, text: str | None, require: bool, key: bytes | None, option: str
) -> None:
    folder = graph(tmp_path)
    if text is not None:
        (folder / "manifest.json").write_text(text)
        put_signature(folder)
    with pytest.raises(PermanentLoadError, match=f"{option} is set.*loadonce models add"):
        check(look(tmp_path), require=require, public_key=key)
    assert check(look(tmp_path))


# signatures --------------------------------------------------------------------------------------------------------


def test_a_manifest_that_nobody_has_signed(tmp_path: Path) -> None:
    state(graph(tmp_path))
    with pytest.raises(PermanentLoadError, match=r"no manifest\.json\.sig.*loadonce models sign"):
        check(look(tmp_path), public_key=PUBLIC)
    assert check(look(tmp_path), require=True)


def test_the_signature_of_another_key(tmp_path: Path) -> None:
    put_signature(state(graph(tmp_path)), THEIRS)
    with pytest.raises(PermanentLoadError, match="not the signature of this manifest"):
        check(look(tmp_path), public_key=PUBLIC)


def test_a_manifest_that_was_changed_after_it_was_signed(tmp_path: Path) -> None:
    folder = signed(tmp_path)
    (folder / "saved_model.pb").write_bytes(b"evil")
    (folder / "manifest.json.sig").rename(tmp_path / "kept")
    (folder / "manifest.json").unlink()
    state(folder)  # its digests are right again
    (tmp_path / "kept").rename(folder / "manifest.json.sig")
    assert check(look(tmp_path), require=True)
    with pytest.raises(PermanentLoadError, match="not the signature of this manifest"):
        check(look(tmp_path), public_key=PUBLIC)


def test_one_byte_of_the_manifest_that_means_nothing(tmp_path: Path) -> None:
    path = signed(tmp_path) / "manifest.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(PermanentLoadError, match="not the signature of this manifest"):
        check(look(tmp_path), public_key=PUBLIC)


@pytest.mark.parametrize(("key", "version"), [("other", 1), ("m", 2)])
def test_a_signed_version_that_was_moved_to_another_place(tmp_path: Path, key: str, version: int) -> None:
    shutil.copytree(signed(tmp_path), tmp_path / key / str(version))
    assert check(look(tmp_path), public_key=PUBLIC)
    with pytest.raises(PermanentLoadError, match=f"as {key}/{version}"):
        check(look(tmp_path, key, version), public_key=PUBLIC)


def test_a_name_and_a_version_are_not_confused_with_each_other(tmp_path: Path) -> None:
    put_signature(state(graph(tmp_path, "m1", 2)), name="m", version=12)
    with pytest.raises(PermanentLoadError):
        check(look(tmp_path, "m1", 2), public_key=PUBLIC)


def test_what_is_signed_is_as_the_contract_says(tmp_path: Path) -> None:
    folder = put_signature(state(graph(tmp_path, "m", 1)))
    signature = base64.b64decode((folder / "manifest.json.sig").read_text().strip(), validate=True)
    signed_bytes = b"loadonce manifest v1\nm/1\n" + (folder / "manifest.json").read_bytes()
    OURS.public_key().verify(signature, signed_bytes)  # raises where it is another's


def test_a_signature_of_the_bare_manifest_does_not_count(tmp_path: Path) -> None:
    folder = state(graph(tmp_path))
    plain = OURS.sign((folder / "manifest.json").read_bytes())
    (folder / "manifest.json.sig").write_bytes(base64.b64encode(plain))
    with pytest.raises(PermanentLoadError, match="not the signature"):
        check(look(tmp_path), public_key=PUBLIC)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not the signature"),
        (b"AAAA", "not the signature"),
        (b"\xff\xfe not base64", "is not base64"),
        (b"A" * 10_000, "more than 1024 bytes"),
    ],
)
def test_what_is_no_signature(tmp_path: Path, content: bytes, why: str) -> None:
    (state(graph(tmp_path)) / "manifest.json.sig").write_bytes(content)
    with pytest.raises(PermanentLoadError, match=why):
        check(look(tmp_path), public_key=PUBLIC)


def test_a_manifest_that_was_replaced_by_a_signed_one_since_the_look(tmp_path: Path) -> None:
    folder = state(graph(tmp_path))
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"serving": {"jit_compile": True}}))
    seen = look(tmp_path)
    path.write_text(json.dumps(document))
    put_signature(folder)
    with pytest.raises(StaleError):
        check(Located(seen.key, 1, seen.path, look(tmp_path).files, seen.fingerprint, seen.manifest), public_key=PUBLIC)


# keys --------------------------------------------------------------------------------------------------------------


def pem(key: Ed25519PrivateKey, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_keys_as_openssl_writes_them_and_in_base64(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(pem(OURS))
    assert load_private_key(file) == OURS.private_bytes_raw()
    file.write_bytes(OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert load_public_key(file) == PUBLIC
    file.write_bytes(base64.b64encode(PUBLIC) + b"\n")
    assert load_public_key(file) == PUBLIC


def test_files_that_hold_no_key(tmp_path: Path) -> None:
    other = generate_private_key(65537, 2048)
    other_private = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    other_public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file = tmp_path / "key"
    for content, why in (
        (pem(OURS), "private key; give its public one"),
        (other_public, "another kind of key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key"),
        (b"", "neither"),
        (base64.b64encode(PUBLIC[:31]), "neither"),
        (b"\xff" * 40, "neither"),
        (b"A" * 100_000, "not a key's file"),
    ):
        file.write_bytes(content)
        with pytest.raises(KeyFileError, match=why):
            load_public_key(file)
    for content, why in (
        (pem(OURS, b"secret"), "without a password"),
        (other_private, "another kind of key"),
        (other_public, "openssl genpkey -algorithm ed25519"),
        (b"", "openssl genpkey -algorithm ed25519"),
    ):
        file.write_bytes(content)
        with pytest.raises(KeyFileError, match=why):
            load_private_key(file)
    with pytest.raises(FileNotFoundError):
        load_public_key(tmp_path / "none")
