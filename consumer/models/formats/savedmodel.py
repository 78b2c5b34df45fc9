"""SavedModel: a graph with its variables, called by its serving signature.

A graph is a program: its operations can read and write files when it is called. The store must be writable only by
those who may run code in this process.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from consumer.models.backend import load_tensorflow
from consumer.models.errors import PermanentLoadError, TooLargeError
from consumer.models.exporting import ExportOptions
from consumer.models.formats import graph
from consumer.models.servable import Endpoint, Servable
from consumer.models.signature import signature_of, tensor_spec
from consumer.models.store import Located


def check(located: Located, max_bytes: int) -> None:
    """Nothing: its files' size has been looked at, and only TensorFlow can read a graph."""


def export(located: Located, target: Path, options: ExportOptions) -> Servable:
    """Write its serving signature and what that captures in `target`: what only training needs stays behind.

    A graph that only TensorFlow 1 can make sense of is served as it is. LoadError, or what TensorFlow raises.
    """
    found = graph.serving_graph(located.path)
    name, stated = _serving(graph.signatures(found))
    inputs = _endpoints(stated.inputs, "input")
    outputs = _endpoints(stated.outputs, "output")
    signature = signature_of([endpoint.spec for endpoint in inputs], [endpoint.spec for endpoint in outputs])
    of_tensorflow_1 = not found.HasField("object_graph_def")  # its variables are the graph's own, not an object's
    if of_tensorflow_1 and not options.jit_compile:
        weights = graph.variables_bytes(found)
        _must_fit(weights, options)
        return Servable(located.path, "savedmodel", inputs, outputs, signature.rows, weights)
    tf = load_tensorflow()
    model = tf.saved_model.load(str(located.path), tags=[graph.SERVE_TAG])
    function = model.signatures[name]
    kept, weights = _captured(model, function)
    _must_fit(weights, options)
    _write(function, kept, inputs, outputs, target, jit_compile=options.jit_compile)
    inputs, outputs = graph.endpoints(target, signature.inputs, signature.outputs)
    return Servable(target, "savedmodel", inputs, outputs, signature.rows, weights)


def _serving(signatures: Mapping[str, Any]) -> tuple[str, Any]:
    if graph.SERVING not in signatures and len(signatures) != 1:
        raise PermanentLoadError(f"it has {len(signatures)} signatures and none is {graph.SERVING}")
    name = graph.SERVING if graph.SERVING in signatures else next(iter(signatures))
    return name, signatures[name]


def _endpoints(tensors: Mapping[str, Any], what: str) -> tuple[Endpoint, ...]:
    """Checked TensorInfos, by name in order."""
    tf = load_tensorflow()
    found = []
    for name, info in sorted(tensors.items()):
        if info.WhichOneof("encoding") != "name":
            raise PermanentLoadError(f"{what} '{name}' is sparse or ragged, which no job can carry")
        shape = None
        if not info.tensor_shape.unknown_rank:
            shape = [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
        dtype = tf.as_dtype(info.dtype).base_dtype
        found.append(Endpoint(tensor_spec(name, dtype.name, shape, what), info.name))
    return tuple(found)


def _must_fit(weights: int, options: ExportOptions) -> None:
    if weights > options.max_bytes:
        raise TooLargeError(f"its variables have {weights} bytes; the cache may hold {options.max_bytes}")


def _captured(model: Any, function: Any) -> tuple[list[Any], int]:
    """The variables that a signature captures, the model's tables and assets, and the bytes of these variables."""
    tf = load_tensorflow()
    captures = {id(tensor) for tensor in function.captured_inputs}
    kept, weights = [], 0
    for part in tf.train.TrackableView(model).descendants():
        if isinstance(part, tf.Variable):
            if id(part.handle) in captures:
                kept.append(part)
                weights += part.shape.num_elements() * (part.dtype.size or 8)  # strings have no size of their own
        elif isinstance(part, (tf.saved_model.experimental.TrackableResource, tf.saved_model.Asset)):
            kept.append(part)
    return kept, weights


def _write(
    function: Any,
    kept: Sequence[Any],
    inputs: tuple[Endpoint, ...],
    outputs: tuple[Endpoint, ...],
    target: Path,
    *,
    jit_compile: bool,
) -> None:
    _, takes = function.structured_input_signature

    def call(*tensors: Any) -> list[Any]:
        results = function(**{endpoint.spec.name: tensor for endpoint, tensor in zip(inputs, tensors, strict=True)})
        return [results[endpoint.spec.name] for endpoint in outputs]

    graph.write(call, [takes[endpoint.spec.name] for endpoint in inputs], kept, target, jit_compile=jit_compile)
