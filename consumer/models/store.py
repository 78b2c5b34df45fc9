"""The model store: a look at it gives a frozen catalog of names, versions and aliases.

    <store>/<name>/<version>/model.keras | model.h5 | saved_model.pb + variables/, manifest.json (optional)
    <store>/<name>/aliases.json (optional)

Everything in it is a stranger's until checked: names by pattern, sizes and counts by limits, symbolic links by where
they lead. What is wrong with one model is that model's problem only.
"""

import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from consumer.models import documents, manifest
from consumer.models.documents import DocumentError
from consumer.models.manifest import MANIFEST, MANIFEST_BYTES, MAX_FILES, NAME_BYTES, PATH_BYTES, SIGNATURE, Manifest
from schemas.headers import ALIAS_PATTERN, MODEL_KEY_PATTERN, VERSION_PATTERN

NAME = re.compile(MODEL_KEY_PATTERN)
VERSION = re.compile(VERSION_PATTERN)
ALIAS = re.compile(ALIAS_PATTERN)

ALIASES = "aliases.json"
MODEL_FILES = {"model.keras": "keras", "model.h5": "h5", "saved_model.pb": "savedmodel"}
"""The file that makes a folder a version, by format; the first one found counts."""

MAX_MODELS = 100_000
MAX_VERSIONS = 10_000
MAX_DEPTH = 16
ALIASES_BYTES = 64 * 1024
SETTLED_S = 2.0
"""Files that nobody has written for this long are taken to be complete."""

_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What following a symbolic link gives where there is nothing at its end, or no end."""

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Relative name, bytes, mtime in ns and inode of each file of a version, sorted."""


@dataclass(frozen=True, slots=True)
class Located:
    """A version that a look at the store has found. `refusal` says why it must not be opened, where it must not."""

    key: str
    version: int
    path: Path
    files: tuple[str, ...]
    fingerprint: Fingerprint
    manifest: Manifest | None
    refusal: str | None = None

    @property
    def model_file(self) -> str:
        """The file that is opened; the first of `MODEL_FILES` that is there."""
        return next((name for name in MODEL_FILES if name in self.files), "")

    @property
    def opened_files(self) -> tuple[str, ...]:
        """The files that opening it reads: of a SavedModel, whose folder TensorFlow is handed, all."""
        if self.model_file != "saved_model.pb":
            return (self.model_file,) if self.model_file else ()
        return tuple(name for name in self.files if name not in (MANIFEST, SIGNATURE))

    @property
    def path_in_store(self) -> str:
        """`name/version/file`, for people."""
        return f"{self.key}/{self.path.name}/{self.model_file}".rstrip("/")

    @property
    def nbytes(self) -> int:
        """Bytes of its files."""
        return sum(entry[1] for entry in self.fingerprint)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What the store has under one name. `settling` are versions that may still be being copied, as last seen."""

    versions: Mapping[int, Located]
    aliases: Mapping[str, int]
    settling: Mapping[int, Fingerprint] = field(default_factory=dict)
    stuck: frozenset[int] = frozenset()
    """Those of `settling` that lack files and were the same at the look before: looking soon tells no more of them."""
    problems: tuple[str, ...] = ()
    unreadable: bool = False
    """An I/O error kept the look from seeing all of it."""

    @property
    def newest_first(self) -> list[int]:
        """The versions, highest first."""
        return sorted(self.versions, reverse=True)

    @property
    def moving(self) -> frozenset[int]:
        """The versions that a second look may settle."""
        return frozenset(self.settling) - self.stuck


NOTHING = ModelEntry({}, {})
"""What is known of a model before the first look at it."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All names of the store at one look."""

    models: Mapping[str, ModelEntry]
    problem: str | None = None
    """Why the store itself cannot be read; `models` are then those of the look before."""

    def located(self, key: str, version: int) -> Located | None:
        """This version, if it is there and complete."""
        entry = self.models.get(key)
        return entry.versions.get(version) if entry else None

    @property
    def settling(self) -> bool:
        """Whether a second look would tell more."""
        return self.problem is None and any(entry.moving for entry in self.models.values())

    @property
    def problems(self) -> list[str]:
        """Everything that is not as it should be, a line each."""
        own = [self.problem] if self.problem else []
        return own + [f"{key}: {text}" for key, entry in self.models.items() for text in entry.problems]


class Store(Protocol):
    """Where models come from. `scan` and `look_again` are for one thread at a time each, `fetch` for any."""

    def scan(self, previous: Catalog | None, now: float) -> Catalog:
        """Look at the store. `now` is seconds since the epoch. Never raises for what is in it, or for its absence."""

    def look_again(self, located: Located) -> Fingerprint | None:
        """The fingerprint that a version's files have now; None where it is gone or must not be opened. OSError."""

    def fetch(self, located: Located, cancelled: threading.Event) -> Located:
        """The version with its files on this machine's disk: blocks until they are, or it is cancelled. LoadError."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder of this machine, or one that is mounted."""

    root: Path

    def scan(self, previous: Catalog | None, now: float) -> Catalog:
        """As `Store.scan`."""
        return scan(self.root, previous, now)

    def look_again(self, located: Located) -> Fingerprint | None:
        """As `Store.look_again`."""
        return look_again(located)

    def fetch(self, located: Located, cancelled: threading.Event) -> Located:  # noqa: ARG002 - nothing to wait for
        """The version as it is: its files are on a disk."""
        return located


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """What must not be opened."""


