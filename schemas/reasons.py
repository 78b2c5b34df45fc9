"""Why a job became a dead letter: the codes of the wire contract, and the value and the error that carry them."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """`dlq-reason`. Where several hold, the first of header, size, expiry, model, body, input, inference, output."""

    BAD_HEADER = "bad-header"
    MISSING_MODEL_KEY = "missing-model-key"
    BAD_BODY = "bad-body"
    TOO_LARGE = "too-large"
    EXPIRED = "expired"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_VERSION = "unknown-version"
    MODEL_CORRUPT = "model-corrupt"
    MODEL_UNAVAILABLE = "model-unavailable"
    BAD_INPUT = "bad-input"
    INFERENCE_FAILED = "inference-failed"
    OUTPUT_TOO_LARGE = "output-too-large"
    POISON = "poison"


class Stage(StrEnum):
    """`dlq-stage`: where in its way through the consumer the job failed."""

    DECODE = "decode"
    ROUTE = "route"
    LOAD = "load"
    PREDICT = "predict"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one job has no prediction. A value: it travels with the job and touches no other.

    `message` is one line for a person and holds no payload, path or secret; `attempts` is how often loading the model
    was tried, where it was.
    """

    reason: Reason
    stage: Stage
    message: str
    attempts: int | None = None


class RefusedError(ValueError):
    """Bytes or values that the contract does not allow, with the reason code they earn."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
