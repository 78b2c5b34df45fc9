"""What a look at a store sees: names, versions, aliases, and what it must not touch. No TensorFlow."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from consumer.models import documents
from consumer.models import store as store_module
from consumer.models.manifest import MANIFEST_BYTES
from consumer.models.store import ALIASES_BYTES, Catalog, LocalStore, Located, Store, look_again, scan


def version(store: Path, key: str, number: int | str, content: bytes = b"model", name: str = "model.keras") -> Path:
    folder = store / key / str(number)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return folder


def later() -> float:
    """A time at which everything written so far has settled."""
    return time.time() + 60


def look(store: Path, previous: Catalog | None = None) -> Catalog:
    return scan(store, previous, later())


def located(catalog: Catalog, key: str, number: int) -> Located:
    return catalog.models[key].versions[number]


def test_names_versions_and_formats(tmp_path: Path) -> None:
    version(tmp_path, "a.B_c-1", 7)
    version(tmp_path, "a.B_c-1", "012", name="model.h5")
    version(tmp_path, "graph", 0, name="saved_model.pb")
    catalog = look(tmp_path)
    assert {key: sorted(entry.versions) for key, entry in catalog.models.items()} == {"a.B_c-1": [7, 12], "graph": [0]}
    assert catalog.models["a.B_c-1"].newest_first == [12, 7]
    assert located(catalog, "a.B_c-1", 12).path_in_store == "a.B_c-1/012/model.h5"
    assert located(catalog, "graph", 0).model_file == "saved_model.pb"
    assert catalog.problems == []


@pytest.mark.parametrize("name", [".hidden", "-dash", "sp ace", "ü", "a" * 129, "_x"])
def test_a_folder_of_another_name_is_no_model(tmp_path: Path, name: str) -> None:
    version(tmp_path, name, 1)
    assert look(tmp_path).models == {}


@pytest.mark.parametrize("number", ["v1", "1.0", "-1", "+1", "1" * 19, "\u0661", " 1", ".1"])
def test_a_folder_of_another_name_is_no_version(tmp_path: Path, number: str) -> None:
    version(tmp_path, "a", number)
    assert look(tmp_path).models["a"].versions == {}


def test_files_beside_models_and_versions_are_ignored(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    (tmp_path / "README").write_text("x")
    (tmp_path / "a" / "2").write_text("x")
    catalog = look(tmp_path)
    assert list(catalog.models) == ["a"]
    assert list(catalog.models["a"].versions) == [1]


def test_two_spellings_of_a_version_are_one_and_it_is_said(tmp_path: Path) -> None:
    version(tmp_path, "a", "01")
    canonical = version(tmp_path, "a", "1")
    catalog = look(tmp_path)
    assert located(catalog, "a", 1).path == canonical
    assert catalog.problems == ["a: '1' and '01' are one version; '1' is used"]


def test_a_folder_without_a_model_file_is_not_a_version_yet(tmp_path: Path) -> None:
    version(tmp_path, "a", 1, name="weights.bin")
    version(tmp_path, "a", 2, name=".model.keras.part")
    (tmp_path / "a" / "3" / "model.keras").mkdir(parents=True)
    assert look(tmp_path).models["a"].versions == {}


def test_the_fingerprint_has_every_file(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    (folder / "variables").mkdir()
    (folder / "variables" / "variables.index").write_bytes(b"12")
    (folder / ".nfs0001").write_bytes(b"x")
    info = (folder / "variables" / "variables.index").stat()
    fingerprint = located(look(tmp_path), "a", 1).fingerprint
    assert [entry[0] for entry in fingerprint] == ["saved_model.pb", "variables/variables.index"]
    assert fingerprint[1] == ("variables/variables.index", 2, info.st_mtime_ns, info.st_ino)


def test_an_entry_that_did_not_change_is_the_same_object(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    version(tmp_path, "b", 1)
    before = look(tmp_path)
    (tmp_path / "b" / "1" / "model.keras").write_bytes(b"another")
    after = look(tmp_path, before)
    assert after.models["a"] is before.models["a"]
    assert located(after, "b", 1).fingerprint != located(before, "b", 1).fingerprint


@pytest.mark.parametrize("change", ["size", "mtime", "inode"])
def test_a_changed_file_is_another_fingerprint(tmp_path: Path, change: str) -> None:
    file = version(tmp_path, "a", 1) / "model.keras"
    before = located(look(tmp_path), "a", 1)
    info = file.stat()
    if change == "size":
        file.write_bytes(b"longer than before")
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    elif change == "mtime":
        os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    else:
        new = file.with_name("new")
        shutil.copy2(file, new)
        os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
        new.replace(file)
    assert look_again(before) != before.fingerprint


# settled -----------------------------------------------------------------------------------------------------------


def test_a_version_just_written_is_served_at_the_second_equal_look(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    first = scan(tmp_path, None, time.time())
    assert first.models["a"].versions == {}
    assert list(first.models["a"].settling) == [1]
    assert first.settling
    second = scan(tmp_path, first, time.time())
    assert list(second.models["a"].versions) == [1]
    assert not second.settling


def test_a_version_that_grows_between_looks_is_not_served(tmp_path: Path) -> None:
    file = version(tmp_path, "a", 1) / "model.keras"
    catalog = None
    for size in range(1, 4):
        file.write_bytes(b"x" * size)
        catalog = scan(tmp_path, catalog, time.time())
        assert catalog.models["a"].versions == {}
    assert list(scan(tmp_path, catalog, time.time()).models["a"].versions) == [1]


def test_an_old_mtime_does_not_settle_what_was_just_written(tmp_path: Path) -> None:
    file = version(tmp_path, "a", 1) / "model.keras"
    os.utime(file, (1, 1))
    assert scan(tmp_path, None, time.time()).models["a"].versions == {}


def test_with_a_manifest_all_its_files_must_be_there(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    digest = "0" * 64
    names = ["saved_model.pb", "variables/variables.index"]
    (folder / "manifest.json").write_text(json.dumps({"files": dict.fromkeys(names, digest)}))
    half = look(tmp_path, look(tmp_path))
    assert half.models["a"].versions == {}
    (folder / "variables").mkdir()
    (folder / "variables" / "variables.index").write_bytes(b"x")
    whole = look(tmp_path, half)
    manifest = located(whole, "a", 1).manifest
    assert manifest is not None
    assert manifest.files == dict.fromkeys(names, digest)


def test_a_file_that_never_comes_is_said_and_not_looked_for_in_a_hurry(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    (folder / "manifest.json").write_text(
        json.dumps({"files": dict.fromkeys(["saved_model.pb", "variables/v", "variables/w"], "0" * 64)})
    )
    first = look(tmp_path)
    assert first.settling
    assert first.problems == []
    second = look(tmp_path, first)
    assert not second.settling
    assert second.problems == ["a: version 1 lacks 'variables/v', which its manifest names; is it still being copied?"]
    assert list(second.models["a"].settling) == [1]
    assert look(tmp_path, second).models["a"] is second.models["a"]
    (folder / "variables").mkdir()
    (folder / "variables" / "v").write_bytes(b"v")
    changed = look(tmp_path, second)
    assert changed.settling
    assert changed.problems == []
    (folder / "variables" / "w").write_bytes(b"w")
    whole = scan(tmp_path, changed, time.time())
    assert whole.settling
    whole = scan(tmp_path, whole, time.time())
    assert list(whole.models["a"].versions) == [1]
    assert not whole.settling


def test_a_version_that_was_renamed_to_its_place_with_a_manifest_is_served_at_once(tmp_path: Path) -> None:
    folder = version(tmp_path, ".work", "new")
    (folder / "manifest.json").write_text(json.dumps({"files": {"model.keras": "0" * 64}}))
    (tmp_path / "a").mkdir()
    copied = shutil.copytree(folder, tmp_path / "a" / "1")
    wait_for_another_tick(copied / "model.keras")
    assert scan(tmp_path, None, time.time()).models["a"].versions == {}
    folder.rename(tmp_path / "a" / "2")
    assert list(scan(tmp_path, None, time.time()).models["a"].versions) == [2]


def wait_for_another_tick(file: Path) -> None:
    """Until the file system's clock has moved on from the file's last change."""
    probe = file.with_name(".probe")
    before = file.stat().st_ctime_ns
    probe.touch()
    while probe.stat().st_ctime_ns <= before:
        probe.touch()
    probe.rename(file.parent.parent / ".probe")
    file.write_bytes(file.read_bytes())


def test_a_served_version_that_is_being_rewritten_stays_as_it_was_until_it_settles(tmp_path: Path) -> None:
    file = version(tmp_path, "a", 1) / "model.keras"
    before = look(tmp_path)
    file.write_bytes(b"half")
    during = scan(tmp_path, before, time.time())
    assert located(during, "a", 1) == located(before, "a", 1)
    after = scan(tmp_path, during, time.time())
    assert located(after, "a", 1).fingerprint != located(before, "a", 1).fingerprint


def vanish_while_looked_at(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """The next look lists the file, and finds it gone when it turns to it."""
    listed = store_module._entries

    def entries(folder: Path, limit: int) -> list["os.DirEntry[str]"]:
        found = listed(folder, limit)
        if folder == file.parent:
            file.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(store_module, "_entries", entries)


def test_a_file_that_goes_during_a_look_does_not_take_its_version_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = version(tmp_path, "a", 1) / "notes"
    file.write_bytes(b"x")
    before = look(tmp_path)
    with monkeypatch.context() as patch:
        vanish_while_looked_at(patch, file)
        during = look(tmp_path, before)
    assert located(during, "a", 1) is located(before, "a", 1)
    assert during.settling
    assert during.problems == []
    after = look(tmp_path, during)
    assert located(after, "a", 1).files == ("model.keras",)
    assert not after.settling


def test_a_manifest_that_goes_during_a_look_does_not_take_its_version_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = version(tmp_path, "a", 1) / "manifest.json"
    before = look(tmp_path)
    file.write_text("{}")
    read = documents.read

    def gone(path: Path, limit: int) -> bytes:
        path.unlink()
        return read(path, limit)

    with monkeypatch.context() as patch:
        patch.setattr(documents, "read", gone)
        during = look(tmp_path, before)
    assert located(during, "a", 1) is located(before, "a", 1)
    assert during.settling


def test_a_version_that_goes_during_a_look_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = version(tmp_path, "a", 1)
    before = look(tmp_path)
    listed = store_module._entries

    def entries(at: Path, limit: int) -> list["os.DirEntry[str]"]:
        found = listed(at, limit)
        if at == folder:
            shutil.rmtree(folder)
        return found

    monkeypatch.setattr(store_module, "_entries", entries)
    gone = look(tmp_path, before)
    assert gone.models["a"].versions == {}
    assert not gone.settling


def test_files_that_go_during_every_look_are_said_and_not_looked_for_in_a_hurry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = version(tmp_path, "a", 1) / "notes"
    catalog = look(tmp_path)
    with monkeypatch.context() as patch:
        vanish_while_looked_at(patch, file)
        for _ in range(2):
            file.write_bytes(b"x")
            catalog = look(tmp_path, catalog)
    assert list(catalog.models["a"].versions) == [1]
    assert not catalog.settling
    assert catalog.problems == ["a: version 1 loses files during each look; is it still being copied?"]


# hostile -----------------------------------------------------------------------------------------------------------


def outside(tmp_path: Path) -> tuple[Path, Path]:
    store = tmp_path / "store"
    store.mkdir()
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "model.keras").write_bytes(b"x")
    return store, secret


def test_a_file_that_is_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    store, secret = outside(tmp_path)
    (store / "a" / "1").mkdir(parents=True)
    (store / "a" / "1" / "model.keras").symlink_to(secret / "model.keras")
    refusal = located(look(store), "a", 1).refusal
    assert refusal == "a symbolic link leads out of the model store"


def test_a_version_that_is_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    store, secret = outside(tmp_path)
    (store / "a").mkdir()
    (store / "a" / "1").symlink_to(secret)
    assert located(look(store), "a", 1).refusal is not None


def test_a_model_that_is_a_link_out_of_the_store_has_no_versions(tmp_path: Path) -> None:
    store, secret = outside(tmp_path)
    version(secret, "m", 1)
    (store / "a").symlink_to(secret / "m")
    catalog = look(store)
    assert catalog.models["a"].versions == {}
    assert catalog.problems == ["a: a symbolic link leads out of the model store"]


def test_aliases_that_are_a_link_out_of_the_store_are_not_read(tmp_path: Path) -> None:
    store, secret = outside(tmp_path)
    version(store, "a", 1)
    (secret / "aliases.json").write_text('{"stable": 1}')
    (store / "a" / "aliases.json").symlink_to(secret / "aliases.json")
    assert look(store).models["a"].aliases == {}


CIRCLES = ["itself", "no-such-file", "file/below"]
"""What a link can point to that is nowhere."""


def link_nowhere(link: Path, target: str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    (link.parent / "file").write_bytes(b"x")
    link.symlink_to(link.name if target == "itself" else target)


@pytest.mark.parametrize("target", CIRCLES)
@pytest.mark.parametrize("place", ["a/2", "a/2/model.h5", "a/2/variables/link"])
def test_a_link_that_leads_nowhere_refuses_its_version_only(tmp_path: Path, place: str, target: str) -> None:
    version(tmp_path, "a", 1)
    if place != "a/2":
        version(tmp_path, "a", 2, name="saved_model.pb")
    link_nowhere(tmp_path / place, target)
    catalog = look(tmp_path)
    assert located(catalog, "a", 2).refusal == "a symbolic link leads nowhere"
    assert located(catalog, "a", 1).refusal is None
    assert not catalog.models["a"].unreadable
    assert not catalog.settling
    assert look_again(located(catalog, "a", 2)) is None
    (tmp_path / place).unlink()
    after = look(tmp_path, look(tmp_path, catalog)).models["a"].versions
    assert {number: found.refusal for number, found in after.items()} == {1: None} | (
        {2: None} if place != "a/2" else {}
    )


@pytest.mark.parametrize("target", CIRCLES)
def test_a_model_that_is_a_link_to_nowhere_has_no_versions(tmp_path: Path, target: str) -> None:
    version(tmp_path, "b", 1)
    link_nowhere(tmp_path / "a", target)
    catalog = look(tmp_path)
    assert catalog.problems == ["a: a symbolic link leads nowhere"]
    assert catalog.models["a"].versions == {}
    assert list(catalog.models["b"].versions) == [1]


@pytest.mark.parametrize("target", CIRCLES)
def test_aliases_that_are_a_link_to_nowhere_are_reported_and_those_of_before_stay(tmp_path: Path, target: str) -> None:
    version(tmp_path, "a", 1)
    file = tmp_path / "a" / "aliases.json"
    file.write_text('{"stable": 1}')
    before = look(tmp_path)
    file.unlink()
    link_nowhere(file, target)
    after = look(tmp_path, before)
    assert after.problems == ["a: aliases.json: a symbolic link leads nowhere"]
    assert after.models["a"].aliases == {"stable": 1}
    assert list(after.models["a"].versions) == [1]
    file.unlink()
    assert look(tmp_path, after).models["a"].aliases == {}


def test_a_version_that_is_a_link_to_a_file_is_refused(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    (tmp_path / "a" / "2").symlink_to("1/model.keras")
    catalog = look(tmp_path)
    assert located(catalog, "a", 2).refusal == "it has a file where a folder should be"
    assert not catalog.models["a"].unreadable


def test_links_within_the_store_are_followed(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    (tmp_path / "a" / "2").symlink_to("1")
    (tmp_path / "link").symlink_to("a")
    catalog = look(tmp_path)
    assert located(catalog, "a", 2).refusal is None
    assert sorted(catalog.models["link"].versions) == [1, 2]


def test_a_store_that_is_itself_a_link_works(tmp_path: Path) -> None:
    version(tmp_path / "real", "a", 1)
    (tmp_path / "store").symlink_to("real")
    assert located(look(tmp_path / "store"), "a", 1).refusal is None


def test_a_pipe_in_a_version_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1)
    os.mkfifo(folder / "manifest.json")
    assert located(look(tmp_path), "a", 1).refusal == "it holds something that is neither a file nor a folder"


def test_a_socket_in_a_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("assets")
        assert located(look(tmp_path), "a", 1).refusal == "it holds something that is neither a file nor a folder"


def test_a_link_to_a_device_is_refused(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1)
    (folder / "model.h5").symlink_to("/dev/zero")
    assert located(look(tmp_path), "a", 1).refusal == "a symbolic link leads out of the model store"


def test_aliases_that_are_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    os.mkfifo(tmp_path / "a" / "aliases.json")
    assert look(tmp_path).problems == ["a: aliases.json is not a file"]


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"\xff", b"\xed\xa0\x80"])
def test_a_file_whose_name_is_not_utf_8_is_refused(tmp_path: Path, name: bytes) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    (folder / "assets").mkdir()
    (folder / "assets" / os.fsdecode(name)).write_bytes(b"x")
    version(tmp_path, "b", 1)
    catalog = look(tmp_path)
    assert "not UTF-8" in (located(catalog, "a", 1).refusal or "")
    assert located(catalog, "b", 1).refusal is None


def test_models_and_versions_whose_names_are_not_utf_8_are_passed_over(tmp_path: Path) -> None:
    version(tmp_path, os.fsdecode(b"caf\xe9"), 1)
    version(tmp_path, "a", os.fsdecode(b"1\xff"))
    assert look(tmp_path).models["a"].versions == {}


def test_a_path_longer_than_the_limit_is_refused(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    (folder / "/".join(["d" * 255] * 5)).mkdir(parents=True)
    assert "longer than 255 bytes (1024 with folders)" in (located(look(tmp_path), "a", 1).refusal or "")


def test_a_path_longer_than_the_system_takes_is_refused(tmp_path: Path) -> None:
    store = tmp_path
    while len(str(store)) < 3_800:
        store = store / ("s" * 250)
        store.mkdir()
    version(store, "a", 1, name="saved_model.pb")
    version(store, "b", 1)
    here = os.open(store / "a" / "1", os.O_RDONLY)
    for _ in range(3):  # each within its limits, together not
        os.mkdir("d" * 150, dir_fd=here)
        here, above = os.open("d" * 150, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    catalog = look(store)
    assert located(catalog, "a", 1).refusal == "a file's path is longer than the system takes"
    assert located(catalog, "b", 1).refusal is None
    assert catalog.problems == []


def test_folders_nested_too_deep_are_refused(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    folder.joinpath(*["d"] * 20).mkdir(parents=True)
    assert "nest deeper" in (located(look(tmp_path), "a", 1).refusal or "")


def test_a_link_to_a_folder_above_does_not_lead_round_in_circles(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1, name="saved_model.pb")
    (folder / "assets").symlink_to("..")
    assert located(look(tmp_path), "a", 1).refusal is not None


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.models.store.MAX_FILES", 5)
    folder = version(tmp_path, "a", 1)
    for index in range(6):
        (folder / str(index)).write_bytes(b"")
    assert "more than 5" in (located(look(tmp_path), "a", 1).refusal or "")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"files": []}',
        '{"files": {"model.keras": "abc"}}',
        '{"files": {"model.keras": 1}}',
        json.dumps({"files": {"../model.keras": "0" * 64}}),
        json.dumps({"files": {"/model.keras": "0" * 64}}),
        "[" * 100_000,
        '{"inputs": "' + "x" * MANIFEST_BYTES + '"}',
        '"\ud800"'.encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_broken_manifest_is_a_refusal(tmp_path: Path, text: str) -> None:
    folder = version(tmp_path, "a", 1)
    (folder / "manifest.json").write_text(text, "latin-1")
    version(tmp_path, "b", 1)
    catalog = look(tmp_path)
    assert (located(catalog, "a", 1).refusal or "").startswith("manifest.json")
    assert located(catalog, "b", 1).refusal is None


# aliases -----------------------------------------------------------------------------------------------------------


def test_aliases(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    (tmp_path / "a" / "aliases.json").write_text('{"stable": 1, "canary": 4}')
    assert look(tmp_path).models["a"].aliases == {"stable": 1, "canary": 4}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"stable": "1"}',
        '{"stable": true}',
        '{"stable": -1}',
        '{"stable": 1.0}',
        f'{{"stable": {10**18}}}',
        '{"1": 1}',
        '{"a b": 1}',
        json.dumps({"a" * 65: 1}),
        "[" * 60_000,
        " " * (ALIASES_BYTES + 1),
    ],
)
def test_broken_aliases_are_reported_and_those_of_before_stay(tmp_path: Path, text: str) -> None:
    version(tmp_path, "a", 1)
    file = tmp_path / "a" / "aliases.json"
    file.write_text(text)
    fresh = look(tmp_path)
    assert fresh.models["a"].aliases == {}
    assert list(fresh.models["a"].versions) == [1]
    assert len(fresh.problems) == 1
    assert fresh.problems[0].startswith("a: aliases.json")
    file.write_text('{"stable": 1}')
    good = look(tmp_path)
    file.write_text(text)
    assert look(tmp_path, good).models["a"].aliases == {"stable": 1}


# trouble -----------------------------------------------------------------------------------------------------------


def failing_for(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An I/O error of the disk, which no test can cause, where this folder is listed."""
    listed = store_module._entries

    def entries(at: Path, limit: int) -> list["os.DirEntry[str]"]:
        if at == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return listed(at, limit)

    monkeypatch.setattr(store_module, "_entries", entries)