def scan(root: Path, previous: Catalog | None, now: float) -> Catalog:
    """Look at the store. `now` is seconds since the epoch. Never raises for what is in it, or for its absence."""
    before = previous.models if previous else {}
    try:
        real_root = Path(os.path.realpath(root, strict=True))
        names = sorted(entry.name for entry in _entries(root, MAX_MODELS) if NAME.fullmatch(entry.name))
    except (OSError, _Refused) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Catalog(before, f"the model store cannot be read: {why}; what was known of it stays")
    models = {}
    for name in names:
        had = before.get(name, NOTHING)
        entry = _look_at_model(real_root, root / name, had, now)
        if entry is not None:
            models[name] = had if entry == had else entry
    return Catalog(models)


def look_again(located: Located) -> Fingerprint | None:
    """The fingerprint that a version's files have now; None where it is gone or must not be opened. OSError."""
    root = Path(os.path.realpath(located.path.parent.parent, strict=True))
    try:
        return _fingerprint(root, located.path) or None
    except (_Refused, FileNotFoundError):
        return None


def locate(path: Path, key: str, version: int) -> Located | None:
    """One version's folder, two below its store, whatever it is called; None where it holds no model. OSError."""
    return _look_at_version(Path(os.path.realpath(path.parent.parent, strict=True)), key, version, path, None)


def take_versions(
    had: ModelEntry,
    numbers: Iterable[int],
    look: Callable[[int, Located | None], Located | None],
    is_settled: Callable[[Located, Fingerprint | None], bool],
) -> ModelEntry:
    """A model's versions by the rules of every store: one is taken when it has settled, and is as it was until then.

    `look` gives what there is now of a version, by what was known of it; None or FileNotFoundError: no version;
    OSError: not to be told. `is_settled` goes by the fingerprint that was settling at the look before. The aliases
    are those of before.
    """
    versions: dict[int, Located] = {}
    settling: dict[int, Fingerprint] = {}
    stuck: set[int] = set()
    problems: list[str] = []
    unreadable = False
    for number in numbers:
        known, seen_before = had.versions.get(number), had.settling.get(number)
        try:
            found = look(number, known)
        except FileNotFoundError:
            continue
        except OSError as error:
            unreadable = True
            problems.append(f"version {number} cannot be read: {error.strerror}")
            found = known
        if found is None:
            continue
        if known is not None:
            versions[number] = known
        if found == known:
            continue
        if is_settled(found, seen_before):
            versions[number] = found
            continue
        settling[number] = found.fingerprint
        if found.fingerprint == seen_before:
            stuck.add(number)
            problems.append(f"version {number} {_lacks(found)}; is it still being copied?")
    return ModelEntry(versions, had.aliases, settling, frozenset(stuck), tuple(problems), unreadable)


def _lacks(found: Located) -> str:
    stated = found.manifest.files if found.manifest else {}
    name = next((name for name in stated if name not in found.files), None)
    return "loses files during each look" if name is None else f"lacks {name!r}, which its manifest names"


def _look_at_model(root: Path, path: Path, had: ModelEntry, now: float) -> ModelEntry | None:
    problems: list[str] = []
    try:
        _must_stay_in(root, path)
        if not stat.S_ISDIR(path.stat().st_mode):
            return None
        folders = _version_folders(path, problems)
    except FileNotFoundError:
        return None
    except _Refused as error:
        return ModelEntry({}, {}, problems=(str(error),))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        return replace(had, stuck=frozenset(had.settling), problems=(problem,), unreadable=True)
    taken = take_versions(
        had,
        folders,
        lambda number, known: _look_at_version(root, path.name, number, folders[number], known),
        lambda found, seen_before: _settled(found, seen_before, now),
    )
    aliases = _aliases(root, path, had.aliases, problems)
    return replace(taken, aliases=aliases, problems=(*problems, *taken.problems))


def _version_folders(path: Path, problems: list[str]) -> dict[int, Path]:
    folders: dict[int, Path] = {}
    for entry in sorted(_entries(path, MAX_VERSIONS), key=lambda entry: (len(entry.name), entry.name)):
        # Shorter first: of `1` and `01` the first is the one that counts.
        if VERSION.fullmatch(entry.name) and (entry.is_symlink() or entry.is_dir(follow_symlinks=False)):
            number = int(entry.name)
            if number in folders:
                problems.append(
                    f"'{folders[number].name}' and '{entry.name}' are one version; '{folders[number].name}' is used"
                )
            else:
                folders[number] = path / entry.name
    return folders


