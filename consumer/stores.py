"""The model store and what opens its versions, as the settings say: for the process and for the commands alike."""

from pathlib import Path

from consumer.exits import Exit, FatalError
from consumer.models.disk_cache import UnsafeFolderError
from consumer.models.engine import Threads
from consumer.models.opening import Opener, OpenOptions
from consumer.models.remote import AddressError, open_store
from consumer.models.store import LocalStore, Store
from consumer.models.trust import KeyFileError, load_public_key
from consumer.settings import Settings, named

_OPENED = "opened"
_DOWNLOADED = "downloaded"


def store_of(settings: Settings) -> Store:
    """The store: a folder, or a bucket behind a folder of what was downloaded. FatalError 78."""
    where = settings.model_store
    if isinstance(where, Path):
        return LocalStore(where)
    try:
        return open_store(where, settings.disk_cache / _DOWNLOADED, settings.disk_cache_bytes // 2)
    except AddressError as error:  # does not repeat the URL, which may hold a secret
        raise FatalError(Exit.CONFIG, f"LOADONCE_MODEL_STORE: {error}") from None
    except (UnsafeFolderError, OSError) as error:
        raise _no_disk_cache(settings, error) from None


def open_options(settings: Settings) -> OpenOptions:
    """How versions are opened. FatalError 78: the public key cannot be read."""
    return OpenOptions(
        trusted_h5=frozenset(settings.trusted_h5_models),
        max_bytes=settings.cache_bytes,
        load_timeout_s=settings.load_timeout_s,
        custom_objects=settings.custom_objects,
        require_manifest=settings.require_manifest,
        public_key=public_key(settings),
        threads=Threads(settings.intra_op_threads, settings.inter_op_threads),
        jit_compile=settings.jit_compile,
        mixed_precision=settings.mixed_precision,
    )


def public_key(settings: Settings) -> bytes | None:
    """The 32 bytes of MANIFEST_PUBLIC_KEY, if there is one. FatalError 78."""
    if settings.manifest_public_key is None:
        return None
    try:
        return load_public_key(settings.manifest_public_key)
    except KeyFileError as error:
        raise FatalError(Exit.CONFIG, f"LOADONCE_MANIFEST_PUBLIC_KEY: {error}") from None
    except OSError as error:
        raise FatalError(
            Exit.CONFIG, f"{named(settings, 'manifest_public_key')}: cannot be read: {error.strerror}"
        ) from None


def opener_of(settings: Settings, options: OpenOptions) -> Opener:
    """To be closed. FatalError 78: the folder of the disk cache cannot be used."""
    # What comes from a bucket is there twice: as it was, and in the form that loads fast.
    nbytes = settings.disk_cache_bytes if isinstance(settings.model_store, Path) else settings.disk_cache_bytes // 2
    try:
        return Opener(options, settings.disk_cache / _OPENED, nbytes)
    except (UnsafeFolderError, OSError) as error:
        raise _no_disk_cache(settings, error) from None


def _no_disk_cache(settings: Settings, error: Exception) -> FatalError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return FatalError(Exit.CONFIG, f"{named(settings, 'disk_cache')}: {why}")
