"""What the loop talks to: which model answers a job, now, later, or never.

One owner: every method but `refresh` is for the loop's thread. Looks at the store and loads happen on other threads and
come back through one queue, which `poll` empties; so there are no locks.
"""

from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue

from consumer.models.cache import Cache
from consumer.models.errors import PreloadError
from consumer.models.events import Dropped, ModelEvents, Snapshot
from consumer.models.failures import Failures
from consumer.models.loader import LoadDone, Loader
from consumer.models.loads import Loads
from consumer.models.opening import Opener
from consumer.models.policy import Policies
from consumer.models.runtime import Loaded
from consumer.models.store import Store
from consumer.models.versions import Versions
from consumer.models.waits import Waits
from consumer.models.watcher import Look, StoreWatcher
from schemas.reasons import Failure, Reason, Stage

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
        self._inbox: SimpleQueue[Look | LoadDone | BaseException] = SimpleQueue()
        self._loader = Loader(
            self._inbox.put,
            store,
            opener,
            attempts=load_attempts,
            backoff_s=load_backoff_s,
            backoff_max_s=load_backoff_max_s,
            events=events,
        )
        self._watcher = StoreWatcher(store, poll_s, self._inbox.put)
        self._waits = Waits(self._watcher.ask, clock, policies)
        self._loads = Loads(self._loader, Failures(load_backoff_max_s, clock), self._watcher.ask, events)
        self._cache = Cache(cache_models, cache_bytes, self._dropped, min_s=cache_min_s, clock=clock)
        self._versions = Versions(self._cache, self._loads, policies, events)
        self._problems: frozenset[str] = frozenset()
        self._remind_at = 0.0
        self._snapshot_at = 0.0

    def resolve(self, key: str, version: int | None, alias: str | None) -> Loaded | Failure | None:
        """The model that answers, why none will, or None: wait until `poll` names the key.

        Without version and alias: the best that is loaded of those the model's policy allows, in the end of those that
        load.
        """
        if alias is not None:
            return self._by_alias(key, alias)
        if version is not None:
            return self._by_version(key, version)
        loaded = self._versions.current(key)
        if loaded is not None:
            return loaded
        return self._versions.best(key) if self._versions.candidates(key) else self._waits.absent((key, None, None))

    def poll(self) -> frozenset[str]:
        """Take in finished looks and loads; never blocks. The keys whose jobs may now be answered otherwise."""
        changed: set[str] = set()
        self._versions.release_held()
        self._waits.forget_answered()
        while not self._inbox.empty():
            self._take(self._inbox.get_nowait(), changed)
        self._versions.admit(changed)
        now = self._clock()
        if now >= self._remind_at:
            self._remind_at = now + REMIND_S
            self._waits.expire(now, changed)
            for key in self._loads.remind(now, self._versions.catalog):
                self._versions.follow(key)
                changed.add(key)
        self._cache.sweep()
        self._loads.start(self._versions.is_better)
        if changed or now >= self._snapshot_at:
            self._snapshot_at = now + SNAPSHOT_S
            self._events.snapshot_taken(self.snapshot())
        return frozenset(changed)

    def refresh(self) -> None:
        """Look at the store soon, whatever the interval. From any thread, but not from a signal handler."""
        self._watcher.ask()

    def preload(self, names: Sequence[str], timeout_s: float) -> None:
        """Load these models and keep them for good. Blocks; to be called before the loop. PreloadError."""
        self._versions.preloaded |= set(names)
        deadline = self._clock() + timeout_s
        waiting = list(names)
        while True:
            waiting = [name for name in waiting if not self._preload_one(name)]
            if not waiting:
                self._events.snapshot_taken(self.snapshot())
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
        return Snapshot(
            models=self._versions.statuses(),
            failed=self._loads.failed(),
            loading=self._loads.loading(),
            waiting_for_room=tuple(sorted(self._loads.newcomers)),
            problems=tuple(sorted(self._problems)),
            missing=self._versions.missing(),
            cache_bytes=self._cache.nbytes,
        )

    def close(self, timeout_s: float) -> None:
        """End the threads, and close what nobody uses; a thread that is stuck is left behind after `timeout_s`."""
        for loaded in [*self._cache.models(), *self._loads.newcomers.values()]:
            if not loaded.in_use:
                self._loader.discard(loaded)
        self._watcher.close(timeout_s / 2)
        self._loader.close(timeout_s / 2)

    def _by_version(self, key: str, version: int) -> Loaded | Failure | None:
        loaded = self._cache.get(key, version)
        if loaded is not None:
            return loaded
        located = self._versions.catalog.located(key, version)
        return self._waits.absent((key, version, None)) if located is None else self._loads.load(located)

    def _by_alias(self, key: str, alias: str) -> Loaded | Failure | None:
        """The version that the alias means; while that one is not loaded, the one that it meant before."""
        catalog = self._versions.catalog
        entry = catalog.models.get(key)
        wanted = entry.aliases.get(alias) if entry else None
        if wanted is None:
            return self._waits.absent((key, None, alias))
        loaded = self._cache.get(key, wanted)
        if loaded is not None:
            self._versions.mean(key, alias, wanted)
            return loaded
        located = catalog.located(key, wanted)
        failure = self._loads.load(located) if located is not None else None
        before = self._versions.meant(key, alias)
        if before is not None and before != wanted and catalog.located(key, before) is not None:
            old = self._by_version(key, before)  # it may have had to make room meanwhile
            if not isinstance(old, Failure):
                return old
        return self._waits.absent((key, None, alias)) if located is None else failure

    def _preload_one(self, name: str) -> bool:
        found = self.resolve(name, None, None)
        if isinstance(found, Failure):
            raise PreloadError(name, found)
        if found is None:
            return False
        self._versions.serve(found)
        return not self._versions.advance(name)

    def _take(self, item: Look | LoadDone | BaseException, changed: set[str]) -> None:
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, Look):
            self._take_look(item, changed)
        elif self._loads.take(item, self._versions.catalog, self._clock()):
            changed.add(item.located.key)
            if item.loaded is None:
                self._versions.follow(item.located.key)

    def _take_look(self, look: Look, changed: set[str]) -> None:
        self._events.store_looked(look.catalog.models.keys())
        problems = frozenset(look.catalog.problems)
        for text in sorted(problems - self._problems):
            self._events.store_problem(text)
        self._problems = problems
        given_up, seen_again = self._loads.follow(look.catalog, look.number)
        changed |= given_up
        self._versions.take_look(look.catalog, seen_again, changed)
        self._waits.looked(look.number, look.catalog, changed)

    def _dropped(self, loaded: Loaded, why: Dropped) -> None:
        self._events.model_dropped(loaded, why)
        self._loader.discard(loaded)
