"""`.keras`: a zip of a configuration and weights, opened in Keras' safe mode."""

import zipfile
from collections.abc import Sequence
from typing import Any

from consumer.models.backend import load_keras, load_tensorflow
from consumer.models.errors import PermanentLoadError, TooLargeError
from consumer.models.runtime import Format, Loaded, Signature, signature_of, tensor_spec
from consumer.models.store import Located

MAX_ENTRIES = 10_000
CONFIG_BYTES = 64 * 1024 * 1024
"""The largest config.json; it is parsed in one piece."""


def open_model(located: Located, *, trusted: bool) -> Loaded:  # noqa: ARG001 - always in safe mode
    """Open `model.keras`. PermanentLoadError, or whatever Keras raises for a broken file."""
    try:
        model = load_keras().saving.load_model(located.path / located.model_file, compile=False, safe_mode=True)
    except ValueError as error:
        if "safe_mode" in str(error):
            raise PermanentLoadError(
                "it holds a Lambda layer or other code, which Keras' safe mode refuses; export it as a SavedModel"
            ) from error
        raise
    return loaded_from(model, located, "keras")


def check(located: Located, max_bytes: int) -> None:
    """Refuse a zip bomb, and names that lead out of the archive, before Keras unpacks anything. PermanentLoadError.

    Keras reads no more of an entry than its directory states, so the stated sizes bound what is unpacked.
    """
    try:
        with zipfile.ZipFile(located.path / located.model_file) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        raise PermanentLoadError("it is not a .keras archive, or a truncated one") from None
    if len(entries) > MAX_ENTRIES:
        raise PermanentLoadError(f"the archive has {len(entries)} entries; at most {MAX_ENTRIES} are taken")
    total = 0
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise PermanentLoadError("the archive has an entry whose name leads out of it")
        if entry.filename == "config.json" and entry.file_size > CONFIG_BYTES:
            raise PermanentLoadError(f"config.json has {entry.file_size} bytes; at most {CONFIG_BYTES} are taken")
        total += entry.file_size
    if total > max_bytes:
        raise TooLargeError(f"unpacked it has {total} bytes; the cache may hold {max_bytes}")


def loaded_from(model: Any, located: Located, format_: Format) -> Loaded:
    """A Keras model as one graph function, traced once, of its inputs in order. PermanentLoadError: not servable."""
    keras, tf = load_keras(), load_tensorflow()
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise PermanentLoadError("the model does not state its inputs; save a built Functional or Sequential model")
    if not hasattr(model, "output_names"):  # Sequential
        model = keras.Model(model.inputs, model.outputs)
    signature = _signature(model)
    structure = model.input

    def serve(*flat: Any) -> list[Any]:
        outputs = model(keras.tree.pack_sequence_as(structure, flat), training=False)
        return list(keras.tree.flatten(outputs))

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{index}") for index, tensor in enumerate(model.inputs)
    ]
    return Loaded(
        key=located.key,
        version=located.version,
        format=format_,
        path_in_store=located.path_in_store,
        signature=signature,
        call=tf.function(serve, input_signature=specs, autograph=False).get_concrete_function(),
        nbytes=sum(tf.as_dtype(variable.dtype).size * _elements(variable.shape) for variable in model.variables),
        fingerprint=located.fingerprint,
    )


def _signature(model: Any) -> Signature:
    for tensor in (*model.inputs, *model.outputs):
        if tensor.sparse or tensor.ragged:
            raise PermanentLoadError(f"tensor '{tensor.name}' is sparse or ragged, which no job can carry")
    return signature_of(
        [tensor_spec(tensor.name, tensor.dtype, tensor.shape, "input") for tensor in model.inputs],
        [
            tensor_spec(name, tensor.dtype, tensor.shape, "output")
            for name, tensor in zip(_distinct(model.output_names), model.outputs, strict=True)
        ],
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """The names; a layer that gives several outputs is `name`, `name_1`, ..."""
    distinct: list[str] = []
    for name in names:
        candidate, count = name, 0
        while candidate in distinct:
            count += 1
            candidate = f"{name}_{count}"
        distinct.append(candidate)
    return distinct


def _elements(shape: Sequence[int]) -> int:
    elements = 1
    for dimension in shape:
        elements *= dimension
    return elements
