"""What is to be loaded, what is being loaded, what has come of it, and what could not be loaded."""

from collections.abc import Callable
from dataclasses import dataclass

from consumer.models.cache import Name, name_of
from consumer.models.events import FailedStatus, ModelEvents
from consumer.models.failures import Failures
from consumer.models.loader import THREADS, LoadDone, Loader
from consumer.models.runtime import Loaded
from consumer.models.store import Catalog, Fingerprint, Located
from consumer.models.waits import LOOK_TIMEOUT_S
from schemas.reasons import Failure, Reason, Stage

STALE_LIMIT = 5
"""Loads in a row that find other files than the look before; then the version is unavailable for a while."""

WITHDRAWN = "the store has it no more"
CHANGED = "its files changed meanwhile; they are looked at again"


@dataclass(slots=True)
class _Stale:
    """A version whose files were not those that the last look had seen."""

    times: int
    """In a row."""
    ticket: int
    """The look that will tell more; 0: it has."""
    deadline: float


class Loads:
    """In the order of asking, and a version at a time. For the owner's thread only.

    `look` gives the number of a look at the store that begins after the call. `newcomers` are loaded and belong to
    nobody yet: whoever finds a place for one calls `settled`, whoever has none `abandon`.
    """

    def __init__(self, loader: Loader, failures: Failures, look: Callable[[], int], events: ModelEvents) -> None:
        self.newcomers: dict[Name, Loaded] = {}
        self._loader = loader
        self._failures = failures
        self._look = look
        self._events = events
        self._queue: dict[Name, Located] = {}
        self._needed: set[Name] = set()  # somebody waits for them, or would
        self._stale: dict[Name, _Stale] = {}

    def load(self, located: Located) -> Failure | None:
        """This version is needed: why it is not tried now, or None: it is, or is in line."""
        failure = self._failures.of(located)
        if failure is None:
            self._needed.add(name_of(located))
            self._line_up(located)
        return failure

    def load_spare(self, located: Located) -> bool:
        """This version is wanted if there is room for it; False: it is not tried now."""
        if self._failures.of(located) is not None:
            return False
        self._line_up(located)
        return True

    def is_needed(self, name: Name) -> bool:
        """Whether `load` has asked for what is being loaded, or only `load_spare` or a probe."""
        return name in self._needed

    def start(self, takes_a_place: Callable[[Located], bool]) -> None:
        """Begin what can be begun. While a loaded model waits for room, only what takes another's place: the others
        would wait, too, and take memory."""
        for name, located in list(self._queue.items()):
            if len(self.newcomers) + len(self._loader.in_hand()) >= THREADS:
                break
            if not self.newcomers or takes_a_place(located):
                del self._queue[name]
                self._loader.submit(located)

    def take(self, done: LoadDone, catalog: Catalog, now: float) -> bool:
        """A load has ended; whether its jobs may now be answered otherwise."""
        self._loader.took(done)
        name = name_of(done.located)
        if done.loaded is not None:
            self._stale.pop(name, None)
            self.newcomers[name] = done.loaded
        elif done.failure is not None:
            self.fail(name, done.failure, done.located.fingerprint, permanent=done.permanent)
        else:
            times = self._stale[name].times + 1 if name in self._stale else 1
            if times < STALE_LIMIT:
                self._events.load_abandoned(*name, CHANGED if catalog.located(*name) else WITHDRAWN)
                self._stale[name] = _Stale(times, self._look(), now + LOOK_TIMEOUT_S)
                self._failures.untold(name)
                return False
            text = f"the files of version {name[1]} keep changing"
            failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, text, done.attempts)
            self.fail(name, failure, done.located.fingerprint, permanent=False)
        return True

    def fail(self, name: Name, failure: Failure, fingerprint: Fingerprint, *, permanent: bool) -> None:
        """Remember, and tell, that these files cannot be served."""
        self._stale.pop(name, None)
        self._needed.discard(name)
        self._failures.add(name, failure, fingerprint, permanent=permanent)
        self._events.load_failed(*name, failure)

    def settled(self, name: Name) -> None:
        """The newcomer has found its place."""
        del self.newcomers[name]
        self._needed.discard(name)
        self._failures.forget(name)

    def abandon(self, name: Name, why: str) -> None:
        """Nobody wants the newcomer, although it has loaded."""
        self._needed.discard(name)
        self._failures.forget(name)
        self._loader.discard(self.newcomers.pop(name))
        self._events.load_abandoned(*name, why)

    def refuse(self, name: Name, why: str) -> None:
        """There will never be a place for the newcomer."""
        loaded = self.newcomers.pop(name)
        self._loader.discard(loaded)
        failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, why, 1)
        self.fail(name, failure, loaded.fingerprint, permanent=True)

    def follow(self, catalog: Catalog, looked: int) -> tuple[set[str], set[str]]:
        """A look has seen this: the models of what is not waited for any more, and of what it has seen again."""
        for located in self._loader.in_hand():
            now = catalog.located(located.key, located.version)
            if now is None or now.fingerprint != located.fingerprint:
                self._loader.cancel(name_of(located))
        given_up = set()
        for name in list(self._queue):
            if (now := catalog.located(*name)) is None:
                del self._queue[name]
                self._needed.discard(name)
                given_up.add(name[0])  # its jobs wait for a load that will not come
            else:
                self._queue[name] = now
        seen_again = set()
        for name, stale in list(self._stale.items()):
            if stale.ticket > looked:
                continue
            if stale.ticket:
                seen_again.add(name[0])
            stale.ticket = 0
            if catalog.located(*name) is None:
                del self._stale[name]
                self._needed.discard(name)
        return given_up, seen_again

    def forget_changed(self, key: str, catalog: Catalog) -> None:
        """Forget failures of files that the model has no more."""
        for name in self._failures.names():
            if name[0] == key:
                self._failures.follow(name, catalog.located(*name))

    def remind(self, now: float, catalog: Catalog) -> list[str]:
        """Probe what is due, and give up on looks that do not come; the models whose jobs may be answered otherwise."""
        told = []
        for name, probe in self._failures.due(now):
            located = catalog.located(*name)
            if not probe:
                told.append(name[0])
            elif located is not None:
                self._line_up(located)
                if name not in self._queue and not self._loader.busy(*name):
                    self._failures.untold(name)
        for name, stale in list(self._stale.items()):
            if stale.ticket and now >= stale.deadline:
                del self._stale[name]
                self._needed.discard(name)
                if (located := catalog.located(*name)) is not None:
                    text = f"the model store has not answered for {LOOK_TIMEOUT_S:g} s"
                    failure = Failure(Reason.MODEL_UNAVAILABLE, Stage.LOAD, text)
                    self.fail(name, failure, located.fingerprint, permanent=False)
                told.append(name[0])
        return told

    def failed(self) -> tuple[FailedStatus, ...]:
        """What could not be loaded, by name and version."""
        return self._failures.status()

    def loading(self) -> tuple[Name, ...]:
        """What is being loaded or in line, by name and version."""
        return tuple(sorted({*self._queue, *(name_of(located) for located in self._loader.in_hand())}))

    def _line_up(self, located: Located) -> None:
        name = name_of(located)
        waits_for_look = name in self._stale and self._stale[name].ticket > 0
        if not waits_for_look and not self._loader.busy(*name) and name not in self.newcomers:
            self._queue[name] = located
