"""What models tells whoever watches it. `observe` listens; nothing here is ever asked back."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from consumer.models.runtime import Loaded
    from schemas.reasons import Failure


class ModelEvents(Protocol):
    """Must not block. `load_attempt_failed` comes from a loader's thread, the others from the loop's."""

    def model_loaded(self, loaded: "Loaded") -> None:
        """A model is warm and can be served."""

    def load_attempt_failed(self, key: str, version: int, attempt: int, error: str, wait_s: float) -> None:
        """One try has failed for a reason that may pass; the next follows in `wait_s` seconds."""

    def load_failed(self, key: str, version: int, failure: "Failure") -> None:
        """Loading is given up, until the files change or for a while."""

    def model_dropped(self, loaded: "Loaded", why: str) -> None:
        """A model has left memory: `evicted`, `replaced` or `withdrawn`."""

    def store_problem(self, text: str) -> None:
        """Something in the store is not as it should be; told once as long as it lasts."""
