"""Records of the output topics to and from typed messages."""

import re

from schemas import headers as names
from schemas.codec import decode_response
from schemas.headers import parse_milliseconds, parse_position, read_routing
from schemas.limits import Limits
from schemas.messages import DeadLetter, Prediction, RawHeaders
from schemas.reasons import Failure, Reason, RefusedError, Stage

MAX_MESSAGE_BYTES = 512
ATTEMPTS_PATTERN = "[0-9]{1,9}"

_LIMITS = Limits()
_REASONS = {reason.encode(): reason for reason in Reason}
_ATTEMPTS = re.compile(ATTEMPTS_PATTERN.encode())
_STAGES = {stage.encode(): stage for stage in Stage}


def read_prediction(
    key: bytes | None, value: bytes | None, headers: RawHeaders, limits: Limits = _LIMITS
) -> Prediction:
    """A record of the predictions topic. RefusedError where it is not one by the contract."""
    routing = read_routing(headers)
    if routing.model_key is None or routing.version is None:
        raise _bad_header(f"{names.MODEL_KEY} or a {names.MODEL_VERSION} in digits is missing")
    return Prediction(
        response=decode_response(value, routing.content_type, limits),
        position=parse_position(dict(headers).get(names.JOB_POSITION)),
        model_key=routing.model_key,
        model_version=routing.version,
        key=key,
        correlation_id=routing.correlation_id,
    )


def read_dead_letter(key: bytes | None, value: bytes | None, headers: RawHeaders) -> DeadLetter:
    """A record of the dead-letters topic. RefusedError(bad-header) where it is not one by the contract.

    The job in it is not opened: it may be anything.
    """
    given = {name: content or b"" for name, content in headers if name.startswith(names.DLQ_PREFIX)}
    reason = _REASONS.get(given.get(names.DLQ_REASON, b""))
    stage = _STAGES.get(given.get(names.DLQ_STAGE, b""))
    if reason is None or stage is None:
        raise _bad_header(f"{names.DLQ_REASON} or {names.DLQ_STAGE} is missing or not one of the contract's")
    return DeadLetter(
        reason=reason,
        stage=stage,
        message=given.get(names.DLQ_MESSAGE, b"").decode(errors="replace"),
        position=parse_position(given.get(names.DLQ_POSITION)),
        failed_at=parse_milliseconds(names.DLQ_FAILED_AT, given.get(names.DLQ_FAILED_AT)),
        consumer=given.get(names.DLQ_CONSUMER, b"").decode(errors="replace"),
        attempts=_attempts(given.get(names.DLQ_ATTEMPTS)),
        truncated=given.get(names.DLQ_TRUNCATED) == b"true",
        key=key,
        value=value,
        headers=[(name, content) for name, content in headers if not name.startswith(names.DLQ_PREFIX)],
    )


def dead_letter_headers(
    headers: RawHeaders,
    failure: Failure,
    *,
    position: str,
    failed_at_ms: int,
    consumer: str,
    truncated: bool = False,
) -> list[tuple[str, bytes]]:
    """The headers of a job's dead letter: the job's in their order, then why it failed.

    A null value becomes empty, since a client cannot send null. Older `dlq-*` headers give way, all but `dlq-replays`:
    it says nothing of this failure but how often the job was replayed, and would start from 0 at each round otherwise.
    """
    kept = [
        (name, value or b"")
        for name, value in headers
        if not name.startswith(names.DLQ_PREFIX) or name == names.DLQ_REPLAYS
    ]
    kept += [
        (names.DLQ_REASON, failure.reason.encode()),
        (names.DLQ_STAGE, failure.stage.encode()),
        (names.DLQ_MESSAGE, _one_line(failure.message)),
        (names.DLQ_POSITION, position.encode()),
        (names.DLQ_FAILED_AT, b"%d" % failed_at_ms),
    ]
    if failure.attempts is not None:
        kept.append((names.DLQ_ATTEMPTS, b"%d" % failure.attempts))
    kept.append((names.DLQ_CONSUMER, consumer.encode()))
    if truncated:
        kept.append((names.DLQ_TRUNCATED, b"true"))
    return kept


def _one_line(text: str) -> bytes:
    # What is not printable is a control character, a line or paragraph separator, or half of a surrogate pair.
    line = "".join([character if character.isprintable() else " " for character in text[:MAX_MESSAGE_BYTES]])
    return line.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore").encode()


def _attempts(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not _ATTEMPTS.fullmatch(value):
        raise _bad_header(f"{names.DLQ_ATTEMPTS} does not match: {ATTEMPTS_PATTERN}")
    return int(value)


def _bad_header(message: str) -> RefusedError:
    return RefusedError(Reason.BAD_HEADER, message)
