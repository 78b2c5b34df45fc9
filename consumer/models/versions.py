"""The loaded versions: which one answers, which stay beside it, and who leaves, as the store and the loads have it."""

from consumer.models.cache import Cache, Name, name_of
from consumer.models.events import Dropped, ModelEvents, VersionStatus
from consumer.models.loads import WITHDRAWN, Loads
from consumer.models.policy import Policies
from consumer.models.runtime import Loaded
from consumer.models.store import Catalog, Located
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
        # These two outlast an eviction, so that it does not change who answers.
        self._last: dict[str, int] = {}  # the version that has answered jobs that name none, while the policy means any
        self._aliased: dict[tuple[str, str], int] = {}  # the version that has answered an alias
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
        """The first that loads of those that may answer, of which there is one; None: it is loading.

        While a better one is loading, the one that has answered so far goes on, and is loaded again if need be.
        """
        best: Failure | None = None
        for version in self.candidates(key):
            loaded = self._cache.peek(key, version)
            if loaded is not None:
                self.serve(loaded)
                return loaded
            failure = self._loads.load(self.catalog.models[key].versions[version])
            if failure is None:
                return self._go_on(key)
            best = best or failure
        return best

    def _go_on(self, key: str) -> Loaded | None:
        """The version that has answered so far; None where there is none, or not yet again."""
        last = self._last.get(key)
        located = None if last is None else self.catalog.located(key, last)
        if located is None:
            return None
        loaded = self._cache.peek(key, located.version)
        if loaded is None:
            self._loads.load(located)
            return None
        self.serve(loaded)
        return loaded

    def candidates(self, key: str) -> list[int]:
        """The versions that may answer jobs that name none, the best first; last, the one that has answered so far."""
        entry = self.catalog.models.get(key)
        allowed = self._policies.of(key).candidates(entry) if entry else []
        last = self._last.get(key)
        return allowed if last is None or last in allowed else [*allowed, last]

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
        self._last[loaded.key] = loaded.version
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
        for key in known | stirred | self._last.keys():
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
        self.advance(key)
        self._keep(key)

    def advance(self, key: str) -> bool:
        """Let the best version that is loaded answer, and load what may be better, beside it; whether there is such."""
        current = self._current.get(key)
        if current is None:
            return False
        for version in self.candidates(key):
            if version == current.version:
                break
            loaded = self._cache.peek(key, version)
            if loaded is not None:
                self.serve(loaded)
                break
            if self._loads.load(self.catalog.models[key].versions[version]) is None:
                return True
        return False

    def _retire(self, key: str) -> None:
        """The version that answers goes on only while it is there and the policy means any."""
        entry, last = self.catalog.models.get(key), self._last.get(key)
        if last is None:
            return
        means_none = entry is not None and self._policies.of(key).names_none(entry)
        if entry is None or last not in entry.versions or means_none:
            del self._last[key]
        current = self._current.get(key)
        if current is not None and means_none:
            if self._has_alias(current):
                del self._current[key]
                self._cache.pinned.discard(name_of(current))
            else:
                self._drop(current, "withdrawn")

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
        better, spare = self.is_better(newcomer), self._is_spare(newcomer)
        old = self._current.get(newcomer.key) if better else None
        if refusal := self._cache.refusal(newcomer, old):
            self._loads.refuse(name, refusal)
            self.follow(newcomer.key)
            return True
        replaces = None if old is None or self._stays_beside(old, newcomer) else old
        evicted = self._cache.put(newcomer, replaces)
        if isinstance(evicted, str) and replaces is not old:
            replaces, evicted = old, self._cache.put(newcomer, old)  # nobody else can make room for it
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
        missing = newcomer.key in self.preloaded and newcomer.key not in self._current
        return not missing and not self.is_better(newcomer) and not self._loads.is_needed(name_of(newcomer))

    def is_better(self, newcomer: Loaded | Located) -> bool:
        """Whether the policy puts it before the one that answers, or it is that one with other files."""
        current = self._current.get(newcomer.key)
        if current is None:
            return False
        ranks = {version: rank for rank, version in enumerate(self.candidates(newcomer.key))}
        last = len(ranks)
        if newcomer.version == current.version:
            return True
        return ranks.get(newcomer.version, last) < ranks.get(current.version, last)

    def _stays_beside(self, old: Loaded, newcomer: Loaded) -> bool:
        """Whether the old one is to stay when the newcomer takes its place: jobs ask for it by alias, or the policy
        keeps it, and nobody else has to leave for that."""
        return self._has_alias(old) or (self._is_kept(old) and self._cache.has_room(newcomer, beside_spares=False))

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
