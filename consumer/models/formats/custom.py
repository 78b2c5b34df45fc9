"""Objects that are not Keras' own: those that the operator allows, imported, and what to say of others."""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from consumer.models.backend import load_keras
from consumer.models.errors import PermanentLoadError

OPTION = "LOADONCE_CUSTOM_OBJECTS"

_NOT_LOCATED = re.compile(r"Could not locate (?:class|function) '([^'\n]{1,200})'")


def objects(names: Iterable[str]) -> dict[str, Any]:
    """`module:Name` -> the object, by each name that a file may call it. PermanentLoadError: it cannot be imported."""
    registered = load_keras().saving.get_registered_name
    found: dict[str, Any] = {}
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            custom = getattr(import_module(module), attribute)
        except Exception as error:  # a module may raise anything
            raise PermanentLoadError(f"{OPTION}: {name} cannot be imported: {type(error).__name__}") from error
        found[attribute] = found[registered(custom)] = custom
    return found


def refusal(error: Exception) -> PermanentLoadError | None:
    """The error that says what to do, where Keras has come across an object that it does not know."""
    match = _NOT_LOCATED.search(str(error))
    if match is None:
        return None
    return PermanentLoadError(
        f"it holds {shown(match[1])}, which is not Keras' own; if you trust it, set {OPTION} to include its module:Name"
    )


def shown(name: object) -> str:
    """A name that a file gives, for a message."""
    plain = isinstance(name, str) and len(name) <= 64 and name.replace(">", "_").isidentifier()
    return f"'{name}'" if plain else "an unknown class"
