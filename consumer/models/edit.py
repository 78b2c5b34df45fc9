"""Changing a store that is a folder: what the `models` commands do. Nothing is printed.

The one place where paths are made of names, after they have matched their patterns. Readers see a version, a signature
or an aliases file appear and go in one rename.
"""

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from consumer.models import digest, documents, manifest, trust
from consumer.models.contents import EditError, NotInStoreError, check_key, entry_of, find, unknown
from consumer.models.documents import DocumentError
from consumer.models.engine import EngineError, MixedPrecision
from consumer.models.errors import LoadError, StaleError
from consumer.models.manifest import MANIFEST, MANIFEST_BYTES, SIGNATURE, Manifest
from consumer.models.measure import ROWS, Latency, measure
from consumer.models.opening import Opener
from consumer.models.runtime import Loaded
from consumer.models.servable import Format, ServingOptions
from consumer.models.signature import Signature
from consumer.models.store import ALIAS, ALIASES, VERSION, LocalStore, Located, ModelEntry, locate
from consumer.models.workplace import sync, sync_one, workplace

MEASURE_S = 2.0
"""What adding a version may take for its latencies."""
WARM_UP_MS = 250.0
"""What warming up may take by what was measured; one and two rows are predicted in any case."""

_SUFFIXES = {".keras": "model.keras", ".h5": "model.h5", ".hdf5": "model.h5"}


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
    jit_compile: bool | None = None,
    mixed_precision: MixedPrecision | None = None,
    private_key: bytes | None = None,
    measure_s: float = MEASURE_S,
    told: Callable[[str], None] = lambda _: None,
) -> Added:
    """Copy a `.keras`, `.h5` or `.hdf5` file or a SavedModel's folder into the store, if it can be opened and called.

    Without a version it becomes the highest there is and one more. The store's folder is made if only it is missing.
    `jit_compile` and `mixed_precision` of None: as the process that serves it does by default.
    `opener` must not ask for signatures. `private_key`: 32 bytes of ed25519, to sign it with. `told` gets what happens.
    EditError; OSError for a disk that does not do its part.
    """
    check_key(key)
    if version is not None:
        _check_version(version)
    _check_source(source)
    try:
        store.mkdir(exist_ok=True)
    except (FileNotFoundError, FileExistsError):
        raise NotInStoreError(f"the model store {store} is not a folder and cannot be made") from None
    if version is not None and version in _version_folders(store, key):
        raise EditError(f"{key} has a version {version} already; remove it first or choose another")
    with workplace(store) as work:
        new = work / "new"
        told(f"copying {source}")
        _copy(source, new)
        stated = Manifest(_digests(new), serving=ServingOptions((1, 2), batch_buckets, jit_compile, mixed_precision))
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
            ServingOptions(_warmup_rows(latencies, loaded.signature), batch_buckets, jit_compile, mixed_precision),
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
    with workplace(store) as work:
        new = work / SIGNATURE
        new.write_text(trust.sign(text, key, version, private_key), "ascii")
        sync(work)
        new.replace(located.path / SIGNATURE)
        sync_one(located.path)
    return Signed(key, version, content)


def remove_version(store: Path, key: str, version: int) -> None:
    """Take a version out of the store: in one rename, then its files. EditError: it is not there, or has an alias."""
    check_key(key)
    entry = entry_of(store, key)
    folders = _version_folders(store, key)
    if version not in folders:
        raise unknown(f"{key} has no version {version}")
    names = sorted(alias for alias, at in entry.aliases.items() if at == version)
    if names:
        raise EditError(f"alias '{names[0]}' of {key} is version {version}; move or remove the alias first")
    with workplace(store) as work:
        for folder in folders[version]:
            folder.rename(work / folder.name)
        sync_one(store / key)
    if not any((store / key).iterdir()):
        (store / key).rmdir()


def set_alias(store: Path, key: str, alias: str, version: int) -> None:
    """Let an alias be a version that the store has. EditError."""
    check_key(key)
    if not ALIAS.fullmatch(alias):
        raise EditError(f"alias {alias!r}: a letter, then up to 63 letters, digits, '.', '_' or '-'")
    entry = entry_of(store, key)
    if version not in entry.versions and version not in entry.settling:
        raise unknown(f"{key} has no version {version}")
    _write_aliases(store, key, {**_aliases(entry, key), alias: version})


def remove_alias(store: Path, key: str, alias: str) -> None:
    """Forget an alias. EditError where there is none."""
    check_key(key)
    entry = entry_of(store, key)
    aliases = dict(_aliases(entry, key))
    if aliases.pop(alias, None) is None:
        raise unknown(f"{key} has no alias {alias!r}")
    _write_aliases(store, key, aliases)


def _check_version(version: int) -> None:
    if not VERSION.fullmatch(str(version)):
        raise EditError(f"version {version}: an integer of 1 to 18 digits")


def _check_source(source: Path) -> None:
    if not source.exists():
        raise NotInStoreError(f"{source}: no such file or folder")
    is_saved_model = source.is_dir() and (source / "saved_model.pb").is_file()
    if not is_saved_model and not (source.is_file() and source.suffix.lower() in _SUFFIXES):
        raise EditError(f"{source}: neither a .keras, .h5 or .hdf5 file nor a SavedModel's folder")


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
        sync(new)
        try:
            new.rename(model / str(number))  # fails where a folder with anything in it is in the way
        except OSError:
            if not (model / str(number)).exists():
                raise
            if version is not None:
                raise EditError(f"{key} has a version {number} already; remove it first or choose another") from None
        else:
            sync_one(model)
            sync_one(store)
            return number


def _write_aliases(store: Path, key: str, aliases: Mapping[str, int]) -> None:
    with workplace(store) as work:
        new = work / ALIASES
        new.write_text(json.dumps(dict(sorted(aliases.items())), indent=2) + "\n", "utf-8")
        sync(work)
        new.replace(store / key / ALIASES)
        sync_one(store / key)
