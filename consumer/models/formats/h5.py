"""Legacy `.h5`: its configuration can hold code, so it is read before Keras may see it."""

import json
from pathlib import Path
from typing import Any

import h5py

from consumer.models.backend import load_keras
from consumer.models.errors import PermanentLoadError
from consumer.models.exporting import ExportOptions
from consumer.models.formats import custom, hdf5
from consumer.models.formats.keras import exported
from consumer.models.servable import Servable
from consumer.models.store import Located

OPTION = "LOADONCE_TRUSTED_H5_MODELS"
CONFIG_BYTES = 64 * 1024 * 1024
MAX_VALUES = 1_000_000

# Built into Keras, and yet a way to run or read something from outside of the file.
_NOT_PLAIN = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
# How Keras writes tuples and tensors among a layer's arguments.
_NOTATION = {"__tuple__", "__tensor__", "__keras_tensor__", "__numpy__", "__ellipsis__", "__slice__", "slice"}
_PLACES = ("layers", "models", "initializers", "regularizers", "constraints", "dtype_policies", "activations")


def check(located: Located, max_bytes: int) -> None:
    """Read the configuration and what the datasets state. LoadError, or the OSError h5py raises for a broken file."""
    with h5py.File(located.path / located.model_file, "r") as file:
        hdf5.check(file, max_bytes)
        _configuration(file)


def export(located: Located, target: Path, options: ExportOptions) -> Servable:
    """Open `model.h5` and write it as a SavedModel. PermanentLoadError, or what Keras and h5py raise."""
    keras = load_keras()
    path = located.path / located.model_file
    allowed = custom.objects(options.custom_objects)
    if not options.trusted:
        with h5py.File(path, "r") as file:
            _must_be_plain(_configuration(file), located.key, allowed)
    with keras.saving.custom_object_scope(allowed):
        model = keras.saving.load_model(path, compile=False, safe_mode=not options.trusted)
    return exported(model, "h5", target, options)


def _configuration(file: h5py.File) -> Any:
    stored = file.attrs.get("model_config")
    if stored is None:
        raise PermanentLoadError("it holds weights and no model; save it with model.save()")
    if not isinstance(stored, str | bytes) or len(stored) > CONFIG_BYTES:
        raise PermanentLoadError(f"its model_config is not a text of at most {CONFIG_BYTES} bytes")
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):
        raise PermanentLoadError("its model_config is not JSON") from None


def _must_be_plain(configuration: Any, key: str, allowed: dict[str, Any]) -> None:
    """Refuse a configuration that holds a Lambda, a function or a class that is neither Keras' own nor allowed."""
    known = _builtin_classes()
    todo = [configuration]
    values = 0
    while todo:
        value = todo.pop()
        values += 1
        if values > MAX_VALUES:
            raise PermanentLoadError(f"its model_config has more than {MAX_VALUES} values")
        if isinstance(value, dict):
            if problem := _problem(value, known, allowed):
                raise PermanentLoadError(
                    f"it holds {problem}; if you trust it, set {custom.OPTION} to include the class, or {OPTION} to "
                    f"include {key}"
                )
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _problem(value: dict[str, Any], known: frozenset[str], allowed: dict[str, Any]) -> str | None:
    if "class_name" in value:
        name = value["class_name"]
        if isinstance(name, str) and name in allowed:
            return _stranger(value, name, allowed[name])
        if not isinstance(name, str) or name not in known:
            return f"{custom.shown(name)}, which is not a plain object of Keras' own"
        if value.get("registered_name") not in (None, name):
            return "a registered class"
        module = value.get("module")
        if module is not None and not (isinstance(module, str) and f"{module}.".startswith("keras.")):
            return "a class of another module"
    if "function" in value or "function_type" in value or "code" in value:
        return "a function"
    return None


def _stranger(value: dict[str, Any], name: str, allowed: Any) -> str | None:
    if value.get("module") not in (None, allowed.__module__):
        return f"a {custom.shown(name)} of another module than the one that is allowed"
    return None


def _builtin_classes() -> frozenset[str]:
    keras = load_keras()
    names = {name for place in _PLACES for name in dir(getattr(keras, place)) if name[:1].isupper()}
    return frozenset((names | _NOTATION | {"Functional"}) - _NOT_PLAIN)
