"""What the loop talks to: which model answers a job, now, later, or never.

One owner: every method but `refresh` is for the loop's thread. Looks at the store and loads happen on other threads and
come back through one queue, which `poll` empties; so there are no locks.
"""

from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue

from consumer.models.cache import Cache, Name
from consumer.models.errors import PreloadError
from consumer.models.events import Dropped, ModelEvents, Snapshot, VersionStatus
from consumer.models.failures import Failures
from consumer.models.loader import LoadDone, Loader
from consumer.models.opening import Opener
from consumer.models.policy import Policies
from consumer.models.runtime import Loaded
from consumer.models.store import Catalog, Fingerprint, Located, Store
from consumer.models.waits import Waits
from consumer.models.watcher import Look, StoreWatcher
from schemas.reasons import Failure, Reason, Stage

STALE_LIMIT = 5
"""Loads in a row that find other files than the look before; then the version is unavailable for a while."""
REMIND_S = 0.25
"""How often deadlines and probes are looked after."""
SNAPSHOT_S = 1.0


class Serving:
    """Models by name and version. Its threads start at once; `close` ends them."""

    def __init__(
        self,
        store: Store,
        opener: Opener,
        *,
        policies: Policies,
        poll_s: float,
        cache_models: int,
        cache_bytes: int,
        cache_min_s: float,
        load_attempts: int,
        load_backoff_s: float,
        load_backoff_max_s: float,
        events: ModelEvents,
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._clock = clock
        self._policies = policies
        self._inbox: SimpleQueue[Look | LoadDone | BaseException] = SimpleQueue()
        self._cache = Cache(cache_models, cache_bytes, self._dropped, min_s=cache_min_s, clock=clock)
        self._loader = Loader(
            self._inbox.put,
            store,
            opener,
            attempts=load_attempts,
            backoff_s=load_backoff_s,
            backoff_max_s=load_backoff_max_s,
            events=events,
        )
        self._failures = Failures(load_backoff_max_s, clock)
        self._catalog = Catalog({})
        self._problems: frozenset[str] = frozenset()
        self._preloaded: frozenset[str] = frozenset()
        self._current: dict[str, Loaded] = {}  # who answers jobs that name no version
        self._aliased: dict[tuple[str, str], int] = {}  # the loaded version that answers an alias
        self._kept: dict[str, frozenset[int]] = {}  # what the policy keeps loaded, of models that are in use
        self._stale: dict[Name, tuple[int, int]] = {}  # how often in a row, and the look that will tell more
        self._queue: dict[Name, Located] = {}  # to be loaded, in order
        self._newcomers: dict[Name, Loaded] = {}  # loaded, not in the cache yet
        self._waits_for_room: set[Name] = set()
        self._evicted: set[Name] = set()  # until they are asked for again, or gone
        self._held: list[Loaded] = []  # came into the cache with the last poll
        self._remind_at = 0.0
        self._snapshot_at = 0.0
        self._watcher = StoreWatcher(store, poll_s, self._inbox.put)
        self._waits = Waits(self._watcher.ask, clock, policies)

    def resolve(self, key: str, version: int | None, alias: str | None) -> Loaded | Failure | None:
        """The model that answers, why none will, or None: wait until `poll` names the key.

        Without version and alias: the first that loads of those the model's policy allows.
        """
        if alias is not None:
            return self._by_alias(key, alias)
        if version is not None:
            return self._by_version(key, version)
        loaded = self._current.get(key)
        if loaded is None:
            return self._best(key)
        self._cache.touch(loaded)
        return loaded

    def poll(self) -> frozenset[str]:
        """Take in finished looks and loads; never blocks. The keys whose jobs may now be answered otherwise."""
        changed: set[str] = set()
        if self._held:
            for loaded in self._held:
                loaded.release()
            self._held.clear()
        self._waits.forget_answered()
        while not self._inbox.empty():
            self._take(self._inbox.get_nowait(), changed)
        if self._newcomers:
            self._admit(changed)
        now = self._clock()
        if now >= self._remind_at:
            self._remind_at = now + REMIND_S
            self._remind(now, changed)
        self._cache.sweep()
        self._start()
        if changed or now >= self._snapshot_at:
            self._snapshot_at = now + SNAPSHOT_S
            self._events.snapshot_taken(self.snapshot())
        return frozenset(changed)

    def refresh(self) -> None:
        """Look at the store soon, whatever the interval. From any thread, but not from a signal handler."""
        self._watcher.ask()

    def preload(self, names: Sequence[str], timeout_s: float) -> None:
        """Load these models and keep them for good. Blocks; to be called before the loop. PreloadError."""
        self._preloaded |= set(names)
        deadline = self._clock() + timeout_s
        waiting = list(names)
        while True:
            waiting = [name for name in waiting if not self._preload_one(name)]
            if not waiting:
                return
            left = deadline - self._clock()
            if left <= 0:
                message = f"model '{waiting[0]}' was not loaded within {timeout_s:g} s"
                raise PreloadError(waiting[0], Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, message))
            try:
                item = self._inbox.get(timeout=min(left, 1.0))
            except Empty:
                pass
            else:
                self._inbox.put(item)  # its turn comes in poll; order among the items does not matter
            self.poll()

    def served(self) -> Mapping[str, tuple[int, ...]]:
        """The loaded versions of each model, ascending."""
        served: dict[str, list[int]] = {}
        for loaded in self._cache.models():
            served.setdefault(loaded.key, []).append(loaded.version)
        return {key: tuple(sorted(versions)) for key, versions in sorted(served.items())}

    def snapshot(self) -> Snapshot:
        """A frozen view that any thread may read."""
        aliases: dict[Name, list[str]] = {}
        for (key, alias), version in sorted(self._aliased.items()):
            aliases.setdefault((key, version), []).append(alias)
        return Snapshot(
            models=tuple(
                VersionStatus(
                    key=loaded.key,
                    version=loaded.version,
                    path_in_store=loaded.path_in_store,
                    format=loaded.format,
                    nbytes=loaded.nbytes,
                    in_use=loaded.in_use,
                    current=self._current.get(loaded.key) is loaded,
                    pinned=(loaded.key, loaded.version) in self._cache.pinned,
                    aliases=tuple(aliases.get((loaded.key, loaded.version), ())),
                )
                for loaded in sorted(self._cache.models(), key=_name)
            ),
            failed=self._failures.status(),
            loading=tuple(sorted({*self._queue, *(_name(located) for located in self._loader.in_hand())})),
            waiting_for_room=tuple(sorted(self._newcomers)),
            problems=tuple(sorted(self._problems)),
            cache_bytes=self._cache.nbytes,
        )

    def close(self, timeout_s: float) -> None:
        """End the threads, and close what nobody uses; a thread that is stuck is left behind after `timeout_s`."""
        for loaded in [*self._cache.models(), *self._newcomers.values()]:
            if not loaded.in_use:
                self._loader.discard(loaded)
        self._watcher.close(timeout_s / 2)
        self._loader.close(timeout_s / 2)

    # what is asked for ---------------------------------------------------------------------------------------------

    def _by_version(self, key: str, version: int) -> Loaded | Failure | None:
        loaded = self._cache.get(key, version)
        if loaded is not None:
            return loaded
        located = self._located(key, version)
        return self._waits.absent((key, version, None)) if located is None else self._load(located)

    def _by_alias(self, key: str, alias: str) -> Loaded | Failure | None:
        """The version that the alias means; while that one is not loaded, the one that it meant before."""
        entry = self._catalog.models.get(key)
        wanted = entry.aliases.get(alias) if entry else None
        if wanted is None:
            return self._waits.absent((key, None, alias))
        before = self._aliased.get((key, alias))
        loaded = self._cache.get(key, wanted)
        if loaded is not None:
            if before != wanted:
                self._mean(key, alias, wanted)
            return loaded
        located = self._located(key, wanted)
        failure = self._load(located) if located is not None else None
        if before is not None and before != wanted:
            old = self._cache.get(key, before)
            if old is not None:
                return old
            if failure is not None and self._located(key, before) is not None:
                return self._by_version(key, before)  # it had to make room meanwhile
        return self._waits.absent((key, None, alias)) if located is None else failure

    def _best(self, key: str) -> Loaded | Failure | None:
        versions = self._candidates(key)
        if not versions:
            return self._waits.absent((key, None, None))
        best: Failure | None = None
        for version in versions:
            loaded = self._cache.get(key, version)
            if loaded is not None:
                self._serve(loaded)
                return loaded
            failure = self._load(self._catalog.models[key].versions[version])
            if failure is None:
                return None
            best = best or failure
        return best

    def _load(self, located: Located) -> Failure | None:
        failure = self._failures.of(located)
        if failure is None:
            self._want(located)
        return failure

    def _want(self, located: Located) -> None:
        name = _name(located)
        waits_for_look = name in self._stale and self._stale[name][1] > 0
        if not waits_for_look and not self._loader.busy(*name) and name not in self._newcomers:
            self._queue[name] = located

    def _start(self) -> None:
        # While a loaded model waits for room, loading more would only take memory.
        while self._queue and self._loader.has_room and not self._newcomers:
            name = next(iter(self._queue))
            self._loader.submit(self._queue.pop(name))

    def _located(self, key: str, version: int) -> Located | None:
        entry = self._catalog.models.get(key)
        return entry.versions.get(version) if entry else None

    def _candidates(self, key: str) -> list[int]:
        entry = self._catalog.models.get(key)
        return self._policies.of(key).candidates(entry) if entry else []

    # what comes back -----------------------------------------------------------------------------------------------

    def _take(self, item: Look | LoadDone | BaseException, changed: set[str]) -> None:
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, Look):
            self._take_look(item, changed)
        else:
            self._take_load(item, changed)

    def _take_look(self, look: Look, changed: set[str]) -> None:
        before, self._catalog = self._catalog, look.catalog
        self._events.store_looked(look.catalog.models.keys())
        problems = frozenset(look.catalog.problems)
        for text in sorted(problems - self._problems):
            self._events.store_problem(text)
        self._problems = problems
        self._withdraw_loads(changed)
        self._evicted = {name for name in self._evicted if self._located(*name) is not None}
        stirred = self._freshen(look.number)
        known = {key for key, _ in self._failures.names()} | {loaded.key for loaded in self._cache.models()}
        known |= {key for key, _ in self._aliased} | self._preloaded
        for key in known | stirred | self._current.keys():
            if key in stirred or before.models.get(key) is not look.catalog.models.get(key):
                self._follow(key)
                changed.add(key)
        self._waits.looked(look.number, look.catalog, changed)

    def _withdraw_loads(self, changed: set[str]) -> None:
        """Nobody needs what the store has no more, or has with other files."""
        for located in self._loader.in_hand():
            now = self._located(*_name(located))
            if now is None or now.fingerprint != located.fingerprint:
                self._loader.cancel(_name(located))
        for name in list(self._queue):
            if (now := self._located(*name)) is None:
                del self._queue[name]
                changed.add(name[0])  # its jobs wait for a load that will not come
            else:
                self._queue[name] = now

    def _freshen(self, looked: int) -> set[str]:
        """The names of which a load has found other files than the look before, and which this look has seen again."""
        stirred = set()
        for name, (times, ticket) in list(self._stale.items()):
            if 0 < ticket <= looked:
                stirred.add(name[0])
                if self._located(*name) is None:
                    del self._stale[name]
                else:
                    self._stale[name] = (times, 0)
        return stirred

    def _follow(self, key: str) -> None:
        """Bring what is loaded, being loaded and remembered under this name in line with the store."""
        for name in self._failures.names():
            if name[0] == key:
                self._failures.follow(name, self._located(*name))
        was_served = key in self._current
        for loaded in [loaded for loaded in self._cache.models() if loaded.key == key]:
            located = self._located(key, loaded.version)
            if located is None:
                self._drop(loaded, "withdrawn")
            elif located.fingerprint != loaded.fingerprint:
                self._load(located)
        if (was_served or key in self._preloaded) and key not in self._current and self._candidates(key):
            self._best(key)
        self._advance(key)
        self._follow_aliases(key)
        self._keep(key)

    def _advance(self, key: str) -> None:
        """Let the best version that is loaded answer, and load what may be better, beside it."""
        current = self._current.get(key)
        if current is None:
            return
        for version in self._candidates(key):
            if version == current.version:
                return
            loaded = self._cache.get(key, version)
            if loaded is not None:
                self._serve(loaded)
                return
            if self._load(self._catalog.models[key].versions[version]) is None:
                return

    def _follow_aliases(self, key: str) -> None:
        """Aliases that jobs have used: move those whose new version is loaded, load what the others will mean."""
        entry = self._catalog.models.get(key)
        for alias, before in [(alias, version) for (at, alias), version in self._aliased.items() if at == key]:
            wanted = entry.aliases.get(alias) if entry else None
            if wanted is None:
                del self._aliased[key, alias]
                self._events.alias_served(key, alias, None)
            elif wanted != before and self._cache.peek(key, wanted) is not None:
                self._mean(key, alias, wanted)
            elif wanted != before and (located := self._located(key, wanted)) is not None:
                self._load(located)

    def _mean(self, key: str, alias: str, version: int) -> None:
        self._aliased[key, alias] = version
        self._events.alias_served(key, alias, version)

    def _keep(self, key: str) -> None:
        """Load what the policy wants beside the version that answers, and drop what it does not any more."""
        entry = self._catalog.models.get(key)
        current = self._current.get(key)
        if entry is None or current is None:
            self._kept.pop(key, None)
            return
        before, kept = self._kept.get(key, frozenset()), frozenset(self._policies.of(key).kept(entry))
        self._kept[key] = kept
        for version in sorted(kept, reverse=True):
            # What had to make room for others is not fetched back: it would only take the room of the next.
            if self._cache.peek(key, version) is None and (key, version) not in self._evicted:
                self._load(entry.versions[version])
        for version in before - kept:
            loaded = self._cache.peek(key, version)
            if loaded is not None and loaded is not current and not self._has_alias(loaded):
                self._drop(loaded, "replaced")

    def _take_load(self, done: LoadDone, changed: set[str]) -> None:
        self._loader.took(done)
        name = _name(done.located)
        if done.loaded is None and done.failure is None:
            times = self._stale.get(name, (0, 0))[0] + 1
            if times < STALE_LIMIT:
                self._stale[name] = (times, self._watcher.ask())
                self._failures.untold(name)
                return
            text = f"the files of version {name[1]} keep changing"
            failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, text, done.attempts)
            done = LoadDone(done.located, None, failure, permanent=False, attempts=done.attempts)
        self._stale.pop(name, None)
        changed.add(name[0])
        if done.failure is not None:
            self._fail(name, done.failure, done.located.fingerprint, permanent=done.permanent)
        elif done.loaded is not None:
            self._newcomers[name] = done.loaded

    def _fail(self, name: Name, failure: Failure, fingerprint: Fingerprint, *, permanent: bool) -> None:
        self._failures.add(name, failure, fingerprint, permanent=permanent)
        self._events.load_failed(*name, failure)
        self._follow(name[0])

    def _admit(self, changed: set[str]) -> None:
        waiting, self._newcomers = self._newcomers, {}
        for name, loaded in waiting.items():
            if self._located(*name) is None:  # withdrawn meanwhile
                changed.add(loaded.key)
                self._waits_for_room.discard(name)
                self._loader.discard(loaded)
                continue
            current = self._current.get(loaded.key)
            better = current is not None and self._is_better(loaded, current)
            replaces = current if better and current is not None and not self._stays(current) else None
            if refusal := self._cache.refusal(loaded, replaces):
                failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, refusal, 1)
                self._loader.discard(loaded)
                self._fail(name, failure, loaded.fingerprint, permanent=True)
                changed.add(loaded.key)
                continue
            evicted = self._cache.put(loaded, replaces)
            if isinstance(evicted, str):
                self._newcomers[name] = loaded
                if name not in self._waits_for_room:
                    self._waits_for_room.add(name)
                    self._events.waiting_for_room(*name, evicted)
                continue
            changed.add(loaded.key)
            self._welcome(loaded, evicted, serve=better)

    def _welcome(self, loaded: Loaded, evicted: Sequence[Loaded], *, serve: bool) -> None:
        name = _name(loaded)
        self._waits_for_room.discard(name)
        self._evicted.discard(name)
        for gone in evicted:
            self._evicted.add(_name(gone))
            self._forget_current(gone)
        self._failures.forget(name)
        loaded.retain()  # until the next poll, so that the jobs that wait for it find it
        self._held.append(loaded)
        self._events.model_loaded(loaded)
        if serve:
            self._serve(loaded)
        elif loaded.key in self._preloaded and loaded.key not in self._current:
            self._best(loaded.key)
        self._follow(loaded.key)

    def _is_better(self, newcomer: Loaded, current: Loaded) -> bool:
        """Whether the policy puts it before the one that answers, or it is that one with other files."""
        ranks = {version: rank for rank, version in enumerate(self._candidates(newcomer.key))}
        last = len(ranks)
        if newcomer.version == current.version:
            return True
        return ranks.get(newcomer.version, last) < ranks.get(current.version, last)

    def _serve(self, loaded: Loaded) -> None:
        """From now on, jobs that name no version are answered by this one."""
        old = self._current.get(loaded.key)
        self._current[loaded.key] = loaded
        if old is not loaded:
            self._events.version_served(loaded, old.version if old else None)
        if old is not None and old is not loaded:
            if self._stays(old):
                self._cache.pinned.discard((old.key, old.version))
            else:
                self._cache.drop(old, "replaced")
        if loaded.key in self._preloaded:
            self._cache.pinned.add((loaded.key, loaded.version))
        self._keep(loaded.key)

    def _stays(self, loaded: Loaded) -> bool:
        """Whether a version that another takes the place of is to stay loaded."""
        entry = self._catalog.models.get(loaded.key)
        kept = entry is not None and loaded.version in self._policies.of(loaded.key).kept(entry)
        return self._has_alias(loaded) or (kept and self._cache.peek(loaded.key, loaded.version) is loaded)

    def _has_alias(self, loaded: Loaded) -> bool:
        """Whether jobs may go on asking for this very version: then it leaves when room is needed, like any other."""
        entry = self._catalog.models.get(loaded.key)
        means = (version for (key, _), version in self._aliased.items() if key == loaded.key)
        return loaded.version in means or (entry is not None and loaded.version in entry.aliases.values())

    def _drop(self, loaded: Loaded, why: Dropped) -> None:
        self._cache.drop(loaded, why)
        self._forget_current(loaded)

    def _dropped(self, loaded: Loaded, why: Dropped) -> None:
        self._events.model_dropped(loaded, why)
        self._loader.discard(loaded)

    def _forget_current(self, loaded: Loaded) -> None:
        if self._current.get(loaded.key) is loaded:
            del self._current[loaded.key]

    def _remind(self, now: float, changed: set[str]) -> None:
        self._waits.expire(now, changed)
        for name, probe in self._failures.due(now):
            located = self._located(*name)
            if not probe:
                self._follow(name[0])
            elif located is not None:
                self._want(located)
                if name not in self._queue and not self._loader.busy(*name):
                    self._failures.untold(name)

    def _preload_one(self, name: str) -> bool:
        found = self.resolve(name, None, None)
        if isinstance(found, Failure):
            raise PreloadError(name, found)
        if found is not None:
            self._serve(found)
        return found is not None


def _name(version: Loaded | Located) -> Name:
    return version.key, version.version
