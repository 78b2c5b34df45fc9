"""The loaded models of this process, bounded by count and by bytes. For the owner's thread only."""

import time
from collections import OrderedDict
from collections.abc import Callable

from consumer.models.events import Dropped
from consumer.models.runtime import Loaded
from consumer.models.store import Located

Name = tuple[str, int]
"""Model and version."""


def name_of(version: Loaded | Located) -> Name:
    """The model and version that this is."""
    return version.key, version.version


class Cache:
    """Who was used least recently leaves first; never a pinned model, never one in use.

    Nobody makes room before having been here for `min_s` seconds: more models in turn than fit would otherwise be
    loaded for a job each. A model that was dropped while in use is in memory, and in `nbytes`, until its last batch has
    left, but keeps nobody out: that is the memory, beyond the bounds, of swaps that do not wait.
    Spares, which nobody has asked for since they were made one, leave before all others, however young, and even with
    a last batch in hand, as what is replaced does.
    """

    def __init__(
        self,
        max_models: int,
        max_bytes: int,
        dropped: Callable[[Loaded, Dropped], None],
        *,
        min_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._dropped = dropped
        self._min_s = min_s
        self._clock = clock
        self._since: dict[Name, float] = {}
        self._models: OrderedDict[Name, Loaded] = OrderedDict()  # least recently used first
        self._leaving: list[tuple[Loaded, Dropped]] = []
        self._spares: set[Name] = set()
        self.pinned: set[Name] = set()

    def get(self, key: str, version: int) -> Loaded | None:
        """The model, now the most recently used."""
        name = (key, version)
        loaded = self._models.get(name)
        if loaded is not None:
            self._models.move_to_end(name)
            self._spares.discard(name)
        return loaded

    def peek(self, key: str, version: int) -> Loaded | None:
        """The model, without its being used."""
        return self._models.get((key, version))

    def touch(self, loaded: Loaded) -> None:
        """The model, which is in here, was used."""
        name = (loaded.key, loaded.version)
        self._models.move_to_end(name)
        self._spares.discard(name)

    def spare(self, loaded: Loaded) -> None:
        """The model, which is in here and not pinned, is the first to leave from now on, until it is used."""
        self._spares.add(name_of(loaded))

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

    def has_room(self, newcomer: Loaded, *, beside_spares: bool) -> bool:
        """Whether the newcomer fits in although nobody leaves, or nobody but spares."""
        name = name_of(newcomer)
        stays = [
            loaded for at, loaded in self._models.items() if at != name and (beside_spares or at not in self._spares)
        ]
        nbytes = sum(loaded.nbytes for loaded in stays) + newcomer.nbytes
        return len(stays) < self._max_models and nbytes <= self._max_bytes

    def put(self, newcomer: Loaded, replaces: Loaded | None) -> list[Loaded] | str:
        """Take the newcomer in; the result is who had to leave. A text: why nobody may leave now; nothing was done.

        `replaces` is about to leave and does not count: both are there for the moment of a swap.
        """
        name = (newcomer.key, newcomer.version)
        stays = [loaded for loaded in self.models() if loaded is not replaces and name_of(loaded) != name]
        count = len(stays) + 1
        nbytes = sum(loaded.nbytes for loaded in stays) + newcomer.nbytes
        oldest_young = self._clock() - self._min_s
        young = 0
        leaving = []
        for loaded in sorted(stays, key=lambda loaded: name_of(loaded) not in self._spares):
            if count <= self._max_models and nbytes <= self._max_bytes:
                break
            at = (loaded.key, loaded.version)
            if at not in self._spares:
                if loaded.in_use or at in self.pinned:
                    continue
                if self._since[at] > oldest_young:
                    young += 1
                    continue
            leaving.append(loaded)
            count -= 1
            nbytes -= loaded.nbytes
        if count > self._max_models or nbytes > self._max_bytes:
            return f"{young} models have not been here for {self._min_s:g} s" if young else "all models are in use"
        for loaded in leaving:
            self.drop(loaded, "evicted")
        same = self._models.get(name)
        if same is not None:
            self.drop(same, "replaced")
        self._models[name] = newcomer
        self._since[name] = self._clock()
        return leaving

    def drop(self, loaded: Loaded, why: Dropped) -> None:
        """Serve the model no more; it is gone when its last batch has left."""
        name = (loaded.key, loaded.version)
        if self._models.get(name) is loaded:
            del self._models[name]
            del self._since[name]
            self.pinned.discard(name)
            self._spares.discard(name)
            self._leaving.append((loaded, why))

    def sweep(self) -> None:
        """Let go of what was dropped and is not in use any more."""
        if self._leaving:
            gone = [(loaded, why) for loaded, why in self._leaving if not loaded.in_use]
            self._leaving = [(loaded, why) for loaded, why in self._leaving if loaded.in_use]
            for loaded, why in gone:
                self._dropped(loaded, why)