def _look_at_version(root: Path, key: str, number: int, path: Path, had: Located | None) -> Located | None:
    """None: no version, or not yet. Without files and without a refusal: they were being replaced during the look."""
    try:
        fingerprint = _fingerprint(root, path)
        if not fingerprint:
            return None
        if had is not None and had.fingerprint == fingerprint and had.path == path:
            return had
        files = tuple(entry[0] for entry in fingerprint)
        stated = manifest.parse(documents.read(path / MANIFEST, MANIFEST_BYTES)) if MANIFEST in files else None
    except DocumentError as error:
        return Located(key, number, path, files, fingerprint, None, str(error))
    except _Refused as error:
        link = path.lstat()
        return Located(key, number, path, (), (("", link.st_size, link.st_mtime_ns, link.st_ino),), None, str(error))
    except FileNotFoundError:
        path.stat()  # raises it again where the whole version has gone
        return Located(key, number, path, (), (), None)
    return Located(key, number, path, files, fingerprint, stated)


def _fingerprint(root: Path, path: Path) -> Fingerprint:
    """Empty where there is no model file. _Refused for what must not be opened; OSError."""
    _must_stay_in(root, path)
    seen: list[tuple[str, int, int, int]] = []
    try:
        for name, info in _walk(root, path, "", 0):
            seen.append((name, info.st_size, info.st_mtime_ns, info.st_ino))
            if len(seen) > MAX_FILES:
                raise _Refused(f"it has more than {MAX_FILES} files")
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _Refused("a file's path is longer than the system takes") from None
        if error.errno == errno.ENOTDIR:
            raise _Refused("it has a file where a folder should be") from None
        raise
    return tuple(sorted(seen)) if any(name in MODEL_FILES for name, *_ in seen) else ()


def _walk(root: Path, folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    if depth > MAX_DEPTH:
        raise _Refused(f"its folders nest deeper than {MAX_DEPTH}")
    for entry in _entries(folder, MAX_FILES):
        if entry.name.startswith("."):
            continue  # temporary files of rsync and NFS
        if not manifest.fits(prefix + entry.name):
            raise _Refused(f"a file's name is not UTF-8, or longer than {NAME_BYTES} bytes ({PATH_BYTES} with folders)")
        if entry.is_symlink():
            _must_stay_in(root, Path(entry.path))
        info = entry.stat()
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(root, Path(entry.path), f"{prefix}{entry.name}/", depth + 1)
        elif stat.S_ISREG(info.st_mode):
            yield prefix + entry.name, info
        else:
            raise _Refused("it holds something that is neither a file nor a folder")


def _must_stay_in(root: Path, path: Path) -> None:
    """The folder that holds `path` has been checked before."""
    if not path.is_symlink():
        return
    try:
        target = Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno in _NOWHERE and path.is_symlink():  # else it is the link that has gone meanwhile
            raise _Refused("a symbolic link leads nowhere") from None
        raise
    if not target.is_relative_to(root):
        raise _Refused("a symbolic link leads out of the model store")


def _entries(folder: Path, limit: int) -> list["os.DirEntry[str]"]:
    entries = []
    with os.scandir(folder) as listing:
        for entry in listing:
            entries.append(entry)
            if len(entries) > limit:
                raise _Refused(f"a folder holds more than {limit} entries")
    return entries


def _settled(found: Located, seen_before: Fingerprint | None, now: float) -> bool:
    """Whether nobody is copying the version any more."""
    if not found.files:
        return found.refusal is not None
    if found.manifest is not None and not found.manifest.files.keys() <= set(found.files):
        return False
    if seen_before == found.fingerprint:
        return True
    try:
        # mtime can be preserved by whoever copies; ctime cannot.
        written = max((found.path / name).stat().st_ctime_ns for name in found.files)
        if found.manifest is not None and found.manifest.files and found.path.stat().st_ctime_ns > written:
            return True  # complete, and renamed to its place after the last write
    except OSError:
        return False
    return max(written, *(entry[2] for entry in found.fingerprint)) < (now - SETTLED_S) * 1e9


def _aliases(root: Path, folder: Path, had: Mapping[str, int], problems: list[str]) -> Mapping[str, int]:
    """The aliases; those of the look before where the file is broken."""
    path = folder / ALIASES
    try:
        _must_stay_in(root, path)
        return checked_aliases(documents.parse(documents.read(path, ALIASES_BYTES), ALIASES))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.append(f"{ALIASES} cannot be read: {error.strerror}")
    except _Refused as error:
        problems.append(f"{ALIASES}: {error}")
    except DocumentError as error:
        problems.append(str(error))
    return had


def checked_aliases(document: dict[str, Any]) -> Mapping[str, int]:
    """The aliases that an `aliases.json` holds. DocumentError."""
    for alias, version in document.items():
        if not ALIAS.fullmatch(alias) or type(version) is not int or not 0 <= version < 10**18:
            raise DocumentError(f"{ALIASES}: not every entry is an alias ({ALIAS_PATTERN}) and a version")
    return document
