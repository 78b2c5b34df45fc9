"""The contract for machines: JSON Schema (2020-12) and AsyncAPI 3, generated from the code and committed beside it.

`python -m schemas.documents` writes them, `--check` says whether they still are what the code says.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from schemas import headers as names
from schemas.client import JOBS_TOPIC
from schemas.limits import Limits
from schemas.messages import ContentType
from schemas.outcomes import DEAD_LETTERS_TOPIC, PREDICTIONS_TOPIC
from schemas.reasons import Reason, Stage
from schemas.records import ATTEMPTS_PATTERN, MAX_MESSAGE_BYTES
from schemas.tensor import DTYPES

FOLDER = Path(__file__).parent
VERSION = "1.0.0"
"""Of the contract: the first number changes where a reader or a publisher would have to."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SCHEMA_FORMAT = "application/schema+json;version=2020-12"
_LIMITS = Limits()

_JSON_TYPES = {"b": "boolean", "i": "integer", "u": "integer", "f": "number", "V": "number", "O": "string"}


def documents() -> dict[str, Any]:
    """Every document by its file's name."""
    return {
        "request.schema.json": request_schema(),
        "response.schema.json": response_schema(),
        "job-headers.schema.json": job_headers_schema(),
        "prediction-headers.schema.json": prediction_headers_schema(),
        "dead-letter-headers.schema.json": dead_letter_headers_schema(),
        "asyncapi.json": asyncapi(),
    }


def write(folder: Path = FOLDER) -> None:
    """Write every document into `folder`."""
    for name, document in documents().items():
        (folder / name).write_text(_text(document), encoding="utf-8")


