"""Models are opened here, on threads of their own: at most once at a time a version, again where a failure may pass."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential_jitter,
)

from consumer.models import engine
from consumer.models.cache import Name
from consumer.models.errors import LoadError, PassingLoadError, StaleError, failure_of
from consumer.models.events import ModelEvents
from consumer.models.opening import Opener
from consumer.models.runtime import Loaded
from consumer.models.store import Located, Store
from schemas.reasons import Failure

THREADS = 8
"""Versions in hand at once; most of them wait for their next try."""


@dataclass(frozen=True, slots=True)
class LoadDone:
    """How loading ended. Neither `loaded` nor `failure`: cancelled, or the store has changed since; look again."""

    located: Located
    loaded: Loaded | None
    failure: Failure | None
    permanent: bool
    attempts: int


class Loader:
    """All methods are for the owner's thread; `done` gets results, or what has ended a thread, on a loader's thread."""

    def __init__(
        self,
        done: Callable[["LoadDone | BaseException"], None],
        store: Store,
        opener: Opener,
        *,
        attempts: int,
        backoff_s: float,
        backoff_max_s: float,
        events: ModelEvents,
    ) -> None:
        self._done = done
        self._store = store
        self._opener = opener
        self._attempts = attempts
        self._wait = wait_exponential_jitter(multiplier=backoff_s, max=backoff_max_s, jitter=backoff_s)
        self._events = events
        self._todo: SimpleQueue[tuple[Located, threading.Event] | None] = SimpleQueue()
        self._in_hand: dict[Name, tuple[Located, threading.Event]] = {}
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._gone: SimpleQueue[Loaded | None] = SimpleQueue()
        self._closer: threading.Thread | None = None

    def submit(self, located: Located) -> None:
        """Open a version, unless it is being opened already."""
        name = (located.key, located.version)
        if name in self._in_hand:
            return
        task = self._in_hand[name] = (located, threading.Event())
        self._todo.put(task)
        if len(self._threads) < min(THREADS, len(self._in_hand)):
            thread = threading.Thread(target=self._run, name=f"loader-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def took(self, done: LoadDone) -> None:
        """The owner has taken this result: the version may be submitted again."""
        self._in_hand.pop((done.located.key, done.located.version), None)

    def in_hand(self) -> list[Located]:
        """The versions being opened."""
        return [located for located, _ in self._in_hand.values()]

    def cancel(self, name: Name) -> None:
        """Give up on a version that nobody needs any more: it ends with neither a model nor a failure, and soon."""
        if name in self._in_hand:
            self._in_hand[name][1].set()

    def busy(self, key: str, version: int) -> bool:
        """Whether the version is being opened."""
        return (key, version) in self._in_hand

    def discard(self, loaded: Loaded) -> None:
        """Close a model that is in nobody's use, and give its memory back: it may take a while, and nobody waits."""
        if self._closer is None:
            self._closer = threading.Thread(target=self._close_models, name="closer", daemon=True)
            self._closer.start()
        self._gone.put(loaded)

    def close(self, timeout_s: float) -> None:
        """Give up waiting and end the threads; one that is inside TensorFlow is left behind after `timeout_s`."""
        self._closing.set()
        for _, cancelled in self._in_hand.values():
            cancelled.set()
        self._gone.put(None)
        threads = [*self._threads, *([self._closer] if self._closer else [])]
        for _ in self._threads:
            self._todo.put(None)
        for thread in threads:
            thread.join(timeout_s / len(threads))

    def _run(self) -> None:
        while (task := self._todo.get()) is not None and not self._closing.is_set():
            try:
                self._done(self._load(*task))
            except BaseException as error:  # noqa: BLE001 - it is raised again on the owner's thread
                self._done(error)
                return

    def _load(self, located: Located, cancelled: threading.Event) -> LoadDone:
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts) | stop_when_event_set(cancelled),
            wait=self._wait,
            retry=retry_if_exception_type(PassingLoadError),
            sleep=sleep_using_event(cancelled),
            before_sleep=lambda state: self._tell(located, state),
            reraise=True,
        )
        try:
            loaded = retrying(self._open, located, cancelled)
        except StaleError:
            return LoadDone(located, None, None, permanent=False, attempts=_attempts(retrying))
        except LoadError as error:
            if cancelled.is_set():
                return LoadDone(located, None, None, permanent=False, attempts=_attempts(retrying))
            failure = failure_of(error, _attempts(retrying))
            permanent = not isinstance(error, PassingLoadError)
            return LoadDone(located, None, failure, permanent=permanent, attempts=_attempts(retrying))
        return LoadDone(located, loaded, None, permanent=False, attempts=_attempts(retrying))

    def _open(self, located: Located, cancelled: threading.Event) -> Loaded:
        fetched = self._store.fetch(located, cancelled)  # a slow download keeps nobody else from being opened
        loaded = self._opener.open(fetched, cancelled)
        loaded.fingerprint = located.fingerprint  # the store's: a copy on the disk has its own
        return loaded

    def _tell(self, located: Located, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._events.load_attempt_failed(
            located.key, located.version, state.attempt_number, str(error), state.upcoming_sleep
        )

    def _close_models(self) -> None:
        while (loaded := self._gone.get()) is not None:
            loaded.close()
            if self._gone.empty():
                engine.trim()


def _attempts(retrying: Retrying) -> int:
    return int(retrying.statistics["attempt_number"])
