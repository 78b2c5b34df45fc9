"""What the `models` commands do to a store."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from consumer.models.digest import sha256
from consumer.models.edit import (
    EditError,
    NotInStoreError,
    add_version,
    list_models,
    remove_alias,
    remove_version,
    set_alias,
    verify,
)
from consumer.models.store import Catalog, scan
from tests import models_zoo as zoo


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sources")
    model = zoo.two_by_two()
    for name in ("two.keras", "two.h5", "TWO.HDF5"):
        model.save(root / name.lower())
    (root / "two.hdf5").rename(root / "TWO.HDF5")
    model.export(root / "graph", verbose=False)
    zoo.with_lambda().save(root / "lambda.h5")
    (root / "broken.keras").write_bytes(b"broken")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def look(store: Path) -> Catalog:
    return scan(store, None, time.time() + 60)


def visible(store: Path) -> list[str]:
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("source", "file"),
    [("two.keras", "model.keras"), ("two.h5", "model.h5"), ("TWO.HDF5", "model.h5"), ("graph", "saved_model.pb")],
)
def test_adding_each_format(store: Path, sources: dict[str, Path], source: str, file: str) -> None:
    added = add_version(store, "two", sources[source])
    assert (added.key, added.version, added.path_in_store) == ("two", 1, f"two/1/{file}")
    assert added.open_seconds > 0
    folder = store / "two" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    others = {name.removeprefix("two/1/") for name in visible(store)} - {"manifest.json"}
    assert manifest["files"] == {name: sha256(folder / name) for name in others}
    assert file in others
    assert manifest["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "token", "datatype": "INT32", "shape": [-1, 3]},
    ]
    assert [spec["name"] for spec in manifest["outputs"]] == ["echo", "total"]
    assert sorted(path.name for path in store.iterdir()) == ["two"]  # nothing hidden is left
    assert [(result.version, result.has_digests, result.problem) for result in verify(store)] == [(1, True, None)]


def test_versions_are_numbered_on_and_never_overwritten(store: Path, sources: dict[str, Path]) -> None:
    assert add_version(store, "m", sources["two.keras"]).version == 1
    assert add_version(store, "m", sources["two.keras"], version=7).version == 7
    assert add_version(store, "m", sources["two.keras"]).version == 8
    (store / "m" / "010").mkdir()  # no version yet, and yet its number is taken
    assert add_version(store, "m", sources["two.keras"]).version == 11
    before = visible(store)
    for version in (7, 10):
        with pytest.raises(EditError, match=f"has a version {version} already"):
            add_version(store, "m", sources["two.keras"], version=version)
    assert visible(store) == before


def test_two_who_add_at_once_get_a_number_each(store: Path, sources: dict[str, Path]) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(add_version(store, "m", sources["two.keras"]).version))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(numbers) == [1, 2, 3, 4]
    assert sorted(look(store).models["m"].versions) == [1, 2, 3, 4]


def test_what_cannot_be_served_does_not_come_in(store: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    for source, why in (
        (sources["broken.keras"], "cannot be served"),
        (sources["lambda.h5"], "LOADONCE_TRUSTED_H5_MODELS"),
        (tmp_path / "model.txt", "neither"),
        (tmp_path / "folder", "neither"),
    ):
        with pytest.raises(EditError, match=why):
            add_version(store, "m", source)
    with pytest.raises(NotInStoreError, match="no such file"):
        add_version(store, "m", tmp_path / "none.keras")
    assert not store.exists() or list(store.iterdir()) == []
    assert add_version(store, "m", sources["lambda.h5"], trusted_h5=frozenset({"m"})).version == 1


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", ".a", "a" * 129, "a\n", "/a"])
def test_names_are_checked_before_a_path_is_made(store: Path, sources: dict[str, Path], key: str) -> None:
    for act in (
        lambda: add_version(store, key, sources["two.keras"]),
        lambda: remove_version(store, key, 1),
        lambda: set_alias(store, key, "stable", 1),
        lambda: remove_alias(store, key, "stable"),
        lambda: list(verify(store, key)),
    ):
        with pytest.raises(EditError, match="model name"):
            act()
    assert not store.exists()


@pytest.mark.parametrize("version", [-1, 10**18])
def test_versions_are_checked(store: Path, sources: dict[str, Path], version: int) -> None:
    with pytest.raises(EditError, match="1 to 18 digits"):
        add_version(store, "m", sources["two.keras"], version=version)


def test_a_source_that_is_linked_is_copied_and_its_manifest_is_not(
    store: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "graph"
    shutil.copytree(sources["graph"], source)
    (source / "manifest.json").write_text("not ours")
    (source / "variables").rename(tmp_path / "elsewhere")
    (source / "variables").symlink_to(tmp_path / "elsewhere")
    add_version(store, "m", source)
    assert not any(path.is_symlink() for path in (store / "m" / "1").rglob("*"))
    assert [result.problem for result in verify(store)] == [None]


def test_a_source_with_a_pipe_is_not_waited_for(store: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    source = tmp_path / "graph"
    shutil.copytree(sources["graph"], source)
    os.mkfifo(source / "pipe")
    with pytest.raises(EditError, match="cannot be copied"):
        add_version(store, "m", source)


def test_a_store_that_cannot_be_made(tmp_path: Path, sources: dict[str, Path]) -> None:
    (tmp_path / "file").write_text("x")
    for store in (tmp_path / "none" / "store", tmp_path / "file"):
        with pytest.raises(NotInStoreError, match="not a folder"):
            add_version(store, "m", sources["two.keras"])
    with pytest.raises(NotInStoreError):
        list_models(tmp_path / "none")


def test_removing(store: Path, sources: dict[str, Path]) -> None:
    for _ in range(2):
        add_version(store, "m", sources["two.keras"])
    shutil.copytree(store / "m" / "1", store / "m" / "01")
    remove_version(store, "m", 1)
    assert sorted(path.name for path in (store / "m").iterdir()) == ["2"]  # both spellings are gone
    with pytest.raises(NotInStoreError, match="m has no version 1; `loadonce models list` shows"):
        remove_version(store, "m", 1)
    with pytest.raises(NotInStoreError, match="no model 'other'; `loadonce models list` shows"):
        remove_version(store, "other", 1)
    set_alias(store, "m", "stable", 2)
    with pytest.raises(EditError, match="alias 'stable' of m is version 2"):
        remove_version(store, "m", 2)
    remove_alias(store, "m", "stable")
    (store / "m" / "aliases.json").unlink()
    remove_version(store, "m", 2)
    assert list(store.iterdir()) == []


def test_removing_a_version_that_is_a_link_leaves_what_it_leads_to(
    store: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    add_version(store, "m", sources["two.keras"])
    (store / "m" / "1").rename(tmp_path / "elsewhere")
    (store / "m" / "1").symlink_to(tmp_path / "elsewhere")
    remove_version(store, "m", 1)
    assert (tmp_path / "elsewhere" / "model.keras").is_file()
    assert list(store.iterdir()) == []


def test_aliases(store: Path, sources: dict[str, Path]) -> None:
    for _ in range(2):
        add_version(store, "m", sources["two.keras"])
    set_alias(store, "m", "stable", 1)
    set_alias(store, "m", "canary", 2)
    set_alias(store, "m", "stable", 2)
    assert look(store).models["m"].aliases == {"stable": 2, "canary": 2}
    remove_alias(store, "m", "stable")
    assert look(store).models["m"].aliases == {"canary": 2}
    with pytest.raises(NotInStoreError, match="no alias 'stable'"):
        remove_alias(store, "m", "stable")
    with pytest.raises(NotInStoreError, match="no version 3"):
        set_alias(store, "m", "stable", 3)
    with pytest.raises(NotInStoreError, match="no model 'other'"):
        set_alias(store, "other", "stable", 3)
    for alias in ("1", "", "a b", "a/b", "a" * 65):
        with pytest.raises(EditError, match="a letter"):
            set_alias(store, "m", alias, 1)
    (store / "m" / "aliases.json").write_text("{broken")
    with pytest.raises(EditError, match="mend or remove"):
        set_alias(store, "m", "stable", 1)


def test_listing(store: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    add_version(store, "b", sources["two.h5"])
    add_version(store, "a", sources["graph"])
    add_version(store, "a", sources["two.keras"], version=12)
    set_alias(store, "a", "stable", 12)
    (store / "a" / "3").symlink_to(tmp_path)
    (store / "a" / "4").mkdir()
    (store / "b" / "aliases.json").write_text("{broken")
    listed, problems = list_models(store)
    assert [(entry.key, entry.version, entry.format, entry.aliases, entry.has_manifest) for entry in listed] == [
        ("a", 1, "savedmodel", (), True),
        ("a", 3, "", (), False),
        ("a", 12, "keras", ("stable",), True),
        ("b", 1, "h5", (), True),
    ]
    assert listed[1].state == "a symbolic link leads out of the model store"
    folder = store / "a" / "12"
    assert listed[2].nbytes == sum(path.stat().st_size for path in folder.iterdir())
    assert problems == ["b: aliases.json is not JSON"]


def test_verifying_finds_what_is_broken(store: Path, sources: dict[str, Path]) -> None:
    add_version(store, "a", sources["two.keras"])
    add_version(store, "a", sources["two.keras"])
    add_version(store, "b", sources["two.h5"])
    path = store / "a" / "2" / "model.keras"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    (store / "b" / "1" / "manifest.json").unlink()
    results = {(result.key, result.version): result for result in verify(store)}
    assert results["a", 1].problem is None
    assert results["a", 2].problem == "the digest of model.keras is not the manifest's"
    assert results["b", 1].problem is None
    assert not results["b", 1].has_digests
    with pytest.raises(NotInStoreError, match="no model 'c'"):
        list(verify(store, "c"))


def test_verifying_what_is_being_copied(store: Path, sources: dict[str, Path]) -> None:
    add_version(store, "a", sources["two.keras"])
    folder = shutil.copytree(store / "a" / "1", store / "a" / "2")
    (folder / "model.keras").rename(folder / "model.keras.part")
    (folder / "model.h5").write_bytes(b"")  # so that it is a version at all
    assert [(result.version, result.problem) for result in verify(store)] == [
        (2, "it is still being copied"),
        (1, None),
    ]
