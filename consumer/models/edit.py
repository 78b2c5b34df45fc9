"""Changing and checking a store: what the `models` commands do. Nothing is printed.

The one place where paths are made of names, after they have matched their patterns. Readers see a version, or an
aliases file, appear and go in one rename.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumer.models import digest
from consumer.models.errors import LoadError, StaleError
from consumer.models.formats import OpenOptions, open_model
from consumer.models.runtime import Format, Loaded, Signature, TensorSpec
from consumer.models.store import (
    ALIAS,
    ALIASES,
    MANIFEST,
    MODEL_FILES,
    NAME,
    VERSION,
    Catalog,
    Located,
    ModelEntry,
    locate,
    scan,
)
from consumer.models.watcher import SPACING_S

_SUFFIXES = {".keras": "model.keras", ".h5": "model.h5", ".hdf5": "model.h5"}


class EditError(Exception):
    """What was asked for cannot be done. One line: cause and remedy."""


class NotInStoreError(EditError):
    """The store, or what was named in it, is not there."""


@dataclass(frozen=True, slots=True)
class Added:
    """A version that is now in the store."""

    key: str
    version: int
    format: Format
    path_in_store: str
    nbytes: int
    open_seconds: float
    signature: Signature


@dataclass(frozen=True, slots=True)
class Listed:
    """A version in the store. `nbytes` are those of its files; `state` is `ready`, `copying` or why it is refused."""

    key: str
    version: int
    format: str
    path_in_store: str
    nbytes: int
    aliases: tuple[str, ...]
    has_manifest: bool
    state: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What opening a version showed. `problem` is None where it can be served; `has_digests`: they were checked."""

    key: str
    version: int
    has_digests: bool
    problem: str | None
    open_seconds: float


def add_version(
    store: Path, key: str, source: Path, version: int | None = None, *, trusted_h5: frozenset[str] = frozenset()
) -> Added:
    """Copy a `.keras`, `.h5` or `.hdf5` file or a SavedModel's folder into the store, if it can be opened and called.

    Without a version it becomes the highest there is and one more. The store's folder is made if only it is missing.
    EditError; OSError for a disk that does not do its part.
    """
    _check_key(key)
    if version is not None:
        _check_version(version)
    _check_source(source)
    try:
        store.mkdir(exist_ok=True)
    except (FileNotFoundError, FileExistsError):
        raise NotInStoreError(f"the model store {store} is not a folder and cannot be made") from None
    if version is not None and version in _version_folders(store, key):
        raise EditError(f"{key} has a version {version} already; remove it first or choose another")
    with _workplace(store) as work:
        new = work / "new"
        _copy(source, new)
        loaded = _opened(_located(key, version or 0, new), trusted_h5)
        _write_manifest(new, loaded.signature)
        _sync(new)
        number = _publish(new, store, key, version)
    return Added(
        key=key,
        version=number,
        format=loaded.format,
        path_in_store=f"{key}/{number}/{loaded.path_in_store.rpartition('/')[2]}",
        nbytes=loaded.nbytes,
        open_seconds=loaded.load_seconds,
        signature=loaded.signature,
    )


def remove_version(store: Path, key: str, version: int) -> None:
    """Take a version out of the store: in one rename, then its files. EditError: it is not there, or has an alias."""
    _check_key(key)
    entry = _entry(store, key)
    folders = _version_folders(store, key)
    if version not in folders:
        raise _unknown(f"{key} has no version {version}")
    names = sorted(alias for alias, at in entry.aliases.items() if at == version)
    if names:
        raise EditError(f"alias '{names[0]}' of {key} is version {version}; move or remove the alias first")
    with _workplace(store) as work:
        for folder in folders[version]:
            folder.rename(work / folder.name)
        _sync_one(store / key)
    if not any((store / key).iterdir()):
        (store / key).rmdir()


