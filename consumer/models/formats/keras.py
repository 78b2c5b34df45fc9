"""`.keras`: a zip of a configuration and weights, opened in Keras' safe mode."""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import h5py

from consumer.models.backend import load_keras, load_tensorflow
from consumer.models.errors import PermanentLoadError, TooLargeError
from consumer.models.exporting import ExportOptions
from consumer.models.formats import custom, graph, hdf5
from consumer.models.manifest import NAME_BYTES
from consumer.models.servable import Format, Servable
from consumer.models.signature import signature_of, tensor_spec
from consumer.models.store import Located

MAX_ENTRIES = 10_000
CONFIG_BYTES = 64 * 1024 * 1024
"""The largest config.json; it is parsed in one piece."""


def check(located: Located, max_bytes: int) -> None:
    """Refuse a zip bomb, and names that lead out of the archive, before Keras unpacks anything. LoadError.

    Keras reads no more of an entry than its directory states, so the stated sizes bound what is unpacked; and those of
    the datasets in the entries that are HDF5 files what is made of them.
    """
    try:
        with zipfile.ZipFile(located.path / located.model_file) as archive:
            entries = archive.infolist()
            _check_directory(entries, max_bytes)
            for entry in entries:
                if entry.filename.endswith(".h5"):
                    _check_weights(archive, entry, max_bytes)
                elif entry.filename.endswith(".npz"):
                    raise PermanentLoadError("its weights are in an .npz file; save it with model.save()")
    except zipfile.BadZipFile:
        raise PermanentLoadError("it is not a .keras archive, or a truncated one") from None


def export(located: Located, target: Path, options: ExportOptions) -> Servable:
    """Open `model.keras` and write it as a SavedModel. PermanentLoadError, or what Keras raises for a broken file."""
    keras = load_keras()
    try:
        with keras.saving.custom_object_scope(custom.objects(options.custom_objects)):
            model = keras.saving.load_model(located.path / located.model_file, compile=False, safe_mode=True)
    except (ValueError, TypeError) as error:
        if refused := custom.refusal(error):
            raise refused from error
        if "safe_mode" in str(error):
            raise PermanentLoadError(
                "it holds a Lambda layer or other code, which Keras' safe mode refuses; export it as a SavedModel"
            ) from error
        raise
    return exported(model, "keras", target, options)


def exported(model: Any, format_: Format, target: Path, options: ExportOptions) -> Servable:
    """Write a Keras model as a SavedModel of one function of its inputs in order. LoadError: not servable."""
    keras, tf = load_keras(), load_tensorflow()
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise PermanentLoadError("the model does not state its inputs; save a built Functional or Sequential model")
    if not hasattr(model, "output_names"):  # Sequential
        model = keras.Model(model.inputs, model.outputs)
    for tensor in (*model.inputs, *model.outputs):
        if tensor.sparse or tensor.ragged:
            raise PermanentLoadError(f"tensor '{tensor.name}' is sparse or ragged, which no job can carry")
    signature = signature_of(
        [tensor_spec(tensor.name, tensor.dtype, tensor.shape, "input") for tensor in model.inputs],
        [
            tensor_spec(name, tensor.dtype, tensor.shape, "output")
            for name, tensor in zip(_distinct(model.output_names), model.outputs, strict=True)
        ],
    )
    structure = model.input

    def call(*flat: Any) -> list[Any]:
        outputs = model(keras.tree.pack_sequence_as(structure, flat), training=False)
        return list(keras.tree.flatten(outputs))

    tables = tf.saved_model.experimental.TrackableResource
    kept = [part for part in tf.train.TrackableView(model).descendants() if isinstance(part, tables)]
    # The backend's own variables: Keras' wrappers of them can be tracked too, and take longer to save.
    kept += [variable.value for variable in model.variables]
    graph.write(call, model.inputs, kept, target, jit_compile=options.jit_compile)
    inputs, outputs = graph.endpoints(target, signature.inputs, signature.outputs)
    nbytes = sum(variable.value.shape.num_elements() * variable.value.dtype.size for variable in model.variables)
    return Servable(target, format_, inputs, outputs, signature.rows, nbytes)


def _check_directory(entries: Sequence[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise PermanentLoadError(f"the archive has {len(entries)} entries; at most {MAX_ENTRIES} are taken")
    total = 0
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise PermanentLoadError("the archive has an entry whose name leads out of it")
        if any(len(part.encode(errors="replace")) > NAME_BYTES for part in parts):
            raise PermanentLoadError(f"the archive has an entry whose name is longer than {NAME_BYTES} bytes")
        if entry.filename == "config.json" and entry.file_size > CONFIG_BYTES:
            raise PermanentLoadError(f"config.json has {entry.file_size} bytes; at most {CONFIG_BYTES} are taken")
        total += entry.file_size
    if total > max_bytes:
        raise TooLargeError(f"unpacked it has {total} bytes; the cache may hold {max_bytes}")


def _check_weights(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, max_bytes: int) -> None:
    with archive.open(entry) as stored:
        if entry.compress_type == zipfile.ZIP_STORED:
            _check_hdf5(stored, max_bytes)
            return
        with TemporaryFile() as unpacked:  # going back in a compressed entry would mean to begin again
            shutil.copyfileobj(stored, unpacked)
            _check_hdf5(unpacked, max_bytes)


def _check_hdf5(stream: IO[bytes], max_bytes: int) -> None:
    with h5py.File(stream, "r") as file:
        hdf5.check(file, max_bytes)


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
