"""A `Serving` as the tests want it: quick, with a listener that remembers, and asked as the loop asks."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consumer.models.cache import Name, name_of
from consumer.models.errors import StaleError, TookTooLongError
from consumer.models.events import ModelEvents
from consumer.models.opening import Opener
from consumer.models.policy import Policies
from consumer.models.runtime import Loaded
from consumer.models.serving import Serving
from consumer.models.store import LocalStore, Located
from schemas.reasons import Failure

WAIT_S = 60


class Held(Opener):
    """Opens as the given one does, but for versions in `hanging`, as long as they are, and those in `too_long`."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self.hanging: set[Name] = set()
        self.too_long: set[Name] = set()

    def open(self, located: Located, cancelled: threading.Event) -> Loaded:
        """As an opener whose helper hangs, or was ended for that."""
        while name_of(located) in self.hanging:
            if cancelled.wait(0.002):
                raise StaleError
        if name_of(located) in self.too_long:
            raise TookTooLongError("it took too long")
        return self._opener.open(located, cancelled)


def serving(store: Path, opener: Opener, events: ModelEvents, **options: Any) -> Serving:
    """One on this folder; `options` are those of `Serving` that matter to the test."""
    given: dict[str, Any] = {
        "policies": Policies(),
        "poll_s": 0.05,
        "cache_models": 10,
        "cache_bytes": 1 << 32,
        "cache_min_s": 0,
        "load_attempts": 2,
        "load_backoff_s": 0.01,
        "load_backoff_max_s": 600,
        "clock": time.monotonic,
    }
    return Serving(LocalStore(store), opener, events=events, **given | options)


def ask(models: Serving, key: str, version: int | None = None, alias: str | None = None) -> Loaded | Failure:
    """The answer, waited for as the loop does."""
    found = models.resolve(key, version, alias)
    return found if found is not None else awaited(models, key, version, alias)


def awaited(models: Serving, key: str, version: int | None = None, alias: str | None = None) -> Loaded | Failure:
    """The answer to a question that was told to wait: asked again only when poll names the key."""
    deadline = time.monotonic() + WAIT_S
    found = None
    while found is None:
        assert time.monotonic() < deadline, f"no answer for {key}"
        if key in models.poll():
            found = models.resolve(key, version, alias)
        else:
            time.sleep(0.002)  # a loop that only spins keeps the loader's threads from running
    return found


def until(models: Serving, condition: Callable[[], bool]) -> None:
    """Poll as the loop does until it is so."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        models.poll()
        time.sleep(0.002)
