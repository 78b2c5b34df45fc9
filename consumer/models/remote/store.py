"""A store in a bucket, by the rules of a store in a folder."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from consumer.models import digest, documents, manifest
from consumer.models import store as local
from consumer.models.documents import DocumentError
from consumer.models.errors import PassingLoadError, PermanentLoadError, StaleError, TooLargeError
from consumer.models.manifest import MANIFEST, MANIFEST_BYTES, Manifest
from consumer.models.remote.downloads import Downloads
from consumer.models.remote.listing import ModelObjects, fingerprint, group, version_folders
from consumer.models.remote.objects import PIECE_BYTES, Blob, Objects, UnavailableError
from consumer.models.store import (
    ALIASES,
    ALIASES_BYTES,
    MAX_MODELS,
    MAX_VERSIONS,
    NOTHING,
    Catalog,
    Fingerprint,
    Located,
    ModelEntry,
    checked_aliases,
    take_versions,
)

DOCUMENTS_AT_A_LOOK = 2048
"""New manifests and aliases that one look reads."""


@dataclass(frozen=True, slots=True)
class _Document:
    """What a manifest or the aliases were when their object looked like `blob`; or what is wrong with them."""

    blob: Blob
    parsed: Manifest | Mapping[str, int] | str


class RemoteStore:
    """A `Store` over objects; versions are downloaded to `cache`, which holds `cache_bytes` at most.

    A look costs one request per 1000 objects, and one for each manifest or aliases file that has changed. Objects
    appear whole but one by one, so a version is complete when all files of its manifest are there, or, without a
    manifest, when two looks have seen the same.
    """

    def __init__(self, objects: Objects, cache: Path, cache_bytes: int) -> None:
        self._objects = objects
        self._downloads = Downloads(cache, cache_bytes)
        self._documents: dict[str, _Document] = {}

    # looking ---------------------------------------------------------------------------------------------------------

    def scan(self, previous: Catalog | None, now: float) -> Catalog:  # noqa: ARG002 - no clock here is the store's
        """Look at the store. Raises for nothing that is in it, nor for its absence; see `Store.scan`."""
        before = previous.models if previous else {}
        try:
            models = group(self._objects.list())
            if len(models) > MAX_MODELS:
                raise UnavailableError(f"it has more than {MAX_MODELS} models")
            unread = self._read_documents(models)
        except OSError as error:
            return Catalog(before, f"the model store cannot be read: {error.strerror}; what was known of it stays")
        entries = {}
        for key in sorted(models):
            had = before.get(key, NOTHING)
            entry = self._look_at_model(key, models[key], had, unread)
            entries[key] = had if entry == had else entry
        return Catalog(entries)

    def look_again(self, located: Located) -> Fingerprint | None:
        """The fingerprint that a version has now; None where it is gone or must not be opened. OSError."""
        try:
            found = self._objects.list(f"{located.key}/{located.path.name}")
        except FileNotFoundError:
            return None
        prefix = f"{located.key}/{located.path.name}/"
        now, refusal = fingerprint({name.removeprefix(prefix): blob for name, blob in found.items()})
        return now if now and refusal is None else None

    def _look_at_model(self, key: str, model: ModelObjects, had: ModelEntry, unread: Mapping[str, str]) -> ModelEntry:
        if len(model.folders) > MAX_VERSIONS:
            return ModelEntry({}, {}, problems=(f"it has more than {MAX_VERSIONS} versions",))
        folders, problems = version_folders(model)
        if left_out := self._objects.left_out.get(key):
            problems.append(left_out)

        def look(number: int, _: Located | None) -> Located | None:
            return self._look_at_version(key, number, folders[number], model.folders[folders[number]], unread)

        taken = take_versions(had, folders, look, _settled)
        aliases = self._aliases(key, model, had.aliases, unread, problems)
        return replace(taken, aliases=aliases, problems=(*problems, *taken.problems))

    def _look_at_version(
        self, key: str, number: int, folder: str, files: Mapping[str, Blob], unread: Mapping[str, str]
    ) -> Located | None:
        """None: no model (yet). UnavailableError: its manifest could not be read."""
        seen, refusal = fingerprint(files)
        if not seen:
            return None
        # Not a path of this machine before it is fetched; its last part names the version's folder.
        path = Path(key, folder)
        if refusal is not None:
            return Located(key, number, path, (), seen, None, refusal)
        names = tuple(entry[0] for entry in seen)
        stated: Manifest | None = None
        if MANIFEST in names:
            name = f"{key}/{folder}/{MANIFEST}"
            if name in unread:
                raise UnavailableError(unread[name])
            parsed = self._documents[name].parsed
            if isinstance(parsed, Manifest):
                stated = parsed
            else:
                refusal = str(parsed)
        return Located(key, number, path, names, seen, stated, refusal)

    def _aliases(
        self,
        key: str,
        model: ModelObjects,
        had: Mapping[str, int],
        unread: Mapping[str, str],
        problems: list[str],
    ) -> Mapping[str, int]:
        """The aliases; those of the look before where they cannot be had."""
        if model.aliases is None:
            return {}
        name = f"{key}/{ALIASES}"
        if name in unread:
            problems.append(f"{ALIASES} cannot be read: {unread[name]}")
        else:
            parsed = self._documents[name].parsed
            if isinstance(parsed, Mapping):
                return parsed
            problems.append(str(parsed))
        return had

    def _read_documents(self, models: Mapping[str, ModelObjects]) -> dict[str, str]:
        """Bring `_documents` up to the listing; why, for those that cannot be read now."""
        wanted: dict[str, Blob] = {}
        for key, model in models.items():
            if model.aliases is not None:
                wanted[f"{key}/{ALIASES}"] = model.aliases
            for folder, files in model.folders.items():
                if MANIFEST in files:
                    wanted[f"{key}/{folder}/{MANIFEST}"] = files[MANIFEST]
        known = {name: had for name, had in self._documents.items() if wanted.get(name) == had.blob}
        new: dict[str, int] = {}
        for name, blob in wanted.items():
            limit = ALIASES_BYTES if name.endswith(ALIASES) else MANIFEST_BYTES
            if name in known:
                continue
            if blob.nbytes > limit:
                known[name] = _Document(blob, f"{name.rpartition('/')[2]} has more than {limit} bytes")
            else:
                new[name] = blob.nbytes
        now = dict(list(new.items())[:DOCUMENTS_AT_A_LOOK])
        unread = dict.fromkeys(new.keys() - now.keys(), "its turn comes with the next look")
        for name, text in (self._objects.read_all(now) if now else {}).items():
            if isinstance(text, OSError):
                unread[name] = text.strerror or "it is gone"
            elif len(text) != now[name]:
                unread[name] = "it has changed meanwhile"
            else:
                known[name] = _Document(wanted[name], _parse(name, text))
        self._documents = known
        return unread

    # fetching --------------------------------------------------------------------------------------------------------

    def fetch(self, located: Located, cancelled: threading.Event) -> Located:
        """The version on this machine's disk: its path and fingerprint are those of the copy there.

        Blocks until it is downloaded, or what an earlier try has begun is; `cancelled` ends that within a piece.
        StaleError: the store has other files by now. PassingLoadError: the store or the disk does not do it now, or it
        was cancelled. PermanentLoadError: refused, or not what its manifest says. TooLargeError.
        """
        if located.refusal is not None:
            raise PermanentLoadError(located.refusal)
        if located.nbytes > self._downloads.max_bytes:
            raise TooLargeError(
                f"its files have {located.nbytes} bytes; the folder of downloads may hold {self._downloads.max_bytes}"
            )
        name = self._id(located)
        try:
            with self._downloads.hold(name, cancelled):
                whole = self._downloads.whole(name)
                if whole is None or not _is_whole(located, _folder(whole, located)):
                    if whole is not None:
                        self._downloads.drop(name)  # somebody has changed it
                    self._download(located, name, cancelled)
                    whole = self._downloads.complete(name)
                return _copy_of(located, _folder(whole, located))
        except FileNotFoundError as error:
            raise StaleError from error
        except OSError as error:
            if isinstance(error, UnavailableError) and self._has_changed(located):
                raise StaleError from error  # of an object that has become shorter there is no such range
            raise PassingLoadError(f"it cannot be downloaded now: {error.strerror}") from error

    def _has_changed(self, located: Located) -> bool:
        """Whether the store says so; not where it says nothing."""
        try:
            return self.look_again(located) != located.fingerprint
        except OSError:
            return False

    def _id(self, located: Located) -> str:
        """One name for the same bytes under the same name and version."""
        stated = located.manifest.files if located.manifest else {}
        contents = {name: stated.get(name, f"{size}-{mark}") for name, size, mark, _ in located.fingerprint}
        prefix = f"{self._objects.address}/{located.key}/{located.path.name}"
        return digest.content_id({f"{prefix}/{name}": content for name, content in contents.items()})

    def _download(self, located: Located, name: str, cancelled: threading.Event) -> None:
        self._downloads.make_room(located.nbytes, name)
        pieces = self._downloads.pieces(name)
        folder = _folder(pieces, located)
        folder.mkdir(parents=True, exist_ok=True)
        resumed: set[str] = set()
        for file, size, *_ in located.fingerprint:
            if self._download_file(located, file, folder / file, size, cancelled):
                resumed.add(file)
        if self.look_again(located) != located.fingerprint:
            # Pieces of two uploads may be mixed in it.
            self._downloads.drop(name)
            raise StaleError
        for file, stated in (located.manifest.files if located.manifest else {}).items():
            if digest.sha256(folder / file) != stated:
                self._downloads.drop(name)
                if file in resumed:
                    raise PassingLoadError("what an interrupted download had left of it was of no use")
                raise PermanentLoadError(f"the digest of {file.rpartition('/')[2]} is not the manifest's")

    def _download_file(self, located: Located, file: str, target: Path, size: int, cancelled: threading.Event) -> bool:
        """Whether an earlier try had begun it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as out:
            had = os.fstat(descriptor).st_size
            # Of a piece that was being written when the machine stopped nothing is sure.
            done = begun = had if had == size else had // PIECE_BYTES * PIECE_BYTES if had < size else 0
            out.truncate(done)
            out.seek(done)
            if done < size:
                _stop_if(cancelled)
                for piece in self._objects.pieces(f"{located.key}/{located.path.name}/{file}", done, size):
                    if len(piece) != min(PIECE_BYTES, size - done):
                        raise StaleError
                    out.write(piece)
                    out.flush()
                    os.fdatasync(descriptor)
                    done += len(piece)
                    _stop_if(cancelled)
        return begun > 0