def drifted(folder: Path = FOLDER) -> list[str]:
    """The names of files in `folder` that are not what the code says: different, missing, or left over."""
    expected = {name: _text(document) for name, document in documents().items()}
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def request_schema() -> dict[str, Any]:
    """A job's value, in JSON."""
    return _schema(
        "A job's value",
        "An Open Inference Protocol (V2) request. In msgpack the same map, with data as raw little-endian bytes.",
        required=["inputs"],
        properties={
            "id": {"type": ["string", "null"]},
            "inputs": _tensors("One for each input of the model.") | {"minItems": 1},
            "outputs": {
                "description": "Which outputs to return; all where it is absent.",
                "type": ["array", "null"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            },
            "parameters": {"description": "Echoed in the prediction.", "type": ["object", "null"]},
        },
    ) | {"$defs": _definitions()}


def response_schema() -> dict[str, Any]:
    """A prediction's value, in JSON."""
    return _schema(
        "A prediction's value",
        "An Open Inference Protocol (V2) response. In msgpack the same map, with data as raw little-endian bytes.",
        required=["model_name", "model_version", "outputs"],
        properties={
            "id": {"description": "The job's, if it had one.", "type": "string"},
            "model_name": {"type": "string", "pattern": _whole(names.MODEL_KEY_PATTERN)},
            "model_version": {"type": "string", "pattern": _whole(names.VERSION_PATTERN)},
            "outputs": _tensors("One for each output of the model, or those the job asked for."),
            "parameters": {"description": "The job's, if it had any.", "type": "object"},
        },
    ) | {"$defs": _definitions()}


def job_headers_schema() -> dict[str, Any]:
    """The headers of a job, their values as text."""
    return _schema(
        "A job's headers",
        f"Values are UTF-8. The last value of a repeated header stands. At most {_LIMITS.header_bytes} bytes in all.",
        required=[],
        properties={
            names.MODEL_KEY: {
                "description": "The model's name. Needed unless the consumer has a default model.",
                **_matching(names.MODEL_KEY_PATTERN),
            },
            names.MODEL_VERSION: {
                "description": "That version, or an alias; absent: the version being served.",
                **_matching(f"{names.VERSION_PATTERN}|{names.ALIAS_PATTERN}"),
            },
            names.CONTENT_TYPE: _content_type() | {"default": ContentType.MSGPACK.value},
            names.CORRELATION_ID: {"description": "Opaque bytes, echoed.", "type": "string"},
            names.EXPIRES_AT: {
                "description": "Milliseconds since the epoch; past it the job is a dead letter (expired).",
                **_matching(names.MILLISECONDS_PATTERN),
            },
            **_trace(),
        },
    )


def prediction_headers_schema() -> dict[str, Any]:
    """The headers of a prediction, their values as text."""
    return _schema(
        "A prediction's headers",
        "What the job had of correlation id and trace context comes back.",
        required=[names.MODEL_KEY, names.MODEL_VERSION, names.CONTENT_TYPE, names.JOB_POSITION],
        properties={
            names.MODEL_KEY: _matching(names.MODEL_KEY_PATTERN),
            names.MODEL_VERSION: {"description": "The version that served.", **_matching(names.VERSION_PATTERN)},
            names.CONTENT_TYPE: _content_type(),
            names.CORRELATION_ID: {"description": "The job's.", "type": "string"},
            names.JOB_POSITION: _position(),
            **_trace(),
        },
    )


def dead_letter_headers_schema() -> dict[str, Any]:
    """The headers that a dead letter has beside its job's, their values as text."""
    return _schema(
        "A dead letter's headers",
        "The job's own, as they came, and these.",
        required=[
            names.DLQ_REASON,
            names.DLQ_STAGE,
            names.DLQ_MESSAGE,
            names.DLQ_POSITION,
            names.DLQ_FAILED_AT,
            names.DLQ_CONSUMER,
        ],
        properties={
            names.DLQ_REASON: _one_of(Reason),
            names.DLQ_STAGE: _one_of(Stage),
            names.DLQ_MESSAGE: {
                "description": f"One line for a person, at most {MAX_MESSAGE_BYTES} bytes.",
                "type": "string",
                "maxLength": MAX_MESSAGE_BYTES,
            },
            names.DLQ_POSITION: _position(),
            names.DLQ_FAILED_AT: {
                "description": "Milliseconds since the epoch.",
                **_matching(names.MILLISECONDS_PATTERN),
            },
            names.DLQ_ATTEMPTS: {
                "description": "How often loading was tried, where it was.",
                **_matching(ATTEMPTS_PATTERN),
            },
            names.DLQ_CONSUMER: {"description": "The replica that gave up.", "type": "string"},
            names.DLQ_TRUNCATED: {
                "description": "Present where the value was left out because it did not fit the topic.",
                "const": "true",
            },
            names.DLQ_REPLAYS: {"description": "How often the job was replayed.", **_matching(ATTEMPTS_PATTERN)},
        },
    )


def asyncapi() -> dict[str, Any]:
    """The three topics, seen from the consumer: it receives jobs, and sends predictions and dead letters."""
    key = {"type": "string", "format": "binary"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "loadonce",
            "version": VERSION,
            "description": "TensorFlow models served from a Kafka topic. Topic names are settings.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": ContentType.MSGPACK.value,
        "channels": {
            "jobs": _channel(JOBS_TOPIC, "job", "What to predict."),
            "predictions": _channel(PREDICTIONS_TOPIC, "prediction", "What was predicted."),
            "deadLetters": _channel(DEAD_LETTERS_TOPIC, "deadLetter", "Jobs without a prediction, and why."),
        },
        "operations": {
            "receiveJob": _operation("receive", "jobs", "job"),
            "sendPrediction": _operation("send", "predictions", "prediction"),
            "sendDeadLetter": _operation("send", "deadLetters", "deadLetter"),
        },
        "components": {
            "messages": {
                "job": {
                    "title": "Job",
                    "headers": _file("job-headers.schema.json"),
                    "payload": _file("request.schema.json"),
                    "correlationId": {"location": f"$message.header#/{names.CORRELATION_ID}"},
                    "bindings": {"kafka": {"key": key | {"description": "Any bytes or none."}}},
                    "x-limits": asdict(_LIMITS),
                },
                "prediction": {
                    "title": "Prediction",
                    "headers": _file("prediction-headers.schema.json"),
                    "payload": _file("response.schema.json"),
                    "correlationId": {"location": f"$message.header#/{names.CORRELATION_ID}"},
                    "bindings": {"kafka": {"key": key | {"description": "The job's."}}},
                },
                "deadLetter": {
                    "title": "Dead letter",
                    "description": "Key and value are the job's, byte for byte, whatever they were.",
                    "headers": _file("dead-letter-headers.schema.json"),
                    "correlationId": {"location": f"$message.header#/{names.CORRELATION_ID}"},
                    "bindings": {"kafka": {"key": key | {"description": "The job's."}}},
                },
            }
        },
    }


def _schema(title: str, description: str, *, required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": _DIALECT,
        "title": title,
        "description": description,
        "type": "object",
        "required": required,
        "properties": properties,
    }


def _tensors(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "type": "array",
        "maxItems": _LIMITS.tensors,
        "items": {"$ref": "#/$defs/tensor"},
    }


def _definitions() -> dict[str, Any]:
    shape = {
        "description": f"Rows first; at most {_LIMITS.elements} elements.",
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 0, "maximum": _LIMITS.rows}],
        "items": {"type": "integer", "minimum": 0},
        "maxItems": _LIMITS.rank,
    }
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": sorted(DTYPES)},
            "shape": shape,
            "data": {"description": "Row-major: flat, or nested as the shape has it.", "type": "array"},
        },
        "allOf": [
            {
                "if": {"properties": {"datatype": {"const": datatype}}},
                "then": {"properties": {"data": {"$ref": f"#/$defs/{datatype}"}}},
            }
            for datatype in sorted(DTYPES)
        ],
    }
    return {"tensor": tensor} | {
        datatype: {"type": "array", "items": {"anyOf": [_element(datatype), {"$ref": f"#/$defs/{datatype}"}]}}
        for datatype in sorted(DTYPES)
    }


def _element(datatype: str) -> dict[str, Any]:
    dtype = DTYPES[datatype]
    element: dict[str, Any] = {"type": _JSON_TYPES[dtype.kind]}
    if dtype.kind in "iu":
        element |= {"minimum": int(np.iinfo(dtype).min), "maximum": int(np.iinfo(dtype).max)}
    return element


def _trace() -> dict[str, Any]:
    return {
        names.TRACEPARENT: {
            "description": f"W3C Trace Context, {names.TRACEPARENT_PATTERN}; ignored where it is malformed.",
            "type": "string",
        },
        names.TRACESTATE: {"description": "W3C Trace Context.", "type": "string"},
    }


def _position() -> dict[str, Any]:
    return {"description": "topic/partition/offset of the job.", **_matching(names.POSITION_PATTERN)}


def _content_type() -> dict[str, Any]:
    return {"description": "How the value is encoded.", **_one_of(ContentType)}


def _one_of(values: Iterable[str]) -> dict[str, Any]:
    return {"enum": [str(value) for value in values]}


def _matching(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": _whole(pattern)}


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _channel(address: str, message: str, description: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"kafka": {"topic": address}},
    }


def _operation(action: str, channel: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }


def _file(name: str) -> dict[str, Any]:
    return {"schemaFormat": _SCHEMA_FORMAT, "schema": {"$ref": f"./{name}"}}


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
