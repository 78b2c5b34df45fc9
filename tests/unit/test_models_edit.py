"""What the `models` commands do to a store."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consumer.models.backend import load_tensorflow
from consumer.models.contents import EditError, Listed, NotInStoreError, Verified, find
from consumer.models.contents import list_models as list_contents
from consumer.models.contents import verify as verify_contents
from consumer.models.digest import sha256
from consumer.models.edit import Added, remove_alias, remove_version, set_alias, sign_version
from consumer.models.edit import add_version as edit_add_version
from consumer.models.manifest import parse
from consumer.models.opening import Opener, OpenOptions
from consumer.models.policy import Policies
from consumer.models.store import Catalog, LocalStore, scan
from tests import models_zoo as zoo

OURS = Ed25519PrivateKey.generate()
PRIVATE, PUBLIC = OURS.private_bytes_raw(), OURS.public_key().public_bytes_raw()

Open = Callable[..., Opener]


def _parse_numbers(text: Any) -> Any:
    return {"number": load_tensorflow().strings.to_number(text)}


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
    zoo.fixed_rows().save(root / "fixed.keras")
    zoo.put_module(root / "fussy", _parse_numbers, text=load_tensorflow().TensorSpec([None], "string", name="text"))
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(scope="module")
def opener_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """Gives an opener of these options; each is made once and closed at the end."""
    cache = tmp_path_factory.mktemp("cache")
    openers: dict[tuple[tuple[str, Any], ...], Opener] = {}

    def make(**options: Any) -> Opener:
        name = tuple(sorted(options.items()))
        if name not in openers:
            given: dict[str, Any] = {"trusted_h5": frozenset(), "max_bytes": sys.maxsize} | options
            openers[name] = Opener(OpenOptions(**given), cache, 1 << 30)
        return openers[name]

    yield make
    for opener in openers.values():
        opener.close(10)


@pytest.fixture
def add_version(opener_with: Open) -> Callable[..., Added]:
    return partial(edit_add_version, opener=opener_with(), measure_s=0.05)


@pytest.fixture
def verify(opener_with: Open) -> Callable[..., list[Verified]]:
    def run(store: Path, key: str | None = None, **options: Any) -> list[Verified]:
        opener = opener_with(**options)
        return list(verify_contents(LocalStore(store), key, opener=opener, public_key=options.get("public_key")))

    return run


def list_models(store: Path, *policies: str) -> tuple[list[Listed], list[str]]:
    return list_contents(LocalStore(store), Policies.parse(policies))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def look(store: Path) -> Catalog:
    return scan(store, None, time.time() + 60)


def visible(store: Path) -> list[str]:
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())


FILES = {"two.keras": "model.keras", "two.h5": "model.h5", "TWO.HDF5": "model.h5", "graph": "saved_model.pb"}


@pytest.mark.parametrize("source", FILES)
def test_adding_each_format(
    store: Path,
    sources: dict[str, Path],
    source: str,
    add_version: Callable[..., Added],
    verify: Callable[..., list[Verified]],
) -> None:
    file = FILES[source]
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


def test_versions_are_numbered_on_and_never_overwritten(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added]
) -> None:
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


def test_what_a_killed_process_left_long_ago_is_removed(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added]
) -> None:
    old, young = store / ".loadonce-old", store / ".loadonce-young"
    for folder in (old, young):
        (folder / "new").mkdir(parents=True)
        (folder / "new" / "model.keras").write_bytes(b"half")
    other, link = store / ".other", store / ".loadonce-link"
    other.mkdir()
    link.symlink_to(other)
    day_ago = time.time() - 25 * 3600
    for folder in (old, other):
        os.utime(folder, (day_ago, day_ago))
    os.utime(link, (day_ago, day_ago), follow_symlinks=False)
    add_version(store, "m", sources["two.keras"])
    assert not old.exists()
    assert young.exists()
    assert other.exists()
    assert [folder.name for folder in store.iterdir() if folder.name not in (link.name, young.name, other.name)] == [
        "m"
    ]


def test_two_who_add_at_once_get_a_number_each(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added]
) -> None:
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


def test_what_cannot_be_served_does_not_come_in(
    store: Path, sources: dict[str, Path], tmp_path: Path, opener_with: Open, add_version: Callable[..., Added]
) -> None:
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
    trusting = opener_with(trusted_h5=frozenset({"m"}))
    assert add_version(store, "m", sources["lambda.h5"], opener=trusting).version == 1


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", ".a", "a" * 129, "a\n", "/a"])
def test_names_are_checked_before_a_path_is_made(
    store: Path,
    sources: dict[str, Path],
    key: str,
    add_version: Callable[..., Added],
    verify: Callable[..., list[Verified]],
) -> None:
    for act in (
        lambda: add_version(store, key, sources["two.keras"]),
        lambda: remove_version(store, key, 1),
        lambda: set_alias(store, key, "stable", 1),
        lambda: remove_alias(store, key, "stable"),
        lambda: verify(store, key),
    ):
        with pytest.raises(EditError, match="model name"):
            act()
    assert not store.exists()


@pytest.mark.parametrize("version", [-1, 10**18])
def test_versions_are_checked(
    store: Path, sources: dict[str, Path], version: int, add_version: Callable[..., Added]
) -> None:
    with pytest.raises(EditError, match="1 to 18 digits"):
        add_version(store, "m", sources["two.keras"], version=version)


def test_a_source_that_is_linked_is_copied_and_its_manifest_is_not(
    store: Path,
    sources: dict[str, Path],
    tmp_path: Path,
    add_version: Callable[..., Added],
    verify: Callable[..., list[Verified]],
) -> None:
    source = tmp_path / "graph"
    shutil.copytree(sources["graph"], source)
    (source / "manifest.json").write_text("not ours")
    (source / "variables").rename(tmp_path / "elsewhere")
    (source / "variables").symlink_to(tmp_path / "elsewhere")
    add_version(store, "m", source)
    assert not any(path.is_symlink() for path in (store / "m" / "1").rglob("*"))
    assert [result.problem for result in verify(store)] == [None]


def test_a_source_with_a_pipe_is_not_waited_for(
    store: Path, sources: dict[str, Path], tmp_path: Path, add_version: Callable[..., Added]
) -> None:
    source = tmp_path / "graph"
    shutil.copytree(sources["graph"], source)
    os.mkfifo(source / "pipe")
    with pytest.raises(EditError, match="cannot be copied"):
        add_version(store, "m", source)


def test_a_store_that_cannot_be_made(
    tmp_path: Path, sources: dict[str, Path], add_version: Callable[..., Added]
) -> None:
    (tmp_path / "file").write_text("x")
    for store in (tmp_path / "none" / "store", tmp_path / "file"):
        with pytest.raises(NotInStoreError, match="not a folder"):
            add_version(store, "m", sources["two.keras"])
    with pytest.raises(NotInStoreError):
        list_models(tmp_path / "none")


def test_removing(store: Path, sources: dict[str, Path], add_version: Callable[..., Added]) -> None:
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
    store: Path, sources: dict[str, Path], tmp_path: Path, add_version: Callable[..., Added]
) -> None:
    add_version(store, "m", sources["two.keras"])
    (store / "m" / "1").rename(tmp_path / "elsewhere")
    (store / "m" / "1").symlink_to(tmp_path / "elsewhere")
    remove_version(store, "m", 1)
    assert (tmp_path / "elsewhere" / "model.keras").is_file()
    assert list(store.iterdir()) == []


def test_aliases(store: Path, sources: dict[str, Path], add_version: Callable[..., Added]) -> None:
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


def test_listing(store: Path, sources: dict[str, Path], tmp_path: Path, add_version: Callable[..., Added]) -> None:
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


def test_verifying_finds_what_is_broken(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], verify: Callable[..., list[Verified]]
) -> None:
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
        verify(store, "c")


def test_verifying_what_is_being_copied(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], verify: Callable[..., list[Verified]]
) -> None:
    add_version(store, "a", sources["two.keras"])
    folder = shutil.copytree(store / "a" / "1", store / "a" / "2")
    (folder / "model.keras").rename(folder / "model.keras.part")
    (folder / "model.h5").write_bytes(b"")  # so that it is a version at all
    assert [(result.version, result.problem) for result in verify(store)] == [
        (2, "it is still being copied"),
        (1, None),
    ]


# how it is served --------------------------------------------------------------------------------------------------


def test_latencies_are_measured_and_say_how_to_warm_up(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], opener_with: Open
) -> None:
    told: list[str] = []
    added = add_version(store, "m", sources["two.keras"], measure_s=2.0, told=told.append)
    assert [latency.rows for latency in added.latencies][:2] == [1, 8]
    assert all(latency.ms > 0 and latency.calls >= 1 for latency in added.latencies)
    assert added.latencies[0].rows_per_s == pytest.approx(1000 / added.latencies[0].ms)
    assert told == [
        f"copying {sources['two.keras']}",
        "opening it in a process of its own",
        "measuring it by batch size",
    ]
    manifest = parse((store / "m" / "1" / "manifest.json").read_bytes())
    assert manifest.serving == added.serving
    assert manifest.serving.warmup_rows[:2] == (1, 2)
    assert set(manifest.serving.warmup_rows) <= {1, 2, *(latency.rows for latency in added.latencies)}
    assert (manifest.inputs, manifest.outputs) == (added.signature.inputs, added.signature.outputs)
    loaded = opener_with().open(find(LocalStore(store), "m", None), threading.Event())
    assert loaded.servable.serving.warmup_rows == added.serving.warmup_rows
    loaded.close()


def test_a_model_of_fixed_rows_is_measured_and_warmed_up_with_those(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], verify: Callable[..., list[Verified]]
) -> None:
    added = add_version(store, "m", sources["fixed.keras"])
    assert [latency.rows for latency in added.latencies] == [3]
    assert added.serving.warmup_rows == (3,)
    assert [result.problem for result in verify(store)] == [None]


def test_a_model_that_takes_no_zeros_is_added_without_latencies(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], verify: Callable[..., list[Verified]]
) -> None:
    assert add_version(store, "m", sources["fussy"]).latencies == ()
    assert [result.problem for result in verify(store)] == [None]


def test_buckets_and_compiling(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], opener_with: Open
) -> None:
    added = add_version(
        store, "m", sources["graph"], batch_buckets=(4, 16), jit_compile=True, mixed_precision="bfloat16"
    )
    assert {latency.rows for latency in added.latencies} <= {4, 16}
    loaded = opener_with().open(find(LocalStore(store), "m", 1), threading.Event())
    assert loaded.servable.serving.batch_buckets == (4, 16)
    assert loaded.servable.serving.jit_compile
    assert loaded.servable.serving.mixed_precision == "bfloat16"
    loaded.close()


def test_a_manifest_that_states_another_signature_is_found(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], verify: Callable[..., list[Verified]]
) -> None:
    add_version(store, "m", sources["two.keras"])
    path = store / "m" / "1" / "manifest.json"
    path.write_text(path.read_text().replace('"FP32"', '"FP64"'))
    [result] = verify(store)
    assert "wrong signature: the manifest says input 'image' is FP64" in (result.problem or "")


# trust -------------------------------------------------------------------------------------------------------------


def test_signing_the_highest_and_a_named_version(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], verify: Callable[..., list[Verified]]
) -> None:
    for _ in range(3):
        add_version(store, "m", sources["two.keras"])
    assert sign_version(store, "m", None, PRIVATE).version == 3
    assert sign_version(store, "m", 1, PRIVATE).version == 1
    assert sign_version(store, "m", 1, PRIVATE).content == list_models(store)[0][0].content  # once more
    found = {result.version: (result.signature, result.problem is None) for result in verify(store, public_key=PUBLIC)}
    assert found == {1: ("good", True), 2: ("none", False), 3: ("good", True)}
    assert [result.signature for result in verify(store)] == ["not checked", "none", "not checked"]
    assert [version.is_signed for version in list_models(store)[0]] == [True, False, True]
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    assert [result.signature for result in verify(store, public_key=other)] == ["bad", "none", "bad"]
    assert sorted(path.name for path in store.iterdir()) == ["m"]  # nothing hidden is left


def test_a_version_is_signed_as_the_number_it_gets(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], verify: Callable[..., list[Verified]]
) -> None:
    (store / "m" / "6").mkdir(parents=True)
    added = add_version(store, "m", sources["graph"], private_key=PRIVATE)
    assert (added.version, added.signed) == (7, True)
    [result] = verify(store, require_manifest=True, public_key=PUBLIC)
    assert (result.signature, result.problem) == ("good", None)


def test_what_cannot_be_signed(store: Path, sources: dict[str, Path], add_version: Callable[..., Added]) -> None:
    for _ in range(3):
        add_version(store, "m", sources["two.keras"])
    (store / "m" / "1" / "manifest.json").unlink()
    (store / "m" / "2" / "manifest.json").write_text("{")
    with (store / "m" / "3" / "model.keras").open("ab") as file:
        file.write(b"more")
    for entry in scan(store, None, time.time() + 60).models["m"].versions.values():
        with pytest.raises(EditError, match=f"m/{entry.version} cannot be signed") as told:
            sign_version(store, "m", entry.version, PRIVATE)
        assert {1: "models add", 2: "not JSON", 3: "digest of model.keras"}[entry.version] in str(told.value)
    for version in (4, None):
        with pytest.raises(NotInStoreError):
            sign_version(store, "m" if version else "other", version, PRIVATE)
    assert not list(store.rglob("*.sig"))


def test_a_source_that_was_signed_elsewhere_is_not_signed_here(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added], tmp_path: Path
) -> None:
    add_version(store, "m", sources["graph"], private_key=PRIVATE)
    add_version(store, "m", store / "m" / "1")
    assert [version.is_signed for version in list_models(store)[0]] == [True, False]


def test_the_list_says_what_is_served_and_shows_equal_contents(
    store: Path, sources: dict[str, Path], add_version: Callable[..., Added]
) -> None:
    for source in ("two.keras", "two.h5", "two.keras"):
        add_version(store, "m", sources[source])
    set_alias(store, "m", "stable", 1)
    (store / "m" / "2" / "manifest.json").unlink()
    by_default, _ = list_models(store)
    assert [bool(version.served) for version in by_default] == [True, False, True]
    assert "alias stable" in by_default[0].served
    assert "latest" in by_default[2].served
    assert by_default[0].content == by_default[2].content
    assert by_default[1].content is None
    pinned, _ = list_models(store, "m=pinned:2")
    assert "pinned:2" in pinned[1].served
    assert pinned[2].served == ""


def test_finding_a_version(store: Path, sources: dict[str, Path], add_version: Callable[..., Added]) -> None:
    for _ in range(2):
        add_version(store, "m", sources["two.keras"])
    assert find(LocalStore(store), "m", None).version == 2
    assert find(LocalStore(store), "m", 1).version == 1
    for key, version in (("m", 3), ("other", None)):
        with pytest.raises(NotInStoreError, match="loadonce models list"):
            find(LocalStore(store), key, version)
