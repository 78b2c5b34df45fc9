"""One record of the dead-letters topic, and the job it holds."""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from schemas import headers as names
from schemas.headers import parse_milliseconds
from schemas.messages import DeadLetter
from schemas.reasons import RefusedError
from schemas.records import read_dead_letter

_MODEL_KEY = re.compile(names.MODEL_KEY_PATTERN.encode())
_REPLAYS = re.compile(rb"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter and where it stands.

    `model` is the job's `model-key`, "" where it has none that is one. `replays` is how often the job was replayed
    before, `expires_at` in milliseconds since the epoch.
    """

    topic: str
    partition: int
    offset: int
    dead: DeadLetter
    model: str
    replays: int
    expires_at: int | None

    @property
    def position(self) -> str:
        """`topic/partition/offset` of the dead letter itself, not of its job."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset, by which it is marked."""
        return self.partition, self.offset

    def job_headers(self) -> list[tuple[str, bytes]]:
        """The headers to replay the job with: its own, without `dlq-*`, and `dlq-replays` counted up."""
        own = [(name, value or b"") for name, value in self.dead.headers]
        return [*own, (names.DLQ_REPLAYS, b"%d" % (self.replays + 1))]

    def digest(self) -> int:
        """64 bits of the job: at-least-once delivery may have written its dead letter twice.

        The position alone is not enough: it comes again in a jobs topic that was deleted and made anew.
        """
        dead = self.dead
        hashed = blake2b(f"{dead.position}/{len(dead.key or b'')}/{len(dead.value or b'')}/".encode(), digest_size=8)
        hashed.update(dead.key or b"")
        hashed.update(dead.value or b"")
        for name, value in dead.headers:
            hashed.update(name.encode(errors="surrogatepass"))
            hashed.update(value or b"")
        return int.from_bytes(hashed.digest())


def read_letter(record: Any) -> Letter | None:
    """The dead letter that a ConsumerRecord is; None where it is none by the contract."""
    try:
        dead = read_dead_letter(record.key, record.value, record.headers)
    except RefusedError:
        return None
    given = dict(record.headers)
    replays = given.get(names.DLQ_REPLAYS) or b""
    return Letter(
        record.topic,
        record.partition,
        record.offset,
        dead,
        _model(given.get(names.MODEL_KEY)),
        int(replays) if _REPLAYS.fullmatch(replays) else 0,
        _expires_at(given.get(names.EXPIRES_AT)),
    )


def _model(value: bytes | None) -> str:
    return value.decode() if value is not None and _MODEL_KEY.fullmatch(value) else ""


def _expires_at(value: bytes | None) -> int | None:
    try:
        return None if value is None else parse_milliseconds(names.EXPIRES_AT, value)
    except RefusedError:
        return None
