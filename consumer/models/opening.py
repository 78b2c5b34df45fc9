"""Opening a version: its files checked, then made ready by a helper process or found in the disk cache, then loaded.

Only the last of these happens in this process, through TensorFlow's C API and without the interpreter's lock.
"""

import errno
import hashlib
import json
import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from consumer.models import manifest, trust
from consumer.models.disk_cache import DiskCache, UnsafeFolderError
from consumer.models.engine import (
    EngineError,
    MixedPrecision,
    Threads,
    heap_bytes,
    open_library,
    resident_bytes,
)
from consumer.models.errors import (
    LoadError,
    PassingLoadError,
    PermanentLoadError,
    StaleError,
    TookTooLongError,
    TooLargeError,
    describe,
    one_line,
)
from consumer.models.exporting import ExportOptions
from consumer.models.helper import wire
from consumer.models.helper.process import Helpers
from consumer.models.runtime import Loaded, is_passing, open_warm
from consumer.models.servable import Servable, ServingOptions
from consumer.models.store import Located, look_again

MEMORY_FACTOR = 4
"""Of `max_bytes`, what a helper may take: the file's data, the variables, what is written, and what is then called."""
MEMORY_BYTES = 1 << 30
"""What it may take besides: graphs, buffers, and what TensorFlow allocates when it first computes."""
MEMORY_BYTES_A_CORE = 64 << 20
"""TensorFlow's pools have some threads a core, with a stack of 8 MB each."""

GRAPH_COPIES = 5
"""A session has its graph so often, constants included: as it was read, optimized, as tensors (5 x 42 MB, measured).

Large ones have mappings of their own, which malloc does not tell from those of TensorFlow's pool.
"""

MEASURE_S = 10.0
"""How long a model waits for another that is being opened, so that each is charged with its own memory."""
POLL_S = 0.05

_SERVABLE = "servable.json"
_MODEL = "model"
_CACHE_FORMAT = 3
"""Changes with what entries consist of."""


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What opening may do. `load_timeout_s` holds for each version, from the time that a helper works at it."""

    trusted_h5: frozenset[str]
    """Names of models whose .h5 file may run code."""
    max_bytes: int
    load_timeout_s: float = 300
    custom_objects: tuple[str, ...] = ()
    """`module:Name` of the classes that Keras files may use besides Keras' own."""
    require_manifest: bool = False
    public_key: bytes | None = None
    threads: Threads = field(default_factory=Threads)
    jit_compile: bool = False
    """Of the versions whose manifest does not say; as is `mixed_precision`."""
    mixed_precision: MixedPrecision = "none"


