"""What the loop tells whoever watches it. `observe` listens; nothing here is ever asked back."""

from collections.abc import Sequence
from typing import Protocol

from schemas.reasons import Failure


class LoopEvents(Protocol):
    """Called on the loop's thread; must not block."""

    def turned(self, now: float, inferring_s: float, waiting_s: float) -> None:
        """The loop has gone round once more, at `now` (monotonic seconds); a model has been running for so long, and
        the oldest answer that was sent has waited so long for its acknowledgement."""

    def assigned(self, partitions: Sequence[int], *, joined: bool) -> None:
        """The partitions owned, or the membership, have changed."""

    def lagging(self, records: int | None) -> None:
        """How many records of the partitions owned are not done; None: no broker has answered the question."""

    def dead_letter(self, model_key: str | None, failure: Failure, position: str) -> None:
        """A job has no prediction and goes to the dead letters."""

    def sink_failed(self, why: str) -> None:
        """Answers cannot be sent; what was not acknowledged will be read again."""

    def sink_recovered(self) -> None:
        """Answers can be sent again."""

    def circuit(self, state: str, window_s: float) -> None:
        """The circuit breaker is `closed`, `open` (too many dead letters in so many seconds) or `half-open` now."""

    def draining(self, in_hand: int) -> None:
        """A stop was asked for with this many jobs in hand."""

    def drained(self, left: int) -> None:
        """The loop has ended; `left` jobs were not answered in time and will be read again."""
