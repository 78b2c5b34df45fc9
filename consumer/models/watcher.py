"""Looks at the store, on a thread of their own: every `poll_s`; soon when asked, or when a version is being copied."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from consumer.models.store import Catalog, Store

SPACING_S = 0.5
"""Between the beginnings of two looks, however many ask."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the look of this number has seen."""

    number: int
    catalog: Catalog


class StoreWatcher:
    """Gives a `Look` each time, or what has ended its thread, to `done`, on that thread."""

    def __init__(self, store: Store, poll_s: float, done: Callable[[Look | BaseException], None]) -> None:
        self._store = store
        self._poll_s = poll_s
        self._done = done
        self._begun = 0
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-watcher", daemon=True)
        self._thread.start()

    def ask(self) -> int:
        """Look soon; the number of a look that begins after this call."""
        begun = self._begun
        self._wanted.set()
        return begun + 1

    def close(self, timeout_s: float) -> None:
        """End the thread; one that waits for a disk is left behind after `timeout_s`."""
        self._closing.set()
        self._wanted.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        catalog: Catalog | None = None
        try:
            while not self._closing.is_set():
                self._wanted.clear()
                self._begun += 1  # after the flag is cleared: who asks from here on gets a further look
                catalog = self._store.scan(catalog, time.time())
                self._done(Look(self._begun, catalog))
                self._closing.wait(min(SPACING_S, self._poll_s))
                if not catalog.settling:  # else the second look follows at once
                    self._wanted.wait(max(0.0, self._poll_s - SPACING_S))
        except BaseException as error:  # noqa: BLE001 - it is raised again on the owner's thread
            self._done(error)
