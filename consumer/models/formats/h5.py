"""Legacy `.h5`: its configuration can hold code, so it is read before Keras may see it."""

import json
from typing import Any

import h5py

from consumer.models.backend import load_keras
from consumer.models.errors import PermanentLoadError
from consumer.models.formats.keras import loaded_from
from consumer.models.runtime import Loaded
from consumer.models.store import Located

OPTION = "LOADONCE_TRUSTED_H5_MODELS"
CONFIG_BYTES = 64 * 1024 * 1024
MAX_OBJECTS = 1_000_000

# Built into Keras, and yet a way to run or read something from outside of the file.
_NOT_PLAIN = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
# How Keras writes tuples and tensors among a layer's arguments.
_NOTATION = {"__tuple__", "__tensor__", "__keras_tensor__", "__numpy__", "__ellipsis__", "__slice__", "slice"}
_PLACES = ("layers", "models", "initializers", "regularizers", "constraints", "dtype_policies", "activations")


def check(located: Located, max_bytes: int) -> None:  # noqa: ARG001 - the file's own size has been looked at
    """Read the configuration. PermanentLoadError, or the OSError that h5py raises for a broken file."""
    _configuration(located)


def open_model(located: Located, *, trusted: bool) -> Loaded:
    """Open `model.h5`. PermanentLoadError, or whatever Keras and h5py raise for a broken file."""
    if not trusted:
        _must_be_plain(_configuration(located), located.key)
    path = located.path / located.model_file
    model = load_keras().saving.load_model(path, compile=False, safe_mode=not trusted)
    return loaded_from(model, located, "h5")


def _configuration(located: Located) -> Any:
    with h5py.File(located.path / located.model_file, "r") as file:
        stored = file.attrs.get("model_config")
    if stored is None:
        raise PermanentLoadError("it holds weights and no model; save it with model.save()")
    if not isinstance(stored, str | bytes) or len(stored) > CONFIG_BYTES:
        raise PermanentLoadError(f"its model_config is not a text of at most {CONFIG_BYTES} bytes")
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):
        raise PermanentLoadError("its model_config is not JSON") from None


def _must_be_plain(configuration: Any, key: str) -> None:
    """Refuse a configuration that holds a Lambda, a function or a class that is not Keras' own."""
    known = _builtin_classes()
    todo = [configuration]
    objects = 0
    while todo:
        value = todo.pop()
        objects += 1
        if objects > MAX_OBJECTS:
            raise PermanentLoadError(f"its model_config has more than {MAX_OBJECTS} values")
        if isinstance(value, dict):
            if problem := _problem(value, known):
                raise PermanentLoadError(f"it holds {problem}; if you trust it, set {OPTION} to include {key}")
            todo.extend(value.values())
        elif isinstance(value, list):
            todo.extend(value)


def _problem(value: dict[str, Any], known: frozenset[str]) -> str | None:
    if "class_name" in value:
        name = value["class_name"]
        if not isinstance(name, str) or name not in known:
            return f"{_shown(name)}, which is not a plain object of Keras' own"
        if value.get("registered_name") not in (None, name):
            return "a registered class"
        module = value.get("module")
        if module is not None and not (isinstance(module, str) and f"{module}.".startswith("keras.")):
            return "a class of another module"
    if "function" in value or "function_type" in value or "code" in value:
        return "a function"
    return None


def _shown(name: object) -> str:
    return f"'{name}'" if isinstance(name, str) and name.isidentifier() and len(name) <= 64 else "an unknown class"


def _builtin_classes() -> frozenset[str]:
    keras = load_keras()
    names = {name for place in _PLACES for name in dir(getattr(keras, place)) if name[:1].isupper()}
    return frozenset((names | _NOTATION | {"Functional"}) - _NOT_PLAIN)
