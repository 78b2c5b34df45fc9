"""Changing and checking a store: what the `models` commands do. Nothing is printed.

The one place where paths are made of names, after they have matched their patterns. Readers see a version, a signature
or an aliases file appear and go in one rename.
"""

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from consumer.models import digest, documents, manifest, trust
from consumer.models.documents import DocumentError
from consumer.models.engine import EngineError
from consumer.models.errors import LoadError, StaleError
from consumer.models.manifest import MANIFEST, MANIFEST_BYTES, SIGNATURE, Manifest
from consumer.models.measure import ROWS, Latency, measure
from consumer.models.opening import Opener
from consumer.models.policy import Policies, served
from consumer.models.runtime import Loaded
from consumer.models.servable import Format, ServingOptions
from consumer.models.signature import Signature
from consumer.models.store import (
    ALIAS,
    ALIASES,
    MODEL_FILES,
    NAME,
    VERSION,
    Catalog,
    LocalStore,
    Located,
    ModelEntry,
    Store,
    locate,
)
from consumer.models.watcher import SPACING_S

MEASURE_S = 2.0
"""What adding a version may take for its latencies."""
WARM_UP_MS = 250.0
"""What warming up may take by what was measured; one and two rows are predicted in any case."""

_SUFFIXES = {".keras": "model.keras", ".h5": "model.h5", ".hdf5": "model.h5"}


class EditError(Exception):
    """What was asked for cannot be done. One line: cause and remedy."""


class NotInStoreError(EditError):
    """The store, or what was named in it, is not there."""


