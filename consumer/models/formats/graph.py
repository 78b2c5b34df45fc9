"""Writing a function as a SavedModel of one signature, and reading the signatures of one."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from consumer.models.backend import load_tensorflow
from consumer.models.errors import PermanentLoadError, one_line
from consumer.models.servable import Endpoint
from consumer.models.signature import TensorSpec

SERVING = "serving_default"
SERVE_TAG = "serve"  # tf.saved_model.SERVING
_THEIRS = "__saved_model_"
"""How TensorFlow's own signatures begin, which are there to initialize a graph."""
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}


def write(
    function: Callable[..., Sequence[Any]],
    takes: Sequence[Any],
    kept: Sequence[Any],
    target: Path,
    *,
    jit_compile: bool,
) -> None:
    """Trace a function of tensors once and save it with its signature; any inputs and outputs, by position.

    `takes` are shape and dtype of each input. `kept` are the variables, tables and assets that the function uses.
    """
    tf = load_tensorflow()
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=_input(place)) for place, tensor in enumerate(takes)]

    def serve(*tensors: Any) -> dict[str, Any]:
        return {_output(place): tensor for place, tensor in enumerate(function(*tensors))}

    traced = tf.function(serve, input_signature=specs, autograph=False, jit_compile=jit_compile or None)
    if jit_compile:
        _must_compile(serve, specs)
    module = tf.Module()
    module.kept = list(kept)
    tf.saved_model.save(module, str(target), signatures={SERVING: traced.get_concrete_function()})


def _must_compile(serve: Callable[..., Any], specs: Sequence[Any]) -> None:
    """PermanentLoadError: XLA lacks an operation. When called, the graph would say so as if its inputs were wrong."""
    tf = load_tensorflow()
    known = []
    for spec in specs:
        dims = [1] if spec.shape.rank is None else [1 if dim is None else dim for dim in spec.shape]
        known.append(tf.TensorSpec(dims, spec.dtype, name=spec.name))
    try:
        tf.function(serve, autograph=False, jit_compile=True).experimental_get_compiler_ir(*known)(stage="hlo")
    except (ValueError, tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
        raise PermanentLoadError(f"XLA cannot compile it: {one_line(str(error))[:150]}") from error


def endpoints(
    folder: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[tuple[Endpoint, ...], tuple[Endpoint, ...]]:
    """The graph's tensors of a SavedModel that `write` has written."""
    found = signatures(serving_graph(folder))[SERVING]
    return (
        tuple(Endpoint(spec, found.inputs[_input(place)].name) for place, spec in enumerate(inputs)),
        tuple(Endpoint(spec, found.outputs[_output(place)].name) for place, spec in enumerate(outputs)),
    )


def serving_graph(folder: Path) -> Any:
    """The MetaGraphDef of a SavedModel that is for serving. PermanentLoadError, DecodeError (of protobuf), OSError."""
    load_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415

    document = saved_model_pb2.SavedModel()
    document.ParseFromString((folder / "saved_model.pb").read_bytes())
    for graph in document.meta_graphs:
        if list(graph.meta_info_def.tags) == [SERVE_TAG]:
            return graph
    raise PermanentLoadError(f"it has no graph with the tag {SERVE_TAG} alone")


def signatures(graph: Any) -> Mapping[str, Any]:
    """The SignatureDefs of a MetaGraphDef by name."""
    return {name: found for name, found in graph.signature_def.items() if not name.startswith(_THEIRS)}


def variables_bytes(graph: Any) -> int:
    """What the variables of a MetaGraphDef will take, of those that state it; strings count as 8 bytes each.

    Only those that are given a value: what Keras exports names each variable three times, and restores it once.
    """
    tf = load_tensorflow()
    nodes = graph.graph_def.node
    assigned = {node.input[0].partition(":")[0] for node in nodes if node.op == "AssignVariableOp" and node.input}
    total = 0
    for node in nodes:
        if node.op == "VarHandleOp" and node.name not in assigned:
            continue
        if node.op in _VARIABLES and not node.attr["shape"].shape.unknown_rank:
            elements = math.prod(max(0, dim.size) for dim in node.attr["shape"].shape.dim)
            total += elements * (tf.as_dtype(node.attr["dtype"].type).size or 8)
    return total


def _input(place: int) -> str:
    return f"input_{place}"


def _output(place: int) -> str:
    return f"output_{place}"
