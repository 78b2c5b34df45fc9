"""`loadonce publish`, `predict` and `tail`: the topics from a publisher's and a reader's side."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli.frame import Config, Json, epilog, print_json, printable
from consumer.cli.inputs import STANDARD_INPUT, Format, read_requests
from consumer.cli.outcomes import document, line, text, values
from consumer.exits import Exit, FatalError

if TYPE_CHECKING:
    from consumer.settings import Settings
    from schemas.client import JobClient
    from schemas.job import Job

_POLL_S = 0.2
_BROKER = {
    Exit.UNAVAILABLE: "broker or topic not available",
    Exit.REFUSED: "",
    Exit.CONFIG: "an option that cannot work",
}
_INPUT = {
    Exit.DATA: "the input holds what cannot be a job, or a job too large for its topic",
    Exit.STORE_MISSING: "the input file is not there",
    Exit.IO: "the input cannot be read",
}


class Encoding(StrEnum):
    """The content types of the contract, by their short names."""

    MSGPACK = "msgpack"
    JSON = "json"


Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Source = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="A .npy, .json or .jsonl file, or - for standard input.")
]
Form = Annotated[
    Format | None, typer.Option("--format", help="What SOURCE holds, where its name does not tell; for -, jsonl.")
]
Datatype = Annotated[str, typer.Option("--datatype", help="Datatype of rows that are given as a bare JSON list.")]
Version = Annotated[str | None, typer.Option("--version", help="Version or alias; otherwise the version being served.")]
Encoded = Annotated[Encoding, typer.Option("--encoding", help="How the jobs are encoded, and their predictions.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        epilog=epilog(
            "loadonce publish digits images.npy",
            "loadonce publish digits images.npy --rows-per-job 1",
            "loadonce publish wine jobs.jsonl --version canary",
            "echo '[[1, 2, 3]]' | loadonce publish wine",
            exits={Exit.OK: "every job is acknowledged"} | _INPUT | _BROKER,
        )
    )(publish)
    app.command(
        epilog=epilog(
            "loadonce predict digits image.npy",
            "echo '[[1, 2, 3]]' | loadonce predict wine",
            "loadonce predict wine request.json --json",
            exits={Exit.FAILED: "the job became a dead letter; its reason is printed", Exit.TEMPORARY: ""}
            | _INPUT
            | _BROKER,
        )
    )(predict)
    app.command(
        epilog=epilog(
            "loadonce tail",
            "loadonce tail --from-beginning --max-messages 10",
            "loadonce tail --json --timeout 60 | jq 'select(.kind == \"dead letter\")'",
            exits={Exit.TEMPORARY: "--timeout passed before --max-messages came"} | _BROKER,
        )
    )(tail)


def publish(
    model: Model,
    source: Source = STANDARD_INPUT,
    *,
    version: Version = None,
    form: Form = None,
    datatype: Datatype = "FP32",
    rows_per_job: Annotated[
        int, typer.Option("--rows-per-job", min=0, help="Rows of an array or list in one job; 0: all of them.")
    ] = 0,
    key: Annotated[
        str | None, typer.Option("--key", help="Key of the records: what has one key keeps its order.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation-id", help="Correlation id; of several jobs, with -1, -2, ... after it.")
    ] = None,
    expires_in: Annotated[
        float | None, typer.Option("--expires-in", metavar="SECONDS", min=0, help="Not to be predicted after that.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A further header; may be repeated.")
    ] = None,
    encoding: Encoded = Encoding.MSGPACK,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Publish jobs.

    An array (.npy) or a JSON list is rows; a JSON object is a whole request. In .jsonl, and on standard input, each
    line is one of these.
    """
    from consumer.progress import Progress
    from consumer.settings import load
    from schemas.job import Job

    settings = load(config)
    common = Job(
        model,
        {},
        version=version,
        key=None if key is None else key.encode(),
        expires_in_s=expires_in,
        headers=_headers(header or []),
    )
    requests = list(read_requests(source, form, datatype=datatype, rows_per_job=rows_per_job))
    jobs = [_filled(common, request) for request in requests]
    if correlation_id is not None:
        several = len(jobs) > 1
        jobs = [
            replace(job, correlation_id=f"{correlation_id}-{number}" if several else correlation_id)
            for number, job in enumerate(jobs, start=1)
        ]
    published = []
    with (
        _explained(settings),
        _client(settings, encoding) as client,
        Progress().count("published", len(jobs)) as done,
    ):
        for job in client.publish_many(jobs):
            published.append(job)
            done(len(published))
    if as_json:
        print_json([{"correlation_id": text(job.correlation_id), "position": str(job.position)} for job in published])
    else:
        typer.echo(f"published {len(published)} {'job' if len(published) == 1 else 'jobs'} to {settings.jobs_topic}")


