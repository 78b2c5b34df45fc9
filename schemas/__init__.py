"""The wire contract: messages, tensor codec, headers, reason codes, and the publisher's client.

Importing it needs numpy and msgpack; `JobClient` and `OutcomeReader` need kafka-python once they are used.
"""

from schemas.client import JobClient, PublishedJob
from schemas.codec import decode_request, decode_response, encode_request, encode_response
from schemas.errors import (
    AccessRefusedError,
    BrokerUnavailableError,
    JobFailedError,
    LoadonceError,
    PredictTimeoutError,
    RecordTooLargeError,
    TopicMissingError,
)
from schemas.job import Job
from schemas.limits import Limits
from schemas.messages import ContentType, DeadLetter, Position, Prediction, Request, Response, Routing, Tensor
from schemas.outcomes import OutcomeReader
from schemas.reasons import Failure, Reason, RefusedError, Stage
from schemas.records import read_dead_letter, read_prediction

__all__ = [
    "AccessRefusedError",
    "BrokerUnavailableError",
    "ContentType",
    "DeadLetter",
    "Failure",
    "Job",
    "JobClient",
    "JobFailedError",
    "Limits",
    "LoadonceError",
    "OutcomeReader",
    "Position",
    "PredictTimeoutError",
    "Prediction",
    "PublishedJob",
    "Reason",
    "RecordTooLargeError",
    "RefusedError",
    "Request",
    "Response",
    "Routing",
    "Stage",
    "Tensor",
    "TopicMissingError",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "read_dead_letter",
    "read_prediction",
]