def set_alias(store: Path, key: str, alias: str, version: int) -> None:
    """Let an alias be a version that the store has. EditError."""
    _check_key(key)
    if not ALIAS.fullmatch(alias):
        raise EditError(f"alias {alias!r}: a letter, then up to 63 letters, digits, '.', '_' or '-'")
    entry = _entry(store, key)
    if version not in entry.versions and version not in entry.settling:
        raise _unknown(f"{key} has no version {version}")
    _write_aliases(store, key, {**_aliases(entry, key), alias: version})


def remove_alias(store: Path, key: str, alias: str) -> None:
    """Forget an alias. EditError where there is none."""
    _check_key(key)
    entry = _entry(store, key)
    aliases = dict(_aliases(entry, key))
    if aliases.pop(alias, None) is None:
        raise _unknown(f"{key} has no alias {alias!r}")
    _write_aliases(store, key, aliases)


def list_models(store: Path) -> tuple[list[Listed], list[str]]:
    """The store's versions, by name and version, and what is wrong in it, a line each. EditError: no store."""
    catalog = _catalog(store)
    listed = []
    for key, entry in catalog.models.items():
        for version in sorted(entry.versions.keys() | entry.settling.keys()):
            located = entry.versions.get(version)
            files = located.fingerprint if located else entry.settling[version]
            model_file = next((name for name in MODEL_FILES if name in {file[0] for file in files}), "")
            listed.append(
                Listed(
                    key=key,
                    version=version,
                    format=MODEL_FILES.get(model_file, ""),
                    path_in_store=f"{key}/{version}/{model_file}" if located is None else located.path_in_store,
                    nbytes=sum(file[1] for file in files),
                    aliases=tuple(sorted(alias for alias, at in entry.aliases.items() if at == version)),
                    has_manifest=any(file[0] == MANIFEST for file in files),
                    state="copying" if version in entry.settling else (located and located.refusal) or "ready",
                )
            )
    return listed, catalog.problems


def verify(store: Path, key: str | None = None, *, trusted_h5: frozenset[str] = frozenset()) -> Iterator[Verified]:
    """Check digests and open every version, of one model or of all; one result each, as they come. EditError."""
    if key is not None:
        _check_key(key)
    catalog = _catalog(store)
    if catalog.settling:
        time.sleep(SPACING_S)
        catalog = scan(store, catalog, time.time())
    if key is not None and key not in catalog.models:
        raise _unknown(f"the store has no model '{key}'")
    for name in catalog.models if key is None else [key]:
        entry = catalog.models[name]
        for version in sorted(entry.settling.keys() - entry.versions.keys()):
            yield Verified(name, version, has_digests=False, problem="it is still being copied", open_seconds=0.0)
        for version, located in sorted(entry.versions.items()):
            began = time.perf_counter()
            problem = None
            try:
                open_model(located, OpenOptions(trusted_h5, sys.maxsize))
            except LoadError as error:
                problem = str(error)
            except StaleError:
                problem = "its files changed while it was opened"
            has_digests = located.manifest is not None and bool(located.manifest.files)
            yield Verified(name, version, has_digests, problem, time.perf_counter() - began)


# names -------------------------------------------------------------------------------------------------------------


def _check_key(key: str) -> None:
    if not NAME.fullmatch(key):
        raise EditError(f"model name {key!r}: a letter or digit, then up to 127 letters, digits, '.', '_' or '-'")


def _check_version(version: int) -> None:
    if not VERSION.fullmatch(str(version)):
        raise EditError(f"version {version}: an integer of 1 to 18 digits")


def _check_source(source: Path) -> None:
    if not source.exists():
        raise NotInStoreError(f"{source}: no such file or folder")
    is_saved_model = source.is_dir() and (source / "saved_model.pb").is_file()
    if not is_saved_model and not (source.is_file() and source.suffix.lower() in _SUFFIXES):
        raise EditError(f"{source}: neither a .keras, .h5 or .hdf5 file nor a SavedModel's folder")


# reading -----------------------------------------------------------------------------------------------------------