def predict(
    model: Model,
    source: Source = STANDARD_INPUT,
    *,
    version: Version = None,
    form: Form = None,
    datatype: Datatype = "FP32",
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait.")] = 30.0,
    encoding: Encoded = Encoding.MSGPACK,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Publish one job and wait for its prediction."""
    from consumer.settings import load
    from schemas.job import Job

    settings = load(config)
    requests = list(read_requests(source, form, datatype=datatype, rows_per_job=0))
    if len(requests) != 1:
        raise FatalError(Exit.DATA, f"{source}: {len(requests)} jobs; predict takes one, `loadonce publish` many")
    job = _filled(Job(model, {}), requests[0])
    with _explained(settings), _client(settings, encoding) as client:
        outputs = client.predict(
            model,
            job.inputs,
            timeout_s=timeout,
            version=version,
            id=job.id,
            outputs=job.outputs,
            parameters=job.parameters,
        )
    if as_json:
        print_json({"model": model, "outputs": {name: values(array) for name, array in outputs.items()}})
        return
    for name, array in outputs.items():
        typer.echo(f"{printable(name)} {list(array.shape)}")
        typer.echo(printable(str(array), keep="\n"))


def tail(
    *,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Also what is there already.")] = False,
    max_messages: Annotated[int | None, typer.Option("--max-messages", min=1, help="Stop after so many.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Stop after so long.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show predictions and dead letters as they come.

    One line each, until Ctrl-C, which gives exit code 130; with --json a JSON document a line, outputs included.
    """
    from consumer.settings import load
    from schemas.outcomes import OutcomeReader

    settings = load(config)
    deadline = None if timeout is None else time.monotonic() + timeout
    seen = 0
    reader = OutcomeReader(**_brokers(settings), **_outputs(settings), start="earliest" if from_beginning else "now")
    with _explained(settings), reader as outcomes:
        while deadline is None or time.monotonic() < deadline:
            for outcome in outcomes.poll(_POLL_S):
                print_json(document(outcome)) if as_json else typer.echo(line(outcome))
                seen += 1
                if seen == max_messages:
                    return
            sys.stdout.flush()
    if max_messages is not None:
        raise FatalError(Exit.TEMPORARY, f"--timeout {timeout:g}: {seen} of {max_messages} messages came")


def _filled(job: "Job", request: Any) -> "Job":
    return replace(
        job,
        inputs={tensor.name: tensor.array for tensor in request.inputs},
        id=request.id,
        outputs=request.outputs,
        parameters=request.parameters,
    )


def _headers(given: list[str]) -> list[tuple[str, bytes]]:
    headers = []
    for entry in given:
        name, separator, value = entry.partition("=")
        if not separator or not name:
            raise FatalError(Exit.USAGE, f"--header {printable(entry)}: not NAME=VALUE")
        headers.append((name, value.encode()))
    return headers


def _client(settings: "Settings", encoding: Encoding) -> "JobClient":
    from schemas.client import JobClient
    from schemas.messages import ContentType

    return JobClient(
        **_brokers(settings),
        **_outputs(settings),
        jobs_topic=settings.jobs_topic,
        content_type=ContentType(f"application/{encoding}"),
    )


def _brokers(settings: "Settings") -> dict[str, Any]:
    from consumer.delivery.connection import common

    security = {
        name: value
        for name, value in common(settings, "loadonce").items()
        if name.startswith(("security_", "sasl_", "ssl_"))
    }
    return {"bootstrap_servers": settings.bootstrap_servers, "security": security}


def _outputs(settings: "Settings") -> dict[str, Any]:
    return {"predictions_topic": settings.predictions_topic, "dead_letters_topic": settings.dead_letters_topic}


@contextmanager
def _explained(settings: "Settings") -> Iterator[None]:
    """The client's errors as exit codes."""
    from consumer.settings import named
    from schemas import errors

    try:
        yield
    except errors.JobFailedError as error:
        raise FatalError(Exit.FAILED, printable(f"dead letter: {error}")) from None
    except errors.PredictTimeoutError as error:
        raise FatalError(Exit.TEMPORARY, str(error)) from None
    except errors.AccessRefusedError as error:
        raise FatalError(Exit.REFUSED, f"{named(settings, 'bootstrap_servers')}: {error}") from None
    except errors.BrokerUnavailableError as error:
        raise FatalError(Exit.UNAVAILABLE, f"{named(settings, 'bootstrap_servers')}: {error}") from None
    except errors.TopicMissingError as error:
        raise FatalError(Exit.UNAVAILABLE, str(error)) from None
    except (errors.RecordTooLargeError, ValueError) as error:
        raise FatalError(Exit.DATA, f"not a job that can be sent: {error}") from None
