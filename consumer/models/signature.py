"""What a model takes and gives: names, datatypes and shapes, checked against what a job can carry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from consumer.models.errors import PermanentLoadError
from schemas.tensor import DTYPES

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
