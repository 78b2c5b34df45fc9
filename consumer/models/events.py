"""What models tells whoever watches it. `observe` listens; nothing here is ever asked back."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from consumer.models.runtime import Loaded
    from schemas.reasons import Failure

Dropped = Literal["evicted", "replaced", "withdrawn"]
"""Why a model left memory: room was needed, another version or other files took its place, the store has it no more."""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One loaded version. `current`: it answers jobs that name no version; `aliases`: those that it answers;
    `pinned`: it never leaves to make room; `nbytes`: what it counts in the cache; `in_use`: jobs it has in hand."""

    key: str
    version: int
    path_in_store: str
    format: Literal["keras", "h5", "savedmodel"]
    nbytes: int
    in_use: int
    current: bool
    pinned: bool
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FailedStatus:
    """A version whose failure is remembered: its jobs are told so at once.

    `retry_at`: when it is tried again on its own, in seconds of the clock that `Serving` was given; None while it is
    being tried. It is tried at once when its files change. `permanent`: only other files can help.
    """

    key: str
    version: int
    failure: "Failure"
    permanent: bool
    retry_at: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is loaded, what could not be, what is under way, and what is wrong with the store, at one moment.

    `models` and `failed` are sorted by name and version; `loading` is being opened or waits for a loader's thread,
    `waiting_for_room` is open and waits until the cache lets something go.
    """

    models: tuple[VersionStatus, ...] = ()
    failed: tuple[FailedStatus, ...] = ()
    loading: tuple[tuple[str, int], ...] = ()
    waiting_for_room: tuple[tuple[str, int], ...] = ()
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Preloaded models of which no version answers jobs that name none."""
    cache_bytes: int = 0
    """Bytes of all models in memory, those included that were dropped and have a batch left."""


class ModelEvents(Protocol):
    """Must not block. `load_attempt_failed` comes from a loader's thread, the others from the loop's."""

    def model_loaded(self, loaded: "Loaded") -> None:
        """A model is warm, in the cache, and can be served: the attempt that succeeded."""

    def load_attempt_failed(self, key: str, version: int, attempt: int, error: str, wait_s: float) -> None:
        """One try has failed for a reason that may pass; the next follows in `wait_s` seconds."""

    def load_failed(self, key: str, version: int, failure: "Failure") -> None:
        """The last attempt has failed: loading is given up, until the files change or for a while."""

    def load_abandoned(self, key: str, version: int, why: str) -> None:
        """An attempt has ended with neither a model nor a failure, or with a model that nobody wants."""

    def waiting_for_room(self, key: str, version: int, why: str) -> None:
        """A loaded model does not come into the cache yet; `why` says who may not leave. Told once for each wait."""

    def version_served(self, loaded: "Loaded", before: int | None) -> None:
        """From now on this version answers jobs that name none; `before` is the version that did, if any."""

    def none_served(self, key: str, before: int) -> None:
        """The policy allows no version of the store any more; `before` answered jobs that name none."""

    def alias_served(self, key: str, alias: str, version: int | None) -> None:
        """From now on the alias means this version, which is loaded; None: the alias is gone."""

    def model_dropped(self, loaded: "Loaded", why: Dropped) -> None:
        """A model has left memory."""

    def store_looked(self, models: Collection[str]) -> None:
        """A look at the store has ended; `models` are the names it has."""

    def store_problem(self, text: str) -> None:
        """Something in the store is not as it should be; told once as long as it lasts."""

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        """The newest state: to be told after every change, and once a second (`in_use` moves with each job)."""
