"""The loaded models of this process, bounded by count and by bytes. For the owner's thread only."""

from collections import OrderedDict
from collections.abc import Callable

from consumer.models.runtime import Loaded

Name = tuple[str, int]
"""Model and version."""


class Cache:
    """Who was used least recently leaves first; never a pinned model, never one in use.

    A model that was replaced or withdrawn while in use counts until its last batch has left.
    """

    def __init__(self, max_models: int, max_bytes: int, dropped: Callable[[Loaded, str], None]) -> None:
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._dropped = dropped
        self._models: OrderedDict[Name, Loaded] = OrderedDict()  # least recently used first
        self._leaving: list[tuple[Loaded, str]] = []
        self.pinned: set[Name] = set()

    def get(self, key: str, version: int) -> Loaded | None:
        """The model, now the most recently used."""
        name = (key, version)
        loaded = self._models.get(name)
        if loaded is not None:
            self._models.move_to_end(name)
        return loaded

    def touch(self, loaded: Loaded) -> None:
        """The model, which is in here, was used."""
        self._models.move_to_end((loaded.key, loaded.version))

    def models(self) -> list[Loaded]:
        """What can be served, least recently used first."""
        return list(self._models.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all that is in memory, what is leaving included."""
        return sum(loaded.nbytes for loaded in self.models()) + sum(loaded.nbytes for loaded, _ in self._leaving)

    def refusal(self, newcomer: Loaded, replaces: Loaded | None) -> str | None:
        """Why the newcomer can never come in, if so: it is too large beside the models that never leave."""
        name = (newcomer.key, newcomer.version)
        pinned = [
            loaded for at, loaded in self._models.items() if at in self.pinned and at != name and loaded is not replaces
        ]
        if len(pinned) >= self._max_models:
            return f"the cache is full of {len(pinned)} preloaded models (LOADONCE_CACHE_MODELS)"
        room = self._max_bytes - sum(loaded.nbytes for loaded in pinned)
        if newcomer.nbytes > room:
            return f"it takes {newcomer.nbytes} bytes; the cache has room for {room} (LOADONCE_CACHE_BYTES)"
        return None

    def put(self, newcomer: Loaded, replaces: Loaded | None) -> list[Loaded] | None:
        """Take the newcomer in; the result is who had to leave. None: nothing may leave now; nothing was done.

        `replaces` is about to leave and does not count: both are there for the moment of a swap.
        """
        name = (newcomer.key, newcomer.version)
        stays = [loaded for loaded in self.models() if loaded is not replaces and (loaded.key, loaded.version) != name]
        count = len(stays) + 1
        nbytes = sum(loaded.nbytes for loaded in stays) + newcomer.nbytes
        leaving = []
        for loaded in stays:
            if count <= self._max_models and nbytes <= self._max_bytes:
                break
            if not loaded.in_use and (loaded.key, loaded.version) not in self.pinned:
                leaving.append(loaded)
                count -= 1
                nbytes -= loaded.nbytes
        if count > self._max_models or nbytes > self._max_bytes:
            return None
        for loaded in leaving:
            self.drop(loaded, "evicted")
        same = self._models.get(name)
        if same is not None:
            self.drop(same, "replaced")
        self._models[name] = newcomer
        return leaving

    def drop(self, loaded: Loaded, why: str) -> None:
        """Serve the model no more; it is gone when its last batch has left."""
        name = (loaded.key, loaded.version)
        if self._models.get(name) is loaded:
            del self._models[name]
            self.pinned.discard(name)
            self._leaving.append((loaded, why))

    def sweep(self) -> None:
        """Let go of what was dropped and is not in use any more."""
        if self._leaving:
            gone = [(loaded, why) for loaded, why in self._leaving if not loaded.in_use]
            self._leaving = [(loaded, why) for loaded, why in self._leaving if loaded.in_use]
            for loaded, why in gone:
                self._dropped(loaded, why)
