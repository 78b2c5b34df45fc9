"""SavedModel: a graph with its variables, called by its serving signature.

A graph is a program: its operations can read and write files when it is called. The store must be writable only by
those who may run code in this process.
"""

from collections.abc import Sequence
from typing import Any

from consumer.models.backend import load_tensorflow
from consumer.models.errors import PermanentLoadError
from consumer.models.runtime import Loaded, TensorSpec, signature_of, tensor_spec
from consumer.models.store import Located

SERVING = "serving_default"
SERVE_TAG = "serve"  # tf.saved_model.SERVING


def check(located: Located, max_bytes: int) -> None:
    """Nothing: its files' size has been looked at, and only TensorFlow can read a graph."""


def open_model(located: Located, *, trusted: bool) -> Loaded:  # noqa: ARG001 - no option refuses graphs
    """Open the folder's SavedModel. PermanentLoadError, or whatever TensorFlow raises for a broken one."""
    model = load_tensorflow().saved_model.load(str(located.path), tags=[SERVE_TAG])
    function = _serving_function(model)
    _, takes = function.structured_input_signature
    gives = function.structured_outputs
    inputs = _specs(takes, "input")
    outputs = _specs(gives, "output")
    return Loaded(
        key=located.key,
        version=located.version,
        format="savedmodel",
        path_in_store=located.path_in_store,
        signature=signature_of(inputs, outputs),
        call=_Call(model, function, inputs, outputs),
        nbytes=located.nbytes,
        fingerprint=located.fingerprint,
    )


def _serving_function(model: Any) -> Any:
    signatures = getattr(model, "signatures", {})
    names = list(signatures)
    if SERVING not in names and len(names) != 1:
        raise PermanentLoadError(f"it has {len(names)} signatures and none is {SERVING}")
    return signatures[SERVING if SERVING in names else names[0]]


def _specs(structure: Any, what: str) -> list[TensorSpec]:
    if not isinstance(structure, dict):
        raise PermanentLoadError(f"its {what}s have no names")
    tf = load_tensorflow()
    specs = []
    for name, spec in sorted(structure.items()):
        if not isinstance(spec, tf.TensorSpec | tf.Tensor):  # a signature of TensorFlow 1 gives tensors
            raise PermanentLoadError(f"{what} '{name}' is sparse or ragged, which no job can carry")
        shape = None if spec.shape.rank is None else spec.shape.as_list()
        specs.append(tensor_spec(name, spec.dtype.name, shape, what))
    return specs


class _Call:
    """The signature with its tensors by position. It keeps the model, without which its variables would go."""

    __slots__ = ("_function", "_gives", "_model", "_takes")

    def __init__(self, model: Any, function: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._model = model
        self._function = function
        self._takes = [spec.name for spec in inputs]
        self._gives = [spec.name for spec in outputs]

    def __call__(self, *tensors: Any) -> list[Any]:
        outputs = self._function(**dict(zip(self._takes, tensors, strict=True)))
        return [outputs[name] for name in self._gives]
