"""A SavedModel, opened and run."""

import ctypes
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from consumer.models.engine.library import POINTER, Library, Output, open_library
from consumer.models.engine.status import Code, EngineError, check
from consumer.models.engine.tensors import to_array, to_tensor

_TAGS = (b"serve",)
"""tf.saved_model.SERVING"""

MixedPrecision = Literal["none", "bfloat16", "float16"]
"""What a graph of float32 may be computed with."""


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads TensorFlow computes with, within an operation and between operations; 0: its own choice.

    The pools are the process's: what the first session asks for holds for all that follow. `inter` of -1 is for each
    session: its operations run one after another in the thread that calls. That spares a small model most of its time
    (a dense layer: 25 us a call, not 90), and costs one whose branches could run side by side on many cores.
    """

    intra: int = 0
    inter: int = 0


_REWRITES: dict[MixedPrecision, int] = {"bfloat16": 31, "float16": 23}
"""auto_mixed_precision_onednn_bfloat16 (CPU) and auto_mixed_precision (GPU) of core/protobuf/rewriter_config.proto.

Not 29, auto_mixed_precision_cpu: with it TensorFlow 2.20 aborts the process over a MobileNetV2.
"""


def session_config(threads: Threads, mixed_precision: MixedPrecision) -> bytes:
    """A ConfigProto, field numbers from tensorflow/core/protobuf/config.proto. GPU memory grows by need."""
    config = _number(2, threads.intra)  # intra_op_parallelism_threads
    config += _number(5, threads.inter)  # inter_op_parallelism_threads
    config += _message(6, _number(4, 1))  # gpu_options: allow_growth
    if rewrite := _REWRITES.get(mixed_precision):
        config += _message(10, _message(10, _number(rewrite, 1)))  # graph_options: rewrite_options: ON
    return config


@cache
def has_bfloat16() -> bool:
    """Whether this CPU has instructions for it, by the flags in proc(5), /proc/cpuinfo; False where there is none.

    On others TensorFlow would convert all the same: three times slower than float32 with AVX512 alone.
    """
    try:
        words = Path("/proc/cpuinfo").read_text(errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)  # the last is Arm's


class Session:
    """One opened SavedModel. `run` may be called from several threads at once, and `close` at any time."""

    __slots__ = ("_active", "_closed", "_feeds", "_fetches", "_graph", "_idle", "_lib", "_lock", "_session")

    def __init__(self, lib: Library, session: int, graph: int, feeds: Any, fetches: Any) -> None:
        """Takes over a TF_Session and its TF_Graph; use `open`."""
        self._lib = lib
        self._session = session
        self._graph = graph
        self._feeds = feeds
        self._fetches = fetches
        self._lock = threading.Lock()
        self._idle: list[_Call] = []
        self._active = 0
        self._closed = False

    @classmethod
    def open(
        cls,
        folder: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        threads: Threads = Threads(),
        mixed_precision: MixedPrecision = "none",
    ) -> "Session":
        """Open the SavedModel (tag `serve`) in a folder; `inputs` and `outputs` are tensors such as `x:0`.

        With mixed precision TensorFlow computes within the graph with fewer bits where it deems it safe; what goes in
        and comes out keeps its dtype. Without the hardware for it (float16: a GPU) nothing changes.
        EngineError: what TensorFlow cannot read or run, and NOT_FOUND for a tensor that the graph lacks.
        EngineUnavailableError: no TensorFlow.
        """
        lib = open_library()
        if mixed_precision == "bfloat16" and not has_bfloat16():
            mixed_precision = "none"
        config = session_config(threads, mixed_precision)
        with ExitStack() as undo:
            status = lib.new_status()
            undo.callback(lib.delete_status, status)
            options = lib.new_session_options()
            undo.callback(lib.delete_session_options, options)
            lib.set_config(options, config, len(config), status)
            check(lib, status)
            with ExitStack() as on_error:
                graph = lib.new_graph()
                on_error.callback(lib.delete_graph, graph)
                tags = (ctypes.c_char_p * len(_TAGS))(*_TAGS)
                session = lib.load_session(options, None, os.fsencode(folder), tags, len(_TAGS), graph, None, status)
                check(lib, status)
                on_error.callback(_delete_session, lib, session)
                opened = cls(lib, session, graph, _outputs(lib, graph, inputs), _outputs(lib, graph, outputs))
                on_error.pop_all()
        return opened

    def run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, read-only, for arrays in the order of the inputs; any numpy strides, BYTES as object arrays.

        EngineError: whatever the model raised, or FAILED_PRECONDITION once closed. ValueError: as many arrays as inputs
        it is not, or a datatype that is not the contract's. MemoryError.
        """
        call = self._enter()
        try:
            return call(self._session, arrays)
        finally:
            self._leave(call)

    def close(self) -> None:
        """Free it, or have the last call that is under way do so. A second time nothing happens."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            unused = not self._active
        if unused:
            self._free()

    def _enter(self) -> "_Call":
        with self._lock:
            if self._closed:
                raise EngineError(Code.FAILED_PRECONDITION, "the session is closed")
            call = self._idle.pop() if self._idle else _Call(self._lib, self._feeds, self._fetches)
            self._active += 1
            return call

    def _leave(self, call: "_Call") -> None:
        with self._lock:
            self._idle.append(call)
            self._active -= 1
            last = self._closed and not self._active
        if last:
            self._free()

    def _free(self) -> None:
        for call in self._idle:
            call.free()
        self._idle.clear()
        _delete_session(self._lib, self._session)
        self._lib.delete_graph(self._graph)


class _Call:
    """What one call at a time needs, made once: a TF_Status and room for the tensors' addresses."""

    __slots__ = ("_feeds", "_fetches", "_given", "_lib", "_n_feeds", "_n_fetches", "_status", "_taken")

    def __init__(self, lib: Library, feeds: Any, fetches: Any) -> None:
        self._lib = lib
        self._feeds, self._n_feeds = feeds, len(feeds)
        self._fetches, self._n_fetches = fetches, len(fetches)
        self._given = (POINTER * len(feeds))()
        self._taken = (POINTER * len(fetches))()
        self._status = lib.new_status()

    def __call__(self, session: int, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if len(arrays) != self._n_feeds:
            raise ValueError(f"{len(arrays)} arrays for {self._n_feeds} inputs")
        lib, given, taken, status = self._lib, self._given, self._taken, self._status
        tensors: list[int] = []
        try:
            for index, array in enumerate(arrays):
                tensor = to_tensor(array)
                tensors.append(tensor)
                given[index] = tensor
            lib.session_run(
                session,
                None,
                self._feeds,
                given,
                self._n_feeds,
                self._fetches,
                taken,
                self._n_fetches,
                None,
                0,
                None,
                status,
            )
        finally:
            for tensor in tensors:
                lib.delete_tensor(tensor)
        check(lib, status)  # after a failure there are no outputs
        return _arrays(lib, list(taken))

    def free(self) -> None:
        self._lib.delete_status(self._status)


def _arrays(lib: Library, tensors: list[int]) -> list[NDArray[Any]]:
    arrays = []
    try:
        while tensors:
            arrays.append(to_array(tensors.pop(0)))
    finally:
        for tensor in tensors:
            lib.delete_tensor(tensor)
    return arrays


def _outputs(lib: Library, graph: int, names: Sequence[str]) -> Any:
    found = (Output * len(names))()
    for place, name in enumerate(names):
        operation, _, index = name.partition(":")
        number = int(index or 0) if index.isdecimal() or not index else -1
        handle = lib.operation_by_name(graph, operation.encode())
        if handle is None or not 0 <= number < lib.operation_num_outputs(handle):
            raise EngineError(Code.NOT_FOUND, "the graph has no such tensor as the signature names")
        found[place] = Output(handle, number)
    return found


def _delete_session(lib: Library, session: int) -> None:
    status = lib.new_status()
    lib.close_session(session, status)  # what it says does not matter: the session goes
    lib.delete_session(session, status)
    lib.delete_status(status)


def _number(field: int, value: int) -> bytes:
    """A protocol buffer's field of an integer; 0 is the default and left out."""
    return _varint(field << 3) + _varint(value) if value else b""


def _message(field: int, content: bytes) -> bytes:
    """A protocol buffer's field of a message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A protocol buffer's integer; of negative ones, the two's complement in 64 bits."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
