"""SavedModels opened through the engine, without a store and a helper process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from consumer.models.backend import load_tensorflow
from consumer.models.engine import Session
from consumer.models.runtime import Loaded
from consumer.models.servable import Endpoint, Servable, ServingOptions
from consumer.models.signature import signature_of, tensor_spec
from tests.models_zoo import put_module


def servable(folder: Path, serving: ServingOptions | None = None) -> Servable:
    """What the `serving_default` signature of a SavedModel says, by name."""
    tf = load_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    signature = proto.meta_graphs[0].signature_def["serving_default"]

    def endpoints(infos: Any, what: str) -> tuple[Endpoint, ...]:
        found = []
        for name, info in sorted(infos.items()):
            shape = tf.TensorShape(info.tensor_shape)
            dims = None if shape.rank is None else shape.as_list()
            found.append(Endpoint(tensor_spec(name, tf.as_dtype(info.dtype).name, dims, what), info.name))
        return tuple(found)

    inputs, outputs = endpoints(signature.inputs, "input"), endpoints(signature.outputs, "output")
    rows = signature_of([end.spec for end in inputs], [end.spec for end in outputs]).rows
    options = serving or ServingOptions()
    return Servable(folder, "savedmodel", inputs, outputs, rows, 0, serving=options)


def session(what: Servable) -> Session:
    """An open session of it."""
    return Session.open(what.folder, [end.tensor for end in what.inputs], [end.tensor for end in what.outputs])


Kind = TypeVar("Kind", bound=Loaded)


def load(
    what: Servable,
    kind: type[Kind],
    *,
    key: str = "m",
    version: int = 3,
    nbytes: int = 0,
    opened: Session | None = None,
) -> Kind:
    """A model in memory; `opened` spares opening it again."""
    return kind(
        key=key,
        version=version,
        path_in_store=f"{key}/{version}/saved_model.pb",
        servable=what,
        session=opened or session(what),
        nbytes=nbytes,
        fingerprint=(),
    )


def save(folder: Path, function: Callable[..., Any], **signature: Any) -> Servable:
    """A plain TensorFlow function, saved: `signature` are the TensorSpecs of its inputs by name, it gives a dict."""
    return servable(put_module(folder, function, **signature))
