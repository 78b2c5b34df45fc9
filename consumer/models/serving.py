"""What the loop talks to: which model answers a job, now, later, or never.

One owner: every method is for the loop's thread. Looks at the store and loads happen on other threads and come back
through one queue, which `poll` empties; so there are no locks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue

from consumer.models.cache import Cache, Name
from consumer.models.errors import PreloadError
from consumer.models.events import ModelEvents
from consumer.models.formats import OpenOptions
from consumer.models.loader import LoadDone, Loader
from consumer.models.runtime import Format, Loaded
from consumer.models.store import Catalog, Fingerprint, Located
from consumer.models.watcher import Look, StoreWatcher
from schemas.reasons import Failure, Reason, Stage

LOOK_TIMEOUT_S = 30.0
"""A store that has not answered for this long is unavailable to the jobs that wait for it."""
PROBE_MAX_S = 3600.0
"""The longest time between two probes of a version that cannot be loaded."""
STALE_LIMIT = 5
"""Loads in a row that find other files than the look before; then the version is unavailable for a while."""
REMIND_S = 0.25
"""How often deadlines and probes are looked after."""

_What = tuple[str, int | None, str | None]
"""What a job asks for: model, version, alias."""


@dataclass(slots=True)
class _Wait:
    """Jobs waiting for a look at the store; `failure` is there once the look is."""

    ticket: int
    deadline: float
    asked: int = 0
    patient: bool = True
    failure: Failure | None = None


@dataclass(slots=True)
class _Remembered:
    """A version that could not be loaded."""

    failure: Failure
    fingerprint: Fingerprint
    permanent: bool
    retry_at: float
    times: int


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One loaded version, for people. `current`: it answers jobs that name no version."""

    key: str
    version: int
    format: Format
    nbytes: int
    in_use: int
    current: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is loaded, what could not be, and what is wrong with the store."""

    models: tuple[ModelStatus, ...]
    failures: Mapping[Name, Failure]
    problems: tuple[str, ...]


class Serving:
    """Models by name and version. Its threads start at once; `close` ends them."""

    def __init__(
        self,
        store: Path,
        *,
        poll_s: float,
        cache_models: int,
        cache_bytes: int,
        load_attempts: int,
        load_backoff_s: float,
        load_backoff_max_s: float,
        trusted_h5: frozenset[str],
        events: ModelEvents,
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._clock = clock
        self._remember_s = load_backoff_max_s
        self._inbox: SimpleQueue[Look | LoadDone | BaseException] = SimpleQueue()
        self._cache = Cache(cache_models, cache_bytes, events.model_dropped)
        self._loader = Loader(
            self._inbox.put,
            OpenOptions(trusted_h5, cache_bytes),
            attempts=load_attempts,
            backoff_s=load_backoff_s,
            backoff_max_s=load_backoff_max_s,
            events=events,
        )
        self._catalog = Catalog({})
        self._problems: frozenset[str] = frozenset()
        self._current: dict[str, Loaded] = {}
        self._preloaded: frozenset[str] = frozenset()
        self._failures: dict[Name, _Remembered] = {}
        self._waits: dict[_What, _Wait] = {}
        self._stale: dict[Name, tuple[int, int]] = {}  # how often in a row, and the look that will tell more
        self._queue: dict[Name, Located] = {}  # to be loaded, in order
        self._newcomers: list[Loaded] = []  # loaded, not in the cache yet
        self._held: list[Loaded] = []  # came into the cache with the last poll
        self._remind_at = 0.0
        self._watcher = StoreWatcher(store, poll_s, self._inbox.put)

    def resolve(self, key: str, version: int | None, alias: str | None) -> Loaded | Failure | None:
        """The model that answers, why none will, or None: wait until `poll` names the key.

        Without version and alias: the highest version that loads.
        """
        if alias is None and version is None:
            loaded = self._current.get(key)
            if loaded is None:
                return self._newest(key)
            self._cache.touch(loaded)
            return loaded
        wanted = version
        if alias is not None:
            entry = self._catalog.models.get(key)
            wanted = entry.aliases.get(alias) if entry else None
        if wanted is None:
            return self._absent((key, version, alias))
        loaded = self._cache.get(key, wanted)
        if loaded is not None:
            return loaded
        located = self._located(key, wanted)
        return self._absent((key, version, alias)) if located is None else self._load(located)

    def poll(self) -> frozenset[str]:
        """Take in finished looks and loads; never blocks. The keys whose jobs may now be answered otherwise."""
        changed: set[str] = set()
        if self._held:
            for loaded in self._held:
                loaded.release()
            self._held.clear()
        if self._waits:
            self._waits = {what: wait for what, wait in self._waits.items() if wait.failure is None}
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
        return frozenset(changed)

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
        return Snapshot(
            models=tuple(
                ModelStatus(
                    key=loaded.key,
                    version=loaded.version,
                    format=loaded.format,
                    nbytes=loaded.nbytes,
                    in_use=loaded.in_use,
                    current=self._current.get(loaded.key) is loaded,
                    pinned=(loaded.key, loaded.version) in self._cache.pinned,
                )
                for loaded in sorted(self._cache.models(), key=lambda loaded: (loaded.key, loaded.version))
            ),
            failures={name: remembered.failure for name, remembered in sorted(self._failures.items())},
            problems=tuple(sorted(self._problems)),
        )

    def close(self, timeout_s: float) -> None:
        """End the threads; one that is stuck in a disk or in TensorFlow is left behind after `timeout_s`."""
        self._watcher.close(timeout_s / 2)
        self._loader.close(timeout_s / 2)

    # what is asked for ---------------------------------------------------------------------------------------------

    def _newest(self, key: str) -> Loaded | Failure | None:
        entry = self._catalog.models.get(key)
        if entry is None or not entry.versions:
            return self._absent((key, None, None))
        newest: Failure | None = None
        for version in entry.newest_first:
            loaded = self._cache.get(key, version)
            if loaded is not None:
                self._serve(loaded)
                return loaded
            failure = self._load(entry.versions[version])
            if failure is None:
                return None
            newest = newest or failure
        return newest

    def _load(self, located: Located) -> Failure | None:
        remembered = self._failures.get((located.key, located.version))
        if (
            remembered is not None
            and remembered.fingerprint == located.fingerprint
            and (remembered.permanent or self._clock() < remembered.retry_at)
        ):
            return remembered.failure
        self._want(located)
        return None

    def _want(self, located: Located) -> None:
        name = (located.key, located.version)
        waits_for_look = name in self._stale and self._stale[name][1] > 0
        if not waits_for_look and not self._loader.busy(*name) and not self._is_newcomer(name):
            self._queue[name] = located

    def _start(self) -> None:
        # While a loaded model waits for room, loading more would only take memory.
        while self._queue and self._loader.has_room and not self._newcomers:
            name = next(iter(self._queue))
            self._loader.submit(self._queue.pop(name))

    def _is_newcomer(self, name: Name) -> bool:
        return any((loaded.key, loaded.version) == name for loaded in self._newcomers)

    def _located(self, key: str, version: int) -> Located | None:
        entry = self._catalog.models.get(key)
        return entry.versions.get(version) if entry else None

    def _absent(self, what: _What) -> Failure | None:
        """Not in the store, as far as is known: only a look that begins after the question can tell."""
        wait = self._waits.get(what)
        if wait is not None and wait.failure is not None:
            # The jobs that were parked for this look come back one by one; who comes later needs a look of his own.
            wait.asked -= 1
            if wait.asked <= 0:
                del self._waits[what]
            return wait.failure
        ticket = self._watcher.ask()
        if wait is None:
            wait = self._waits[what] = _Wait(ticket, self._clock() + LOOK_TIMEOUT_S)
        if ticket == wait.ticket:
            wait.asked += 1
        return None

    def _absence(self, what: _What) -> Failure:
        key, version, alias = what
        entry = self._catalog.models.get(key)
        if self._catalog.problem or (entry and entry.unreadable):
            return Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, f"the store cannot be read where model '{key}' is")
        if entry is None:
            return Failure(Reason.UNKNOWN_MODEL, Stage.ROUTE, f"the store has no model '{key}'")
        if alias is not None and alias not in entry.aliases:
            text = f"model '{key}' has no alias '{alias}'"
        elif alias is not None:
            text = f"alias '{alias}' of model '{key}' is version {entry.aliases[alias]}, which the store does not have"
        elif version is not None:
            text = f"model '{key}' has no version {version}"
        else:
            text = f"model '{key}' has no version"
        return Failure(Reason.UNKNOWN_VERSION, Stage.ROUTE, text)

    def _present(self, what: _What) -> bool:
        key, version, alias = what
        entry = self._catalog.models.get(key)
        if entry is None:
            return False
        wanted = entry.aliases.get(alias) if alias is not None else version
        return (alias is None and version is None and bool(entry.versions)) or wanted in entry.versions

    def _settling(self, what: _What) -> bool:
        key, version, alias = what
        entry = self._catalog.models.get(key)
        if entry is None:
            return False
        wanted = entry.aliases.get(alias) if alias is not None else version
        return bool(entry.settling) if wanted is None else wanted in entry.settling

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
        problems = frozenset(look.catalog.problems)
        for text in sorted(problems - self._problems):
            self._events.store_problem(text)
        self._problems = problems
        stirred = self._freshen(look.number)
        known = {key for key, _ in self._failures} | {loaded.key for loaded in self._cache.models()}
        for key in known | stirred | self._current.keys():
            if key in stirred or before.models.get(key) is not look.catalog.models.get(key):
                self._follow(key)
                changed.add(key)
        for what, wait in list(self._waits.items()):
            if self._present(what):
                del self._waits[what]
                changed.add(what[0])
            elif wait.failure is None and wait.ticket <= look.number:
                if wait.patient and self._settling(what):
                    wait.patient = False  # two equal looks settle a version; this was the first
                    wait.ticket = self._watcher.ask()
                else:
                    wait.failure = self._absence(what)
                    changed.add(what[0])

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
        for name in [name for name in self._failures if name[0] == key]:
            located = self._located(*name)
            if located is None or located.fingerprint != self._failures[name].fingerprint:
                del self._failures[name]
        was_served = key in self._current
        for loaded in [loaded for loaded in self._cache.models() if loaded.key == key]:
            located = self._located(key, loaded.version)
            if located is None:
                self._drop(loaded, "withdrawn")
            elif located.fingerprint != loaded.fingerprint:
                self._load(located)
        if was_served and key not in self._current:
            self._newest(key)
        self._advance(key)

    def _advance(self, key: str) -> None:
        """Load the highest version that may be better than the one being served, beside it."""
        current = self._current.get(key)
        entry = self._catalog.models.get(key)
        if current is None or entry is None:
            return
        for version in entry.newest_first:
            if version <= current.version or self._load(entry.versions[version]) is None:
                return

    def _take_load(self, done: LoadDone, changed: set[str]) -> None:
        self._loader.took(done)
        name = (done.located.key, done.located.version)
        if done.loaded is None and done.failure is None:
            times = self._stale.get(name, (0, 0))[0] + 1
            if times < STALE_LIMIT:
                self._stale[name] = (times, self._watcher.ask())
                if name in self._failures:  # this was its probe, and has told nothing
                    self._failures[name].retry_at = self._clock() + self._remember_s
                return
            text = f"the files of version {name[1]} keep changing"
            done = LoadDone(
                done.located,
                None,
                Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, text, done.attempts),
                permanent=False,
                attempts=done.attempts,
            )
        self._stale.pop(name, None)
        changed.add(name[0])
        if done.failure is not None:
            self._fail(name, done.failure, done.located.fingerprint, permanent=done.permanent)
        elif done.loaded is not None:
            self._newcomers.append(done.loaded)

    def _fail(self, name: Name, failure: Failure, fingerprint: Fingerprint, *, permanent: bool) -> None:
        before = self._failures.get(name)
        times = before.times + 1 if before is not None and before.fingerprint == fingerprint else 1
        wait_s = min(self._remember_s * 2 ** min(times - 1, 30), PROBE_MAX_S) if permanent else self._remember_s
        self._failures[name] = _Remembered(failure, fingerprint, permanent, self._clock() + wait_s, times)
        self._events.load_failed(*name, failure)
        self._follow(name[0])

    def _admit(self, changed: set[str]) -> None:
        waiting, self._newcomers = self._newcomers, []
        for loaded in waiting:
            name = (loaded.key, loaded.version)
            if self._located(*name) is None:
                changed.add(loaded.key)
                continue  # withdrawn meanwhile
            current = self._current.get(loaded.key)
            better = current is not None and current.version <= loaded.version
            replaces = current if better and current is not None and not self._has_alias(current) else None
            if refusal := self._cache.refusal(loaded, replaces):
                failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, refusal, 1)
                self._fail(name, failure, loaded.fingerprint, permanent=True)
                changed.add(loaded.key)
                continue
            evicted = self._cache.put(loaded, replaces)
            if evicted is None:
                self._newcomers.append(loaded)
                continue
            changed.add(loaded.key)
            for gone in evicted:
                self._forget_current(gone)
            self._failures.pop(name, None)
            loaded.retain()  # until the next poll, so that the jobs that wait for it find it
            self._held.append(loaded)
            self._events.model_loaded(loaded)
            if better:
                self._serve(loaded)
            elif current is None and loaded.key in self._preloaded:
                self._newest(loaded.key)
            self._follow(loaded.key)

    def _serve(self, loaded: Loaded) -> None:
        """From now on, jobs that name no version are answered by this one."""
        old = self._current.get(loaded.key)
        self._current[loaded.key] = loaded
        if old is not None and old is not loaded:
            if self._has_alias(old):
                self._cache.pinned.discard((old.key, old.version))
            else:
                self._cache.drop(old, "replaced")
        if loaded.key in self._preloaded:
            self._cache.pinned.add((loaded.key, loaded.version))

    def _has_alias(self, loaded: Loaded) -> bool:
        """Whether jobs may go on asking for this very version: then it leaves when room is needed, like any other."""
        entry = self._catalog.models.get(loaded.key)
        return entry is not None and loaded.version in entry.aliases.values()

    def _drop(self, loaded: Loaded, why: str) -> None:
        self._cache.drop(loaded, why)
        self._forget_current(loaded)

    def _forget_current(self, loaded: Loaded) -> None:
        if self._current.get(loaded.key) is loaded:
            del self._current[loaded.key]

    def _remind(self, now: float, changed: set[str]) -> None:
        for what, wait in self._waits.items():
            if wait.failure is None and now >= wait.deadline:
                text = f"the model store has not answered for {LOOK_TIMEOUT_S:g} s"
                wait.failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, text)
                changed.add(what[0])
        for name, remembered in list(self._failures.items()):
            if now < remembered.retry_at:
                continue
            located = self._located(*name)
            if remembered.permanent and located is not None:
                remembered.retry_at = inf  # until the probe has an answer
                self._want(located)
            elif not remembered.permanent:
                self._failures.pop(name, None)
                self._follow(name[0])

    def _preload_one(self, name: str) -> bool:
        found = self.resolve(name, None, None)
        if isinstance(found, Failure):
            raise PreloadError(name, found)
        if found is not None:
            self._serve(found)
        return found is not None
