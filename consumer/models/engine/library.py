"""The shared libraries of the tensorflow package, and the functions of its C API that are used here."""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_SUFFIX = ".2.dylib" if sys.platform == "darwin" else ".so.2"
_NAMES = (f"libtensorflow_framework{_SUFFIX}", f"libtensorflow_cc{_SUFFIX}")
_REMEDY = "install tensorflow 2.20 from PyPI for Linux or macOS, which is known to have it"

_ABSL_RELEASES = ("20240116", "20240722", "20250127", "20250512", "20250814")
"""Of the Abseil in TensorFlow's libraries: a part of its functions' names. 2.20 has 20250127."""
_ABSL_FATAL = 3
"""absl::LogSeverityAtLeast::kFatal"""

POINTER = ctypes.c_void_p
"""Every handle: TF_Status*, TF_Graph*, TF_Session*, TF_Operation*, TF_Tensor*, ..."""


class Output(ctypes.Structure):
    """TF_Output of tensorflow/c/c_api.h: one output of an operation of a graph."""

    _fields_ = (("oper", POINTER), ("index", ctypes.c_int))


Deallocator = ctypes.CFUNCTYPE(None, POINTER, ctypes.c_size_t, POINTER)
"""void (*)(void* data, size_t len, void* arg) of TF_NewTensor; TensorFlow calls it from any thread."""


class EngineUnavailableError(Exception):
    """The installed tensorflow package has no C API that can be used."""


class Library:
    """The functions. Those that may take long release the interpreter's lock.

    The rest are called with it held: they take less than a microsecond, and giving the lock up for one of them may
    cost a whole switch interval (5 ms) where other threads are busy.

    EngineUnavailableError: no tensorflow package, a library that cannot be opened, or a function that it lacks.
    """

    def __init__(self) -> None:
        # Of absent GPUs, CPU features and failed calls, whose messages quote paths and data; set before they are read.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        framework, cc = [_open(_folder() / name) for name in _NAMES]
        p, size, integer, text = POINTER, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p
        dims = ctypes.POINTER(ctypes.c_int64)
        outputs, tensors = ctypes.POINTER(Output), ctypes.POINTER(p)

        def quick(name: str, returns: Any, *takes: Any) -> Callable[..., Any]:
            return _function(ctypes.PyDLL, cc, name, returns, *takes)

        def slow(name: str, returns: Any, *takes: Any) -> Callable[..., Any]:
            return _function(ctypes.CDLL, cc, name, returns, *takes)

        _quieten(framework)

        # tensorflow/c/tf_status.h
        self.new_status = quick("TF_NewStatus", p)
        self.delete_status = quick("TF_DeleteStatus", None, p)
        self.get_code = quick("TF_GetCode", integer, p)
        self.message = quick("TF_Message", text, p)

        # tensorflow/c/tf_tensor.h
        self.new_tensor = quick("TF_NewTensor", p, integer, dims, integer, p, size, Deallocator, p)
        self.allocate_tensor = quick("TF_AllocateTensor", p, integer, dims, integer, size)
        self.delete_tensor = quick("TF_DeleteTensor", None, p)
        self.tensor_type = quick("TF_TensorType", integer, p)
        self.num_dims = quick("TF_NumDims", integer, p)
        self.dim = quick("TF_Dim", ctypes.c_int64, p, integer)
        self.tensor_data = quick("TF_TensorData", p, p)
        self.tensor_byte_size = quick("TF_TensorByteSize", size, p)

        # tensorflow/c/tf_tstring.h
        self.string_copy = quick("TF_StringCopy", None, p, text, size)
        self.string_data = quick("TF_StringGetDataPointer", p, p)
        self.string_size = quick("TF_StringGetSize", size, p)
        self.string_dealloc = quick("TF_StringDealloc", None, p)

        # tensorflow/c/c_api.h
        self.new_session_options = quick("TF_NewSessionOptions", p)
        self.set_config = quick("TF_SetConfig", None, p, text, size, p)
        self.delete_session_options = quick("TF_DeleteSessionOptions", None, p)
        self.new_graph = quick("TF_NewGraph", p)
        self.operation_by_name = quick("TF_GraphOperationByName", p, p, text)
        self.operation_num_outputs = quick("TF_OperationNumOutputs", integer, p)
        self.delete_graph = slow("TF_DeleteGraph", None, p)
        self.load_session = slow("TF_LoadSessionFromSavedModel", p, p, p, text, ctypes.POINTER(text), integer, p, p, p)
        self.session_run = slow(
            "TF_SessionRun", None, p, p, outputs, tensors, integer, outputs, tensors, integer, p, integer, p, p
        )
        self.close_session = slow("TF_CloseSession", None, p, p)
        self.delete_session = slow("TF_DeleteSession", None, p, p)


def _quieten(framework: tuple[str, int]) -> None:
    """Notes that do not heed TF_CPP_MIN_LOG_LEVEL; where the function is called otherwise, they stay."""
    for release in _ABSL_RELEASES:
        name = f"_ZN4absl12lts_{release}14SetMinLogLevelENS0_18LogSeverityAtLeastE"
        with suppress(EngineUnavailableError):
            _function(ctypes.PyDLL, framework, name, None, ctypes.c_int)(_ABSL_FATAL)


_lock = threading.Lock()
_loaded: Library | None = None


def open_library() -> Library:
    """The library, opened by the first call (about 0.6 s) and kept. EngineUnavailableError."""
    global _loaded  # noqa: PLW0603 - a process can hold one TensorFlow
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = Library()
    return _loaded


def _folder() -> Path:
    spec = find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise EngineUnavailableError(f"there is no tensorflow package: {_REMEDY}")
    return Path(spec.origin).parent


def _open(path: Path) -> tuple[str, int]:
    """The library's path and handle. Not by ctypes.CDLL alone: before Python 3.12 it holds the interpreter's lock."""
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = POINTER, (ctypes.c_char_p, ctypes.c_int)
    # RTLD_GLOBAL would let its symbols take the place of other extensions': numpy.random crashes.
    handle = dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)
    if not handle:
        raise EngineUnavailableError(f"{path.name} of the tensorflow package cannot be opened: {_REMEDY}")
    return str(path), handle


def _function(
    kind: type[ctypes.CDLL], opened: tuple[str, int], name: str, returns: Any, *takes: Any
) -> Callable[..., Any]:
    path, handle = opened
    try:
        function = getattr(kind(path, handle=handle), name)
    except AttributeError:
        raise EngineUnavailableError(f"the tensorflow package's C API lacks {name}: {_REMEDY}") from None
    function.restype, function.argtypes = returns, takes
    return function  # type: ignore[no-any-return] # ctypes cannot know what it found
