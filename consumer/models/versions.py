"""The loaded versions: which one answers, which stay beside it, and who leaves, as the store and the loads have it."""

from consumer.models.cache import Cache, Name, name_of
from consumer.models.events import Dropped, ModelEvents, VersionStatus
from consumer.models.loads import WITHDRAWN, Loads
from consumer.models.policy import Policies
from consumer.models.runtime import Loaded
from consumer.models.store import Catalog
from schemas.reasons import Failure

NO_ROOM = "its policy keeps it where there is room, and there is none"


class Versions:
    """For the owner's thread only. Models whose jobs may now be answered otherwise are added to `changed`."""

    def __init__(self, cache: Cache, loads: Loads, policies: Policies, events: ModelEvents) -> None:
        self.catalog = Catalog({})
        self.preloaded: set[str] = set()
        self._cache = cache
        self._loads = loads
        self._policies = policies
        self._events = events
        self._current: dict[str, Loaded] = {}  # who answers jobs that name no version
        self._aliased: dict[tuple[str, str], int] = {}  # the loaded version that answers an alias
        self._kept: dict[str, frozenset[int]] = {}  # what the policy keeps loaded, of models that are in use
        self._waits_for_room: set[Name] = set()
        self._evicted: set[Name] = set()  # until they are asked for again, or gone
        self._held: list[Loaded] = []  # came into the cache with the last `admit`

    # who answers -----------------------------------------------------------------------------------------------------

    def current(self, key: str) -> Loaded | None:
        """Who answers jobs that name no version, if it is loaded; it is used."""
        loaded = self._current.get(key)
        if loaded is not None:
            self._cache.touch(loaded)
        return loaded

    def best(self, key: str) -> Loaded | Failure | None:
        """The first that loads of those that the policy allows, of which there is one; None: one of them is loading."""
        best: Failure | None = None
        for version in self.candidates(key):
            loaded = self._cache.get(key, version)
            if loaded is not None:
                self.serve(loaded)
                return loaded
            failure = self._loads.load(self.catalog.models[key].versions[version])
            if failure is None:
                return None
            best = best or failure
        return best

    def candidates(self, key: str) -> list[int]:
        """The versions that may answer jobs that name none, the best first."""
        entry = self.catalog.models.get(key)
        return self._policies.of(key).candidates(entry) if entry else []

    def meant(self, key: str, alias: str) -> int | None:
        """The version that has answered the alias so far."""
        return self._aliased.get((key, alias))

    def mean(self, key: str, alias: str, version: int) -> None:
        """From now on this version, which is loaded, answers the alias."""
        if self._aliased.get((key, alias)) != version:
            self._aliased[key, alias] = version
            self._events.alias_served(key, alias, version)

    def serve(self, loaded: Loaded) -> None:
        """From now on, jobs that name no version are answered by this one, which is in the cache."""
        self._cache.touch(loaded)
        old = self._current.get(loaded.key)
        self._current[loaded.key] = loaded
        if old is not loaded:
            self._events.version_served(loaded, old.version if old else None)
        if old is not None and old is not loaded:
            self._step_down(old)
        if loaded.key in self.preloaded:
            self._cache.pinned.add(name_of(loaded))
        self._keep(loaded.key)

    def statuses(self) -> tuple[VersionStatus, ...]:
        """What is loaded, by name and version."""
        aliases: dict[Name, list[str]] = {}
        for (key, alias), version in sorted(self._aliased.items()):
            aliases.setdefault((key, version), []).append(alias)
        return tuple(
            VersionStatus(
                key=loaded.key,
                version=loaded.version,
                path_in_store=loaded.path_in_store,
                format=loaded.format,
                nbytes=loaded.nbytes,
                in_use=loaded.in_use,
                current=self._current.get(loaded.key) is loaded,
                pinned=name_of(loaded) in self._cache.pinned,
                aliases=tuple(aliases.get(name_of(loaded), ())),
            )
            for loaded in sorted(self._cache.models(), key=name_of)
        )

    def missing(self) -> tuple[str, ...]:
        """Preloaded models that nobody answers for."""
        return tuple(sorted(self.preloaded - self._current.keys()))

    # what a look has seen --------------------------------------------------------------------------------------------

    def take_look(self, catalog: Catalog, stirred: set[str], changed: set[str]) -> None:
        """The store is like this now; `stirred` are models to be brought in line although they look the same."""
        before, self.catalog = self.catalog, catalog
        self._evicted = {name for name in self._evicted if catalog.located(*name) is not None}
        known = {failed.key for failed in self._loads.failed()} | {loaded.key for loaded in self._cache.models()}
        known |= {key for key, _ in self._aliased} | self.preloaded
        for key in known | stirred | self._current.keys():
            if key in stirred or before.models.get(key) is not catalog.models.get(key):
                self.follow(key)
                changed.add(key)

    def follow(self, key: str) -> None:
        """Bring what is loaded, being loaded and remembered under this name in line with the store."""
        self._loads.forget_changed(key, self.catalog)
        before = self._current.get(key)
        for loaded in [loaded for loaded in self._cache.models() if loaded.key == key]:
            located = self.catalog.located(key, loaded.version)
            if located is None:
                self._drop(loaded, "withdrawn")
            elif located.fingerprint != loaded.fingerprint:
                self._loads.load(located)
        self._follow_aliases(key)
        self._retire(key)
        if key not in self._current:
            if self.candidates(key):
                if before is not None or key in self.preloaded:
                    self.best(key)
            elif before is not None:
                self._events.none_served(key, before.version)
        self._advance(key)
        self._keep(key)

    def _retire(self, key: str) -> None:
        """The version that answers goes on only while the policy means any, although its files are still there."""
        entry, current = self.catalog.models.get(key), self._current.get(key)
        if entry is not None and current is not None and self._policies.of(key).names_none(entry):
            if self._has_alias(current):
                del self._current[key]
                self._cache.pinned.discard(name_of(current))
            else:
                self._drop(current, "withdrawn")

    def _advance(self, key: str) -> None:
        """Let the best version that is loaded answer, and load what may be better, beside it."""
        current = self._current.get(key)
        if current is None:
            return
        for version in self.candidates(key):
            if version == current.version:
                return
            loaded = self._cache.peek(key, version)
            if loaded is not None:
                self.serve(loaded)
                return
            if self._loads.load(self.catalog.models[key].versions[version]) is None:
                return

    def _follow_aliases(self, key: str) -> None:
        """Aliases that jobs have used: move those whose new version is loaded, load what the others will mean."""
        entry = self.catalog.models.get(key)
        for alias, before in [(alias, version) for (at, alias), version in self._aliased.items() if at == key]:
            wanted = entry.aliases.get(alias) if entry else None
            if wanted is None:
                del self._aliased[key, alias]
                self._events.alias_served(key, alias, None)
            elif wanted != before and self._cache.peek(key, wanted) is not None:
                self.mean(key, alias, wanted)
            elif wanted != before and (located := self.catalog.located(key, wanted)) is not None:
                self._loads.load(located)

    def _keep(self, key: str) -> None:
        """Load what the policy wants beside the version that answers, and drop what it does not any more."""
        entry = self.catalog.models.get(key)
        current = self._current.get(key)
        if entry is None or current is None:
            self._kept.pop(key, None)
            return
        before, kept = self._kept.get(key, frozenset()), frozenset(self._policies.of(key).kept(entry))
        self._kept[key] = kept
        for version in sorted(kept, reverse=True):
            # One after another, so that the highest get the room. What had none is not fetched back: it would only take
            # the room of the next.
            absent = self._cache.peek(key, version) is None and (key, version) not in self._evicted
            if absent and self._loads.load_spare(entry.versions[version]):
                break
        for version in before - kept:
            loaded = self._cache.peek(key, version)
            if loaded is not None and loaded is not current and not self._has_alias(loaded):
                self._drop(loaded, "replaced")

    # who comes in, and who leaves ------------------------------------------------------------------------------------

    def release_held(self) -> None:
        """Those that came in with the last `admit` have had their chance to be found by the jobs that waited."""
        for loaded in self._held:
            loaded.release()
        self._held.clear()

    def admit(self, changed: set[str]) -> None:
        """Find a place for each newcomer, if there is one."""
        for name, newcomer in list(self._loads.newcomers.items()):
            if self.catalog.located(*name) is None:
                self._loads.abandon(name, WITHDRAWN)
            elif self._is_spare(newcomer) and not self._cache.has_room(newcomer, beside_spares=True):
                self._evicted.add(name)
                self._loads.abandon(name, NO_ROOM)
                self._keep(newcomer.key)
            elif not self._take_in(newcomer):
                continue
            changed.add(newcomer.key)
            self._waits_for_room.discard(name)

    def _take_in(self, newcomer: Loaded) -> bool:
        """Into the cache, or out if it will never fit; False while it waits for room."""
        name = name_of(newcomer)
        replaces = self._replaced_by(newcomer)
        if refusal := self._cache.refusal(newcomer, replaces):
            self._loads.refuse(name, refusal)
            self.follow(newcomer.key)
            return True
        better, spare = self._is_better(newcomer), self._is_spare(newcomer)
        evicted = self._cache.put(newcomer, replaces)
        if isinstance(evicted, str):
            if name not in self._waits_for_room:
                self._waits_for_room.add(name)
                self._events.waiting_for_room(*name, evicted)
            return False
        for gone in evicted:
            self._evicted.add(name_of(gone))
            self._forget_current(gone)
        if replaces is not None:
            self._evicted.add(name_of(replaces))
            self._cache.drop(replaces, "replaced")
        self._evicted.discard(name)
        self._loads.settled(name)
        newcomer.retain()  # until the next turn, so that the jobs that wait for it find it
        self._held.append(newcomer)
        self._events.model_loaded(newcomer)
        if better:
            self.serve(newcomer)
        elif newcomer.key in self.preloaded and newcomer.key not in self._current:
            self.best(newcomer.key)
        elif spare:
            self._cache.spare(newcomer)
        self.follow(newcomer.key)
        return True

    def _is_spare(self, newcomer: Loaded) -> bool:
        """Whether nobody needs it: the policy keeps it, or what had failed was probed."""
        served = newcomer.key in self._current
        return served and not self._is_better(newcomer) and not self._loads.is_needed(name_of(newcomer))

    def _is_better(self, newcomer: Loaded) -> bool:
        """Whether the policy puts it before the one that answers, or it is that one with other files."""
        current = self._current.get(newcomer.key)
        if current is None:
            return False
        ranks = {version: rank for rank, version in enumerate(self.candidates(newcomer.key))}
        last = len(ranks)
        if newcomer.version == current.version:
            return True
        return ranks.get(newcomer.version, last) < ranks.get(current.version, last)

    def _replaced_by(self, newcomer: Loaded) -> Loaded | None:
        """Who leaves as the newcomer takes its place: not one that jobs ask for by alias, nor one that the policy keeps
        where nobody else has to leave for that."""
        current = self._current.get(newcomer.key)
        if current is None or not self._is_better(newcomer) or self._has_alias(current):
            return None
        if self._is_kept(current) and self._cache.has_room(newcomer, beside_spares=False):
            return None
        return current

    def _step_down(self, old: Loaded) -> None:
        """Another version answers now: this one stays only for who may ask for it, or while there is room."""
        if self._cache.peek(old.key, old.version) is not old:
            return
        self._cache.pinned.discard(name_of(old))
        if self._has_alias(old):
            return  # it leaves when room is needed, like any other
        if self._is_kept(old):
            self._cache.spare(old)
        else:
            self._cache.drop(old, "replaced")

    def _is_kept(self, loaded: Loaded) -> bool:
        entry = self.catalog.models.get(loaded.key)
        return entry is not None and loaded.version in self._policies.of(loaded.key).kept(entry)

    def _has_alias(self, loaded: Loaded) -> bool:
        """Whether jobs may go on asking for this very version."""
        entry = self.catalog.models.get(loaded.key)
        means = (version for (key, _), version in self._aliased.items() if key == loaded.key)
        return loaded.version in means or (entry is not None and loaded.version in entry.aliases.values())

    def _drop(self, loaded: Loaded, why: Dropped) -> None:
        self._cache.drop(loaded, why)
        self._forget_current(loaded)

    def _forget_current(self, loaded: Loaded) -> None:
        if self._current.get(loaded.key) is loaded:
            del self._current[loaded.key]