class Opener:
    """Opens versions, any number at once; it owns the helper processes.

    A model's `nbytes` are those of its variables and what it has added to malloc's heaps when it is open and warm:
    graphs, kernels, compiled code. The pool that TensorFlow has its large tensors from is the process's; models share
    it. Models are opened one at a time here, but jobs go on meanwhile, and their memory counts too. Where the C library
    does not tell (glibc before 2.33, or another): the variables, or the growth of resident memory if that is more.
    """

    def __init__(self, options: OpenOptions, disk_cache: Path, disk_cache_bytes: int) -> None:
        """UnsafeFolderError, OSError: the cache's folder cannot be used."""
        self._options = options
        self._disk_cache = DiskCache(disk_cache, disk_cache_bytes)
        self._versions = [(name, version(name)) for name in ("tensorflow", "keras", "loadonce")]
        self._one_at_a_time = threading.Lock()
        self.helpers = Helpers()

    def open(self, located: Located, cancelled: threading.Event) -> Loaded:
        """Verify, open and warm up. Blocks, for as long as the disk and the helper take.

        StaleError: cancelled, or the files are not those of `located`, before or after. PermanentLoadError: refused,
        corrupt, or not servable. TooLargeError: more than `max_bytes`. PassingLoadError: I/O errors, too little
        memory, or no answer in time. No other exception.
        """
        _must_be_current(located)
        try:
            loaded = self._open(located, cancelled)
        except StaleError:
            raise
        except Exception as error:
            problem = _classified(error, located)
            _must_be_current(located)
            raise problem from error
        try:
            _must_be_current(located)
        except BaseException:
            loaded.close()
            raise
        return loaded

    def close(self, timeout_s: float) -> None:
        """End the helpers; versions that are being opened by them become StaleErrors."""
        self.helpers.close(timeout_s)

    def _open(self, located: Located, cancelled: threading.Event) -> Loaded:
        began = time.perf_counter()
        options = self._options
        if located.refusal is not None:
            raise PermanentLoadError(located.refusal)
        if located.nbytes > options.max_bytes:
            raise TooLargeError(f"its files have {located.nbytes} bytes; the cache may hold {options.max_bytes}")
        content = trust.verify(located, require_manifest=options.require_manifest, public_key=options.public_key)
        serving = self._serving(located)
        export = ExportOptions(
            options.max_bytes, located.key in options.trusted_h5, options.custom_objects, bool(serving.jit_compile)
        )
        entry = self._entry(content, located, export, serving)
        loaded = self._cached(entry, located, serving, cancelled)
        if loaded is None:
            loaded = self._made(entry, located, export, serving, cancelled)
        loaded.load_seconds = time.perf_counter() - began
        return loaded

    def _serving(self, located: Located) -> ServingOptions:
        """What the manifest says, and for the rest what holds for all models."""
        stated = located.manifest.serving if located.manifest else ServingOptions()
        usual = self._options
        return replace(
            stated,
            jit_compile=usual.jit_compile if stated.jit_compile is None else stated.jit_compile,
            mixed_precision=stated.mixed_precision or usual.mixed_precision,
        )

    def _cached(
        self, entry: str, located: Located, serving: ServingOptions, cancelled: threading.Event
    ) -> Loaded | None:
        """From the disk cache. None: it is not there, or broken and therefore gone from now on."""
        with self._disk_cache.get(entry) as folder:
            if folder is None:
                return None
            try:
                document = wire.read_servable((folder / _SERVABLE).read_bytes())
                return self._loaded(wire.servable(document, located, folder / _MODEL, serving), located, cancelled)
            except (TooLargeError, TookTooLongError, PassingLoadError):
                raise
            except (wire.WireError, OSError, EngineError, LoadError) as error:
                if is_passing(error):
                    raise
        self._disk_cache.drop(entry)
        return None

    def _made(
        self,
        entry: str,
        located: Located,
        export: ExportOptions,
        serving: ServingOptions,
        cancelled: threading.Event,
    ) -> Loaded:
        """By a helper, and into the disk cache."""
        with self._disk_cache.make(entry) as making:
            target = making.folder / _MODEL
            request = wire.OpenRequest(
                located, target, export, serving, self._options.threads, _memory_bytes(export.max_bytes)
            )
            document = self.helpers.open(request, self._options.load_timeout_s, cancelled)
            try:
                wire.servable(document, located, target, serving)
            except wire.WireError as error:
                raise PermanentLoadError(f"opening it upset the helper process: {error}") from None
            (making.folder / _SERVABLE).write_bytes(wire.servable_line(document))
            folder = making.publish()
            return self._loaded(wire.servable(document, located, folder / _MODEL, serving), located, cancelled)

    def _loaded(self, servable: Servable, located: Located, cancelled: threading.Event) -> Loaded:
        manifest.check_signature(located.manifest, servable)
        options = self._options
        if servable.weights_bytes > options.max_bytes:
            raise TooLargeError(
                f"its variables have {servable.weights_bytes} bytes; the cache may hold {options.max_bytes}"
            )
        graph = GRAPH_COPIES * (servable.folder / "saved_model.pb").stat().st_size
        open_library()  # whose memory is not the model's
        # Past that time each counts what the other allocates: better too much than to wait for one that hangs.
        alone = self._one_at_a_time.acquire(timeout=MEASURE_S)
        try:
            heap, resident = heap_bytes(), resident_bytes()
            loaded = self._opened(servable, located, cancelled)
            if heap is not None and (now := heap_bytes()) is not None:
                loaded.nbytes = servable.weights_bytes + max(now - heap, graph)
            else:
                loaded.nbytes = max(servable.weights_bytes, resident_bytes() - resident)
            return loaded
        finally:
            if alone:
                self._one_at_a_time.release()

    def _opened(self, servable: Servable, located: Located, cancelled: threading.Event) -> Loaded:
        """On a thread of its own, which is left behind where it does not come back: a graph can hang here and nowhere
        else."""
        opened: Future[Loaded] = Future()

        def work() -> None:
            try:
                opened.set_result(open_warm(located, servable, self._options.threads))
            except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
                opened.set_exception(error)

        threading.Thread(target=work, name="opening", daemon=True).start()
        limit = self._options.load_timeout_s
        deadline = time.monotonic() + limit
        while True:
            with suppress(TimeoutError):
                return opened.result(POLL_S)
            if cancelled.is_set() or time.monotonic() > deadline:
                opened.add_done_callback(_close)
                raise StaleError if cancelled.is_set() else TookTooLongError(f"opening it took more than {limit:g} s")

    def _entry(self, content: str, located: Located, export: ExportOptions, serving: ServingOptions) -> str:
        """The id of what comes of these files: by content, by what may be done with it and who does it.

        And by how it is called: that makes no difference to what it is, but a helper has called it so before.
        """
        what = [
            _CACHE_FORMAT,
            content,
            located.model_file,
            export.trusted,
            export.custom_objects,
            export.jit_compile,
            serving.mixed_precision,
            serving.warmup_rows,
            serving.batch_buckets,
            self._versions,
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _close(opened: "Future[Loaded]") -> None:
    """What nobody waits for any more."""
    if opened.exception() is None:
        opened.result().close()


def _must_be_current(located: Located) -> None:
    try:
        now = look_again(located)
    except OSError as error:
        raise PassingLoadError(f"the model store cannot be read: {error.strerror}") from error
    if located.files and now != located.fingerprint:
        raise StaleError


def _classified(error: Exception, located: Located) -> LoadError:
    """What the helper could open and this process cannot, or what has kept the helper from being asked."""
    if isinstance(error, LoadError):
        return error
    if isinstance(error, UnsafeFolderError):
        return PassingLoadError("others can write to the disk cache, or it belongs to another user")
    if isinstance(error, EngineError):
        what = f"{error.kind}: {one_line(error.message, located.path)}"
    else:
        what = describe(error, located.path, located.path.parent.parent)
    if is_passing(error):
        return PassingLoadError(f"it cannot be opened now: {what}")
    if isinstance(error, OSError):
        why = "the disk cache is full" if error.errno == errno.ENOSPC else f"it cannot be read: {error.strerror}"
        return PassingLoadError(why)
    return PermanentLoadError(f"it is not a model that can be opened: {what}")


def _memory_bytes(max_bytes: int) -> int | None:
    beyond = MEMORY_FACTOR * max_bytes + MEMORY_BYTES + (os.cpu_count() or 1) * MEMORY_BYTES_A_CORE
    return beyond if beyond < 1 << 48 else None  # more than there are addresses