@dataclass(frozen=True, slots=True)
class Added:
    """A version that is now in the store. No `latencies`: the model does not take zeros."""

    key: str
    version: int
    format: Format
    path_in_store: str
    nbytes: int
    open_seconds: float
    signature: Signature
    serving: ServingOptions
    signed: bool
    latencies: tuple[Latency, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A version in the store. `nbytes` are those of its files; `state` is `ready`, `copying` or why it is refused.

    `content` is the digest of what is opened, as the manifest states it, unchecked: the same for the same files.
    `served` says which jobs it answers, by the policy; empty: those that name it.
    """

    key: str
    version: int
    format: str
    path_in_store: str
    nbytes: int
    aliases: tuple[str, ...]
    has_manifest: bool
    is_signed: bool
    content: str | None
    served: str
    state: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What opening a version showed. `problem` is None where it can be served; `has_digests`: they were checked.

    `signature`: `none`, `good`, `bad`, or `not checked` where no key was given.
    """

    key: str
    version: int
    has_digests: bool
    signature: str
    problem: str | None
    open_seconds: float


@dataclass(frozen=True, slots=True)
class Signed:
    """A version that was signed; `content` is the digest of what is opened."""

    key: str
    version: int
    content: str


def add_version(
    store: Path,
    key: str,
    source: Path,
    version: int | None = None,
    *,
    opener: Opener,
    batch_buckets: tuple[int, ...] = (),
    jit_compile: bool = False,
    private_key: bytes | None = None,
    measure_s: float = MEASURE_S,
    told: Callable[[str], None] = lambda _: None,
) -> Added:
    """Copy a `.keras`, `.h5` or `.hdf5` file or a SavedModel's folder into the store, if it can be opened and called.

    Without a version it becomes the highest there is and one more. The store's folder is made if only it is missing.
    `opener` must not ask for signatures. `private_key`: 32 bytes of ed25519, to sign it with. `told` gets what happens.
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
        told(f"copying {source}")
        _copy(source, new)
        stated = Manifest(_digests(new), serving=ServingOptions((1, 2), batch_buckets, jit_compile))
        _write_manifest(new, stated)
        told("opening it in a process of its own")
        loaded = _opened(_located(key, version or 0, new), opener)
        try:
            latencies = _measured(loaded, batch_buckets, measure_s, told)
        finally:
            loaded.close()
        stated = Manifest(
            stated.files,
            loaded.signature.inputs,
            loaded.signature.outputs,
            ServingOptions(_warmup_rows(latencies, loaded.signature), batch_buckets, jit_compile),
        )
        _write_manifest(new, stated)
        number = _publish(new, store, key, version, private_key)
    return Added(
        key=key,
        version=number,
        format=loaded.format,
        path_in_store=f"{key}/{number}/{loaded.path_in_store.rpartition('/')[2]}",
        nbytes=loaded.nbytes,
        open_seconds=loaded.load_seconds,
        signature=loaded.signature,
        serving=stated.serving,
        signed=private_key is not None,
        latencies=latencies,
    )


def sign_version(store: Path, key: str, version: int | None, private_key: bytes) -> Signed:
    """Sign the manifest of a version, the highest if none is named, once its files are as it says. EditError; OSError.

    `private_key`: 32 bytes of ed25519. A signature that is there already is replaced.
    """
    located = find(LocalStore(store), key, version)
    version = located.version
    what = f"{key}/{version}"
    if located.refusal is not None:
        raise EditError(f"{what} cannot be signed: {located.refusal}")
    if located.manifest is None or not located.manifest.files:
        raise EditError(f"{what} cannot be signed: it has no manifest with digests; `loadonce models add` writes one")
    try:
        text = documents.read(located.path / MANIFEST, MANIFEST_BYTES)
        unchanged = manifest.parse(text) == located.manifest
        content = trust.verify(located, require_manifest=True, public_key=None)
    except (DocumentError, LoadError) as error:
        raise EditError(f"{what} cannot be signed: {error}") from None
    if not unchanged:
        raise EditError(f"{what} was changed by somebody else just now; try again")
    with _workplace(store) as work:
        new = work / SIGNATURE
        new.write_text(trust.sign(text, key, version, private_key), "ascii")
        _sync(work)
        new.replace(located.path / SIGNATURE)
        _sync_one(located.path)
    return Signed(key, version, content)


def find(store: Store, key: str, version: int | None) -> Located:
    """A version of the store, the highest if none is named. EditError."""
    _check_key(key)
    entry = _settled(store).models.get(key)
    if entry is None:
        raise _unknown(f"the store has no model '{key}'")
    located = next(iter(entry.versions[n] for n in entry.newest_first if version in (None, n)), None)
    if located is None:
        raise _unknown(f"{key} has no version {version}" if version is not None else f"{key} has no version yet")
    return located


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


def list_models(store: Store, policies: Policies) -> tuple[list[Listed], list[str]]:
    """The store's versions, by name and version, and what is wrong in it, a line each. EditError: no store."""
    catalog = _settled(store)
    listed = []
    for key, entry in catalog.models.items():
        why = served(entry, policies.of(key))
        for version in sorted(entry.versions.keys() | entry.settling.keys()):
            located = entry.versions.get(version)
            files = located.fingerprint if located else entry.settling[version]
            names = {file[0] for file in files}
            model_file = next((name for name in MODEL_FILES if name in names), "")
            listed.append(
                Listed(
                    key=key,
                    version=version,
                    format=MODEL_FILES.get(model_file, ""),
                    path_in_store=f"{key}/{version}/{model_file}" if located is None else located.path_in_store,
                    nbytes=sum(file[1] for file in files),
                    aliases=tuple(sorted(alias for alias, at in entry.aliases.items() if at == version)),
                    has_manifest=MANIFEST in names,
                    is_signed=SIGNATURE in names,
                    content=_stated_content(located),
                    served=why.get(version, ""),
                    state="copying" if version in entry.settling else (located and located.refusal) or "ready",
                )
            )
    return listed, catalog.problems


def verify(
    store: Store, key: str | None = None, *, opener: Opener, public_key: bytes | None = None
) -> Iterator[Verified]:
    """Check digests and signatures and open every version, of one model or of all; one result each, as they come.

    `public_key`: 32 bytes of ed25519, those of the opener's options. EditError.
    """
    if key is not None:
        _check_key(key)
    catalog = _settled(store)
    if key is not None and key not in catalog.models:
        raise _unknown(f"the store has no model '{key}'")
    for name in catalog.models if key is None else [key]:
        entry = catalog.models[name]
        for version in sorted(entry.settling.keys() - entry.versions.keys()):
            yield Verified(
                name, version, has_digests=False, signature="none", problem="it is still being copied", open_seconds=0.0
            )
        for _, located in sorted(entry.versions.items()):
            yield _verified(store, located, opener, public_key)


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


def _catalog(store: Store) -> Catalog:
    if isinstance(store, LocalStore) and not store.root.is_dir():
        raise NotInStoreError(f"the model store {store.root} is not a folder")
    catalog = store.scan(None, time.time())
    if catalog.problem:
        raise EditError(catalog.problem)
    return catalog


def _settled(store: Store) -> Catalog:
    """The store at a second look, where the first has seen something that may still be being copied."""
    catalog = _catalog(store)
    if catalog.settling:
        time.sleep(SPACING_S)
        catalog = store.scan(catalog, time.time())
    return catalog


def _entry(store: Path, key: str) -> ModelEntry:
    entry = _catalog(LocalStore(store)).models.get(key)
    if entry is None:
        raise _unknown(f"the store has no model '{key}'")
    return entry


def _stated_content(located: Located | None) -> str | None:
    if located is None or located.manifest is None:
        return None
    stated = located.manifest.files
    opened = located.opened_files
    return digest.content_id({name: stated[name] for name in opened}) if stated.keys() >= set(opened) else None


def _verified(store: Store, located: Located, opener: Opener, public_key: bytes | None) -> Verified:
    began = time.perf_counter()
    problem = None
    signature = "not checked" if trust.is_signed(located) else "none"
    try:
        fetched = store.fetch(located, threading.Event())
        if public_key is not None and trust.is_signed(located):
            signature = "bad"
            trust.check_signed(fetched, public_key)
            signature = "good"
        opener.open(fetched, threading.Event()).close()
    except LoadError as error:
        problem = str(error)
    except StaleError:
        problem = "its files changed while it was opened"
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    has_digests = located.manifest is not None and bool(located.manifest.files)
    return Verified(located.key, located.version, has_digests, signature, problem, time.perf_counter() - began)


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
                source, target, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(".*", MANIFEST, SIGNATURE)
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


def _opened(located: Located, opener: Opener) -> Loaded:
    try:
        return opener.open(located, threading.Event())
    except LoadError as error:
        raise EditError(f"the model cannot be served: {error}") from error
    except StaleError:
        raise EditError("the copy was changed by somebody else while it was opened; try again") from None


def _measured(
    loaded: Loaded, buckets: tuple[int, ...], budget_s: float, told: Callable[[str], None]
) -> tuple[Latency, ...]:
    told("measuring it by batch size")
    try:
        return tuple(measure(loaded, buckets or ROWS, budget_s))
    except EngineError as error:
        raise EditError(f"the model cannot be served: it failed while it was measured: {error}") from error


def _warmup_rows(latencies: Sequence[Latency], signature: Signature) -> tuple[int, ...]:
    """One and two, whose outputs are checked, and the larger sizes that are quick enough; a model of fixed rows: those.

    What a size needs, memory above all, is then there before its first job.
    """
    if signature.rows is not None:
        return (signature.rows,)
    rows = [1, 2]
    spent = 0.0
    for latency in latencies:
        spent += latency.ms
        if latency.rows > 2 and spent <= WARM_UP_MS:
            rows.append(latency.rows)
    return tuple(rows)


def _digests(folder: Path) -> Mapping[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest.sha256(path) for path in files}


def _write_manifest(folder: Path, stated: Manifest) -> None:
    """Over the one that is there: nobody sees this folder yet."""
    (folder / MANIFEST).write_text(json.dumps(manifest.document_of(stated), indent=2) + "\n", "utf-8")


def _publish(new: Path, store: Path, key: str, version: int | None, private_key: bytes | None) -> int:
    """Rename the folder to its place; of two who add the next version at once, each gets a number of its own."""
    model = store / key
    model.mkdir(exist_ok=True)
    while True:
        number = max(_version_folders(store, key), default=0) + 1 if version is None else version
        _check_version(number)
        if private_key is not None:  # the number is part of what is signed
            text = trust.sign((new / MANIFEST).read_bytes(), key, number, private_key)
            (new / SIGNATURE).write_text(text, "ascii")
        _sync(new)
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
