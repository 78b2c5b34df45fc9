"""A form against a model's signature: names, datatypes, shapes. No casting."""

from collections.abc import Sequence

from consumer.models.signature import Signature, TensorSpec
from consumer.pipeline.job import Bound, Form
from schemas.reasons import Failure, Reason, Stage
from schemas.tensor import DTYPES

MOST_BINDINGS = 16
"""Of one form."""


def bind(form: Form, signature: Signature) -> Bound | Failure:
    """How a model's inputs come from those of a form, or what the model does not take of them (`bad-input`).

    A model of one input takes its tensor by any name.
    """
    known = form.bindings.get(id(signature))
    if known is None:
        if len(form.bindings) == MOST_BINDINGS:
            form.bindings.clear()
        # The signature is kept with it, so that no other can have its id.
        known = form.bindings[id(signature)] = signature, _bind(form, signature)
    return known[1]


def _bind(form: Form, signature: Signature) -> Bound | Failure:
    specs = signature.inputs
    order = _order(form.names, specs)
    if isinstance(order, Failure):
        return order
    shapes = [form.shapes[place] for place in order]
    rows = -1
    for spec, place, shape in zip(specs, order, shapes, strict=True):
        if problem := _mismatch(spec, form.datatypes[place], shape):
            return _bad_input(problem)
        if rows not in (-1, shape[0]):
            return _bad_input(f"input '{spec.name}' has {shape[0]} rows and another input {rows}")
        rows = shape[0]
    if signature.rows is not None and rows != signature.rows:
        return _bad_input(f"the model takes exactly {signature.rows} rows a job, not {rows}")
    outputs = form.outputs
    if outputs:
        known = {output.name for output in signature.outputs}
        if any(name not in known for name in outputs):
            return _bad_input(
                f"an output is asked for that the model does not have; it has {_names(signature.outputs)}"
            )
    return Bound(
        names=tuple([spec.name for spec in specs]),
        dtypes=tuple([DTYPES[spec.datatype] for spec in specs]),
        order=order,
        rows=rows,
        layout=tuple([shape[1:] for shape in shapes]),
        outputs=tuple(dict.fromkeys(outputs)) if outputs else None,
    )


def _order(names: Sequence[str], specs: Sequence[TensorSpec]) -> tuple[int, ...] | Failure:
    if len(names) != len(specs):
        return _bad_input(f"{len(names)} inputs were sent; the model takes {len(specs)}: {_names(specs)}")
    if len(specs) == 1:
        return (0,)
    places = {name: place for place, name in enumerate(names)}
    if any(spec.name not in places for spec in specs):
        return _bad_input(f"the model's inputs are {_names(specs)}, each to be sent once")
    return tuple([places[spec.name] for spec in specs])


def _mismatch(spec: TensorSpec, datatype: str, shape: tuple[int, ...]) -> str | None:
    if not shape:
        return f"input '{spec.name}' has rank 0; the first dimension is rows"
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
