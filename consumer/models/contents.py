"""What a store holds: found, listed and verified for the commands. Nothing is printed, and nothing is changed."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from consumer.models import digest, trust
from consumer.models.errors import LoadError, StaleError
from consumer.models.manifest import MANIFEST, SIGNATURE
from consumer.models.opening import Opener
from consumer.models.policy import Policies, served
from consumer.models.store import MODEL_FILES, NAME, Catalog, LocalStore, Located, ModelEntry, Store
from consumer.models.watcher import SPACING_S


class EditError(Exception):
    """What was asked for cannot be done. One line: cause and remedy."""


class NotInStoreError(EditError):
    """The store, or what was named in it, is not there."""


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


def find(store: Store, key: str, version: int | None) -> Located:
    """A version of the store, the highest if none is named. EditError."""
    check_key(key)
    entry = _settled(store).models.get(key)
    if entry is None:
        raise unknown(f"the store has no model '{key}'")
    located = next(iter(entry.versions[n] for n in entry.newest_first if version in (None, n)), None)
    if located is None:
        raise unknown(f"{key} has no version {version}" if version is not None else f"{key} has no version yet")
    return located


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
        check_key(key)
    catalog = _settled(store)
    if key is not None and key not in catalog.models:
        raise unknown(f"the store has no model '{key}'")
    for name in catalog.models if key is None else [key]:
        entry = catalog.models[name]
        for version in sorted(entry.settling.keys() - entry.versions.keys()):
            yield Verified(
                name, version, has_digests=False, signature="none", problem="it is still being copied", open_seconds=0.0
            )
        for _, located in sorted(entry.versions.items()):
            yield _verified(store, located, opener, public_key)


def check_key(key: str) -> None:
    """EditError where this cannot be a model's name."""
    if not NAME.fullmatch(key):
        raise EditError(f"model name {key!r}: a letter or digit, then up to 127 letters, digits, '.', '_' or '-'")


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


def entry_of(store: Path, key: str) -> ModelEntry:
    """What a store that is a folder has under this name. EditError."""
    entry = _catalog(LocalStore(store)).models.get(key)
    if entry is None:
        raise unknown(f"the store has no model '{key}'")
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


def unknown(what: str) -> NotInStoreError:
    """The error that says that this is not there."""
    return NotInStoreError(f"{what}; `loadonce models list` shows them")
