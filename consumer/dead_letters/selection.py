"""Which dead letters are meant."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from consumer.dead_letters.letter import Letter

_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Selection:
    """Each part that is given must hold; of several reasons, models or positions any.

    Times are of `dlq-failed-at`, in milliseconds since the epoch: from `since_ms` on, before `until_ms`. A position is
    that of a dead letter or of its job.
    """

    reasons: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    positions: tuple[str, ...] = ()

    def matches(self, letter: Letter) -> bool:
        """Whether this dead letter is meant."""
        dead = letter.dead
        return (
            (not self.reasons or dead.reason in self.reasons)
            and (not self.models or letter.model in self.models)
            and (self.since_ms is None or dead.failed_at >= self.since_ms)
            and (self.until_ms is None or dead.failed_at < self.until_ms)
            and (not self.positions or letter.position in self.positions or str(dead.position) in self.positions)
        )


def parse_time(text: str, now_ms: int) -> int:
    """Milliseconds since the epoch of `2h` (ago; s, m, h, d) or an ISO 8601 date or time, in UTC unless it says
    otherwise. ValueError."""
    if ago := _AGO.fullmatch(text):
        return now_ms - int(ago[1]) * _SECONDS[ago[2]] * 1000
    try:
        time = datetime.fromisoformat(text)
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError("neither a time as 2026-11-23T10:00Z nor how long ago, as 90s, 15m, 2h or 7d") from None
