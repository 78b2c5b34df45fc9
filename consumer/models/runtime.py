"""A loaded model: what it takes and gives, and calling it with numpy arrays."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from consumer.models.backend import load_tensorflow
from consumer.models.errors import PassingLoadError, PermanentLoadError, describe
from consumer.models.store import Fingerprint
from schemas.tensor import DTYPES

Format = Literal["keras", "h5", "savedmodel"]

DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
"""TensorFlow's dtype names and the contract's. What is missing (complex, quantized, resource, variant) is refused."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `shape` has rows first; None in it is a dimension that may vary, None for it any rank."""

    name: str
    datatype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives. `rows` is the number of rows of a model that takes no other, else None."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rows: int | None


Call = Callable[..., Sequence[Any]]
"""TensorFlow tensors in the order of a signature's inputs -> TensorFlow tensors in the order of its outputs."""


class Loaded:
    """One version of a model, in memory. `predict` is for one thread at a time, the count of uses for the loop's.

    `nbytes` are those of a Keras model's variables, and of a SavedModel's files, which hold its constants too.
    """

    __slots__ = (
        "_call",
        "_convert",
        "_dtypes",
        "_names",
        "fingerprint",
        "format",
        "in_use",
        "key",
        "load_seconds",
        "nbytes",
        "path_in_store",
        "signature",
        "version",
    )

    def __init__(
        self,
        *,
        key: str,
        version: int,
        format: Format,  # noqa: A002 - the field's own term
        path_in_store: str,
        signature: Signature,
        call: Call,
        nbytes: int,
        fingerprint: Fingerprint,
        load_seconds: float = 0.0,
    ) -> None:
        tf = load_tensorflow()
        self.key = key
        self.version = version
        self.format: Format = format
        self.path_in_store = path_in_store
        self.signature = signature
        self.nbytes = nbytes
        self.load_seconds = load_seconds
        self.fingerprint = fingerprint
        self.in_use = 0
        self._call = call
        self._convert = tf.convert_to_tensor
        # A dtype given to TensorFlow is a cast; only object arrays need one.
        self._dtypes = [(spec.name, tf.string if spec.datatype == "BYTES" else None) for spec in signature.inputs]
        self._names = [spec.name for spec in signature.outputs]

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Call the model: arrays of exactly the signature's datatypes, rows first, as many rows in each.

        BYTES are object arrays of `bytes`, both ways. The outputs are in the signature's order and read-only. Whatever
        the model raises is raised.
        """
        convert = self._convert
        outputs = self._call(*[convert(inputs[name], dtype) for name, dtype in self._dtypes])
        return {name: np.asarray(output) for name, output in zip(self._names, outputs, strict=True)}

    def retain(self) -> None:
        """One more user: the model stays in memory."""
        self.in_use += 1

    def release(self) -> None:
        """One user less."""
        self.in_use -= 1


def tensor_spec(name: str, dtype: Any, shape: Sequence[int | None] | None, what: str) -> TensorSpec:
    """A checked TensorSpec; `what` is `input` or `output`. PermanentLoadError: not in the contract, or no rows."""
    datatype = DATATYPES.get(str(dtype))
    if datatype is None or datatype not in DTYPES:
        raise PermanentLoadError(f"{what} '{name}' is {dtype}, which no job can carry")
    if shape is not None and len(shape) == 0:
        raise PermanentLoadError(f"{what} '{name}' has rank 0; its first dimension must be rows")
    return TensorSpec(name, datatype, None if shape is None else tuple(shape))


def signature_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    """A checked signature. PermanentLoadError: nothing in or out, or specs that disagree about the rows."""
    if not inputs or not outputs:
        raise PermanentLoadError(f"the model has no {'outputs' if inputs else 'inputs'}")
    for specs, what in ((inputs, "inputs"), (outputs, "outputs")):
        if len({spec.name for spec in specs}) < len(specs):
            raise PermanentLoadError(f"two {what} have the same name")
    fixed = {spec.shape[0] for spec in inputs if spec.shape is not None and spec.shape[0] is not None}
    if len(fixed) > 1:
        raise PermanentLoadError("the inputs disagree about the number of rows")
    rows = fixed.pop() if fixed else None
    for spec in outputs:
        if spec.shape is not None and spec.shape[0] not in (None, rows):
            raise PermanentLoadError(f"output '{spec.name}' has shape {list(spec.shape)}: it does not follow the rows")
    return Signature(tuple(inputs), tuple(outputs), rows)


def warm_up(loaded: Loaded) -> None:
    """Predict one row and then two of zeros (BYTES: empty; varying dimensions: 1) and check that outputs follow them.

    Two, because an output that is always of one row would pass with one. A model that does not take zeros
    (InvalidArgument: it parses its strings, say, or needs larger images) is not thereby broken: it is served without
    having been warmed up, and its outputs are checked with each batch. PermanentLoadError: outputs that do not follow
    the rows, or any other error. PassingLoadError: too little memory, or an answer that says try again.
    """
    errors = load_tensorflow().errors
    rows = loaded.signature.rows
    for count in (1, 2) if rows is None else (rows,):
        try:
            outputs = loaded.predict({spec.name: _zeros(spec, count) for spec in loaded.signature.inputs})
        except (errors.InvalidArgumentError, errors.OutOfRangeError):
            return
        except Exception as error:
            kind = PassingLoadError if is_passing(error) else PermanentLoadError
            raise kind(f"warming up failed: {describe(error)}") from error
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != count:
                raise PermanentLoadError(f"output '{name}' has shape {list(array.shape)} for {count} rows")


def is_passing(error: Exception) -> bool:
    """Whether Python or TensorFlow says that trying again may help."""
    if isinstance(error, MemoryError):
        return True
    if "tensorflow" not in sys.modules:
        return False
    errors = load_tensorflow().errors
    return isinstance(
        error,
        (
            errors.AbortedError,
            errors.CancelledError,
            errors.DeadlineExceededError,
            errors.PermissionDeniedError,
            errors.ResourceExhaustedError,
            errors.UnavailableError,
        ),
    )


def _zeros(spec: TensorSpec, rows: int) -> NDArray[Any]:
    shape = (rows, *(1 if dim is None else dim for dim in (spec.shape or (None,))[1:]))
    dtype = DTYPES[spec.datatype]
    return np.full(shape, b"", dtype=object) if dtype.hasobject else np.zeros(shape, dtype)
