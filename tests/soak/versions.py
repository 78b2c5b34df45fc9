"""Versions of the model that is swapped, and a store and a disk cache that have been got ready for them."""

import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

from consumer.models.opening import Opener, OpenOptions
from consumer.models.store import locate
from tests import models_zoo as zoo
from tests import stores
from tests.soak.jobs import MODELS
from tests.swaps import MODEL


class Versions:
    """Version N adds N to the sum of a row.

    The first ones are opened beforehand, into the disk cache of the replicas: otherwise each new version, and each
    start of a replica after it, would wait for an import of TensorFlow, and a small machine would do little else.
    """

    def __init__(self, folder: Path, prepared: Iterable[int]) -> None:
        """`prepared`: which to open beforehand."""
        self.store = stores.write(folder / "store")
        self.disk_cache = folder / "disk-cache"
        self._folder = folder
        self._version = 1
        self.corrupt: set[int] = set()
        self._built = {number: self._build(number) for number in (1, *prepared)}
        zoo.publish(self._built[1], self.store, MODEL, 1)
        self._open()

    def put(self, *, corrupt: bool) -> str:
        """Put the next version into the store, or what looks like one, by a rename."""
        self._version += 1
        version = self._version
        built = self._built.pop(version, None) or self._build(version)
        if corrupt:
            model = built / "model.keras"
            model.write_bytes(model.read_bytes()[:-1000])
            self.corrupt.add(version)
        zoo.publish(built, self.store, MODEL, version)
        shutil.rmtree(built)
        return f"version {version} of {MODEL}{', corrupt' if corrupt else ''}"

    def _build(self, version: int) -> Path:
        return zoo.put(zoo.dense(bias=version), self._folder, "built", version, "keras")

    def _open(self) -> None:
        opener = Opener(OpenOptions(trusted_h5=frozenset(), max_bytes=1 << 30), self.disk_cache / "opened", 10 << 30)
        try:
            folders = [(model, self.store / model / "1") for model in MODELS[:-1]]
            for model, folder in [*folders, *((MODEL, built) for built in self._built.values())]:
                located = locate(folder, model, int(folder.name))
                assert located is not None, folder
                opener.open(located, threading.Event()).close()
        finally:
            opener.close(10)
