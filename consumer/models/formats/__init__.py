"""The formats of models: `.keras`, legacy `.h5` and SavedModel. Only the helper process comes here.

A module each, with `check`, which is quick and needs no TensorFlow, and `export`, which ends in a `Servable`.
"""

from pathlib import Path
from typing import Protocol

from consumer.models.exporting import ExportOptions
from consumer.models.formats import h5, keras, savedmodel
from consumer.models.servable import Servable
from consumer.models.store import Located

__all__ = ["FORMATS", "ExportOptions", "FormatModule"]


class FormatModule(Protocol):
    """What a format has to offer; the modules of this folder do."""

    def check(self, located: Located, max_bytes: int) -> None:
        """Refuse what can be refused without TensorFlow. LoadError, or what a broken file makes a library raise."""

    def export(self, located: Located, target: Path, options: ExportOptions) -> Servable:
        """Make it a SavedModel in `target`, a folder yet to be made, or find that it is one. Anything may be raised."""


FORMATS: dict[str, FormatModule] = {"keras": keras, "h5": h5, "savedmodel": savedmodel}
