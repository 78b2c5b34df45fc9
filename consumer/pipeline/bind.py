"""A request's tensors against a model's signature: names, datatypes, shapes. No casting."""

from collections.abc import Sequence

from consumer.models.signature import Signature, TensorSpec
from consumer.pipeline.job import Bound
from schemas.messages import Request, Tensor
from schemas.reasons import Failure, Reason, Stage
from schemas.tensor import datatype_of


def bind(request: Request, signature: Signature) -> Bound | Failure:
    """Order the request's tensors as the signature has them, or say what the model does not take (`bad-input`).

    A model of one input takes its tensor by any name.
    """
    specs = signature.inputs
    tensors = _in_order(request.inputs, specs)
    if isinstance(tensors, Failure):
        return tensors
    rows = -1
    for spec, tensor in zip(specs, tensors, strict=True):
        shape = tensor.array.shape
        if problem := _mismatch(spec, tensor):
            return _bad_input(problem)
        if rows not in (-1, shape[0]):
            return _bad_input(f"input '{spec.name}' has {shape[0]} rows and another input {rows}")
        rows = shape[0]
    if signature.rows is not None and rows != signature.rows:
        return _bad_input(f"the model takes exactly {signature.rows} rows a job, not {rows}")
    outputs = request.outputs
    if outputs:
        known = {output.name for output in signature.outputs}
        if any(name not in known for name in outputs):
            return _bad_input(
                f"an output is asked for that the model does not have; it has {_names(signature.outputs)}"
            )
    return Bound(
        arrays={spec.name: tensor.array for spec, tensor in zip(specs, tensors, strict=True)},
        rows=rows,
        layout=tuple([tensor.array.shape[1:] for tensor in tensors]),
        outputs=tuple(dict.fromkeys(outputs)) if outputs else None,
    )


def _in_order(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> Sequence[Tensor] | Failure:
    if len(tensors) != len(specs):
        return _bad_input(f"{len(tensors)} inputs were sent; the model takes {len(specs)}: {_names(specs)}")
    if len(specs) == 1:
        return tensors
    by_name = {tensor.name: tensor for tensor in tensors}
    if any(spec.name not in by_name for spec in specs):
        return _bad_input(f"the model's inputs are {_names(specs)}, each to be sent once")
    return [by_name[spec.name] for spec in specs]


def _mismatch(spec: TensorSpec, tensor: Tensor) -> str | None:
    shape = tensor.array.shape
    if not shape:
        return f"input '{spec.name}' has rank 0; the first dimension is rows"
    datatype = datatype_of(tensor.array)
    if datatype != spec.datatype:
        return f"input '{spec.name}' is {datatype}; the model takes {spec.datatype} and nothing is cast"
    if spec.shape is not None and (
        len(shape) != len(spec.shape)
        or any(want is not None and have != want for have, want in zip(shape[1:], spec.shape[1:], strict=True))
    ):
        return f"input '{spec.name}' has shape {list(shape)}; the model takes {_dims(spec.shape)}"
    return None


def _dims(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if dim is None else str(dim) for dim in shape) + "]"


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{spec.name}'" for spec in specs)


def _bad_input(message: str) -> Failure:
    return Failure(Reason.BAD_INPUT, Stage.PREDICT, message)