def test_trouble_with_one_version_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version(tmp_path, "a", 1)
    version(tmp_path, "b", 1)
    folder = version(tmp_path, "a", 2)
    before = look(tmp_path)
    failing_for(monkeypatch, folder)
    entry = look(tmp_path).models["a"]
    assert list(entry.versions) == [1]
    assert entry.unreadable
    assert entry.problems == ("version 2 cannot be read: Input/output error",)
    after = look(tmp_path, before)
    assert located(after, "a", 2) is located(before, "a", 2)
    assert not after.models["b"].unreadable


def test_a_model_or_a_store_that_cannot_be_read_is_not_looked_at_in_a_hurry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version(tmp_path, "a", 1)
    copying = scan(tmp_path, None, time.time())
    assert copying.settling
    for folder in (tmp_path / "a", tmp_path):
        with monkeypatch.context() as patch:
            failing_for(patch, folder)
            during = scan(tmp_path, copying, time.time())
        assert during.problems
        assert not during.settling
        assert list(scan(tmp_path, during, time.time()).models["a"].versions) == [1]


def test_a_store_that_has_gone_keeps_what_was_known(tmp_path: Path) -> None:
    store = tmp_path / "store"
    version(store, "a", 1)
    before = look(store)
    store.rename(tmp_path / "elsewhere")
    gone = look(store, before)
    assert gone.models is before.models
    assert gone.problems == ["the model store cannot be read: No such file or directory; what was known of it stays"]
    (tmp_path / "elsewhere").rename(store)
    back = look(store, gone)
    assert back.problem is None
    assert back.models["a"] is before.models["a"]


def test_looking_does_not_use_up_descriptors(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    (tmp_path / "a" / "aliases.json").mkdir()
    (version(tmp_path, "b", 1) / "manifest.json").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert look(tmp_path).problems == ["a: aliases.json is not a file"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_store_that_was_never_there_is_empty(tmp_path: Path) -> None:
    catalog = look(tmp_path / "none")
    assert catalog.models == {}
    assert catalog.problem is not None


def test_looking_again_at_a_withdrawn_version(tmp_path: Path) -> None:
    folder = version(tmp_path, "a", 1)
    before = located(look(tmp_path), "a", 1)
    assert look_again(before) == before.fingerprint
    shutil.rmtree(folder)
    assert look_again(before) is None


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    version(tmp_path, "a", 1)
    store: Store = LocalStore(tmp_path)
    catalog = store.scan(None, later())
    found = located(catalog, "a", 1)
    assert store.fetch(found, threading.Event()) is found
    assert store.look_again(found) == found.fingerprint
    assert store.scan(catalog, later()).models["a"] is catalog.models["a"]


def test_looking_and_listing_need_no_tensorflow() -> None:
    code = "import sys, consumer.models.serving, consumer.models.edit; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