def _stop_if(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise PassingLoadError("its download was cancelled")


def _folder(entry: Path, located: Located) -> Path:
    """Where a version is in its entry of the downloads: two below, as in a store. Both parts match their patterns."""
    return entry / located.key / located.path.name


def _is_whole(located: Located, folder: Path) -> bool:
    try:
        if any((folder / name).lstat().st_size != size for name, size, *_ in located.fingerprint):
            return False
        stated = located.manifest.files if located.manifest else {}
        return all(digest.sha256(folder / name) == of_file for name, of_file in stated.items())
    except FileNotFoundError:
        return False


def _copy_of(located: Located, folder: Path) -> Located:
    copy = replace(located, path=folder)
    return replace(copy, fingerprint=local.look_again(copy) or ())


def _settled(found: Located, seen_before: Fingerprint | None) -> bool:
    if found.refusal is not None and not found.files:
        return True
    if found.manifest is not None and found.manifest.files:
        return found.manifest.files.keys() <= set(found.files)
    return seen_before == found.fingerprint


def _parse(name: str, text: bytes) -> Manifest | Mapping[str, int] | str:
    try:
        if name.endswith(ALIASES):
            return checked_aliases(documents.parse(text, ALIASES))
        return manifest.parse(text)
    except DocumentError as error:
        return str(error)