def _catalog(store: Path) -> Catalog:
    if not store.is_dir():
        raise NotInStoreError(f"the model store {store} is not a folder")
    catalog = scan(store, None, time.time())
    if catalog.problem:
        raise EditError(catalog.problem)
    return catalog


def _entry(store: Path, key: str) -> ModelEntry:
    entry = _catalog(store).models.get(key)
    if entry is None:
        raise _unknown(f"the store has no model '{key}'")
    return entry


def _unknown(what: str) -> NotInStoreError:
    return NotInStoreError(f"{what}; `loadonce models list` shows them")


def _aliases(entry: ModelEntry, key: str) -> Mapping[str, int]:
    for problem in entry.problems:
        if problem.startswith(ALIASES):
            raise EditError(f"{key}: {problem}; mend or remove the file first")
    return entry.aliases


def _version_folders(store: Path, key: str) -> dict[int, list[Path]]:
    """Every folder that denotes a version, `01` and `1` alike, with a model in it or not."""
    folders: dict[int, list[Path]] = {}
    if (store / key).is_dir():
        for path in (store / key).iterdir():
            if VERSION.fullmatch(path.name):
                folders.setdefault(int(path.name), []).append(path)
    return folders


# writing -----------------------------------------------------------------------------------------------------------


@contextmanager
def _workplace(store: Path) -> Iterator[Path]:
    """A folder on the store's file system that no look at the store sees; gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix=".loadonce-", dir=store))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        try:
            shutil.copytree(
                source, target, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(".*", MANIFEST)
            )
        except shutil.Error as error:
            raise EditError(f"{source} cannot be copied: {error.args[0][0][2]}") from None
        for path in (target, *target.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    else:
        target.mkdir()
        shutil.copyfile(source, target / _SUFFIXES[source.suffix.lower()])
        target.chmod(0o755)


def _located(key: str, version: int, path: Path) -> Located:
    located = locate(path, key, version)
    if located is None:
        raise EditError("the source holds no model")
    return located


def _opened(located: Located, trusted_h5: frozenset[str]) -> Loaded:
    try:
        return open_model(located, OpenOptions(trusted_h5, sys.maxsize))
    except LoadError as error:
        raise EditError(f"the model cannot be served: {error}") from error
    except StaleError:
        raise EditError("the copy was changed by somebody else while it was opened; try again") from None


def _write_manifest(folder: Path, signature: Signature) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    document = {
        "files": {path.relative_to(folder).as_posix(): digest.sha256(path) for path in files},
        "inputs": [_spec(spec) for spec in signature.inputs],
        "outputs": [_spec(spec) for spec in signature.outputs],
    }
    (folder / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def _spec(spec: TensorSpec) -> dict[str, Any]:
    # As the Open Inference Protocol's model metadata has it: -1 is a dimension that may vary.
    shape = None if spec.shape is None else [-1 if dim is None else dim for dim in spec.shape]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape}


def _publish(new: Path, store: Path, key: str, version: int | None) -> int:
    """Rename the folder to its place; of two who add the next version at once, each gets a number of its own."""
    model = store / key
    model.mkdir(exist_ok=True)
    while True:
        number = max(_version_folders(store, key), default=0) + 1 if version is None else version
        _check_version(number)
        try:
            new.rename(model / str(number))  # fails where a folder with anything in it is in the way
        except OSError:
            if not (model / str(number)).exists():
                raise
            if version is not None:
                raise EditError(f"{key} has a version {number} already; remove it first or choose another") from None
        else:
            _sync_one(model)
            _sync_one(store)
            return number


def _write_aliases(store: Path, key: str, aliases: Mapping[str, int]) -> None:
    with _workplace(store) as work:
        new = work / ALIASES
        new.write_text(json.dumps(dict(sorted(aliases.items())), indent=2) + "\n", "utf-8")
        _sync(work)
        new.replace(store / key / ALIASES)
        _sync_one(store / key)


def _sync(folder: Path) -> None:
    """Make sure that what the rename will show is on the disk."""
    for path in (*folder.rglob("*"), folder):
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
