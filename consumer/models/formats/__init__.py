"""The formats of models: `.keras`, legacy `.h5` and SavedModel; `open_model` is what the loader calls.

A file each, with `check`, which is quick and needs no TensorFlow, and `open_model`.
"""

import errno
import time
from dataclasses import dataclass
from typing import Protocol

from consumer.models import digest
from consumer.models.backend import load_keras
from consumer.models.errors import (
    LoadError,
    PassingLoadError,
    PermanentLoadError,
    StaleError,
    TooLargeError,
    describe,
)
from consumer.models.formats import h5, keras, savedmodel
from consumer.models.runtime import Loaded, is_passing, warm_up
from consumer.models.store import MODEL_FILES, Located, look_again


class _Format(Protocol):
    """What a format has to offer; the modules of this folder do."""

    def check(self, located: Located, max_bytes: int) -> None:
        """Refuse what needs no TensorFlow to be refused, before it is imported."""

    def open_model(self, located: Located, *, trusted: bool) -> Loaded:
        """Open the model; whatever goes wrong is raised."""


_FORMATS: dict[str, _Format] = {"keras": keras, "h5": h5, "savedmodel": savedmodel}


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What opening may do: names of models whose .h5 file may run code, and the most bytes that a model may have."""

    trusted_h5: frozenset[str]
    max_bytes: int


def open_model(located: Located, options: OpenOptions) -> Loaded:
    """Verify, open and warm up. Blocks, for as long as the disk and TensorFlow take.

    StaleError: the files are not those of `located`, before or after. PermanentLoadError: refused, corrupt, or not
    servable. PassingLoadError: I/O errors, too little memory, or files still being written. No other exception.
    """
    _must_be_current(located)
    try:
        loaded = _open(located, options)
    except Exception as error:
        problem = _classified(error, located)
        _must_be_current(located)
        raise problem from error
    _must_be_current(located)
    return loaded


def _open(located: Located, options: OpenOptions) -> Loaded:
    began = time.perf_counter()
    if located.refusal is not None:
        raise PermanentLoadError(located.refusal)
    if located.nbytes > options.max_bytes:
        raise TooLargeError(f"its files have {located.nbytes} bytes; the cache may hold {options.max_bytes}")
    digest.verify(located)
    format_ = _FORMATS[MODEL_FILES[located.model_file]]
    format_.check(located, options.max_bytes)
    checked = time.perf_counter()
    load_keras()  # after the checks, so that they answer at once; its seconds are not the model's
    imported = time.perf_counter()
    loaded = format_.open_model(located, trusted=located.key in options.trusted_h5)
    warm_up(loaded)
    loaded.load_seconds = time.perf_counter() - imported + checked - began
    return loaded


def _must_be_current(located: Located) -> None:
    try:
        now = look_again(located)
    except OSError as error:
        raise PassingLoadError(f"the model store cannot be read: {error.strerror}") from error
    if located.files and now != located.fingerprint:
        raise StaleError


# What may pass by itself, or when an operator frees or mends something without touching the files.
_PASSING = {
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
    errno.ENOSPC, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ECONNREFUSED,
}  # fmt: skip


def _classified(error: Exception, located: Located) -> LoadError:
    """Keras and h5py raise anything for a broken file, OSError too; a file that can be read in full is the culprit."""
    if isinstance(error, LoadError):
        return error
    what = describe(error, located.path, located.path.parent.parent)
    if is_passing(error) or (isinstance(error, OSError) and error.errno in _PASSING):
        return PassingLoadError(f"it cannot be opened now: {what}")
    try:
        for name in digest.opened_files(located):
            digest.sha256(located.path / name)
    except OSError as unreadable:
        return PassingLoadError(f"it cannot be read: {unreadable.strerror}")
    return PermanentLoadError(f"it is not a model that can be opened: {what}")
