"""Dead letters as tables and as JSON, for `loadonce dlq`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from consumer.cli.frame import print_table, printable
from consumer.cli.outcomes import text

if TYPE_CHECKING:
    from consumer.dead_letters.letter import Letter
    from consumer.dead_letters.listing import Listing
    from consumer.dead_letters.survey import Sample
    from consumer.settings import Settings


def listing_document(listing: "Listing") -> dict[str, Any]:
    """A listing as `dlq list --json` has it; times in milliseconds since the epoch."""
    from consumer.dead_letters.marks import State

    census, run = listing.census, listing.unfinished
    return {
        "topic": listing.topic,
        **{state.value: census.total(state) for state in State},
        "twice": census.duplicates,
        "foreign": census.foreign,
        "groups": [
            {
                "reason": reason,
                "model": model or None,
                **{state.value: group.states[state] for state in State},
                "twice": group.duplicates,
                "first_failed_at": group.first_ms,
                "last_failed_at": group.last_ms,
                "samples": [_sample(sample) for sample in group.samples],
            }
            for (reason, model), group in sorted(census.groups.items())
        ],
        "unfinished": None if run is None else {"asked": dict(run.asked), "began_at": run.began_ms, "done": run.done},
        "no_run": listing.no_run,
    }


def _sample(sample: "Sample") -> dict[str, Any]:
    return {
        "position": sample.position,
        "job_position": str(sample.job_position),
        "failed_at": sample.failed_at,
        "message": sample.message,
        "replays": sample.replays,
        "truncated": sample.truncated,
    }


def print_listing(listing: "Listing") -> None:
    """A listing for a person: a table, a line a sample, and the sums."""
    from consumer.dead_letters.marks import State

    census = listing.census
    groups = sorted(census.groups.items(), key=lambda item: -item[1].states[State.OPEN])
    if groups:
        print_table(
            ("reason", "model", "open", "replayed", "discarded", "twice", "first", "last"),
            [
                (
                    reason,
                    model or "-",
                    *(f"{group.states[state]:,}" for state in State),
                    f"{group.duplicates:,}",
                    when(group.first_ms),
                    when(group.last_ms),
                )
                for (reason, model), group in groups
            ],
        )
    for _, group in groups:
        for sample in group.samples:
            again = f" (replayed {sample.replays} times)" if sample.replays else ""
            typer.echo(printable(f"{sample.position}  {sample.reason} ({sample.stage}): {sample.message}{again}"))
    total = ", ".join(f"{census.total(state):,} {state}" for state in State)
    typer.echo(f"{listing.topic}: {total}")
    if census.foreign:
        typer.echo(f"{census.foreign:,} records that are no dead letters")
    if run := listing.unfinished:
        typer.echo(
            f"a {printable(str(run.asked.get('command')))} begun at {when(run.began_ms)} is under way or was "
            f"interrupted: {run.done:,} done; the same command goes on with it"
        )
    if listing.no_run:
        typer.echo(
            f"{listing.no_run} is not loadonce's: whether a replay or discard was interrupted is not known; the next "
            "one writes over it"
        )


def letter_document(letter: "Letter", settings: "Settings") -> dict[str, Any]:
    """What JSON can hold of a dead letter; its body is described, not shown."""
    dead = letter.dead
    return {
        "position": letter.position,
        "job_position": str(dead.position),
        "reason": dead.reason,
        "stage": dead.stage,
        "message": dead.message,
        "failed_at": dead.failed_at,
        "consumer": dead.consumer,
        "attempts": dead.attempts,
        "replays": letter.replays,
        "truncated": dead.truncated,
        "model": letter.model or None,
        "key": text(dead.key),
        "headers": [[name, text(value)] for name, value in dead.headers],
        "body": _body(letter, settings),
    }


def _body(letter: "Letter", settings: "Settings") -> dict[str, Any]:
    """What the job's value is, without what is in it."""
    from schemas.codec import decode_request
    from schemas.headers import read_routing
    from schemas.messages import RawHeaders
    from schemas.reasons import RefusedError
    from schemas.tensor import datatype_of

    dead = letter.dead
    described: dict[str, Any] = {"bytes": len(dead.value or b"")}
    headers: RawHeaders = dead.headers
    if dead.truncated:
        return described
    try:
        routing = read_routing(headers)
        request = decode_request(dead.value, routing.content_type, settings.limits)
    except RefusedError as refused:
        return described | {"unreadable": refused.message}
    return described | {
        "content_type": routing.content_type,
        "inputs": [
            {"name": each.name, "datatype": datatype_of(each.array), "shape": list(each.array.shape)}
            for each in request.inputs
        ],
        "outputs": None if request.outputs is None else list(request.outputs),
    }


def rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """`letter_document` as the rows of a table; what came from the topic is made harmless."""
    body = found["body"]
    for name, value in found.items():
        if name == "headers":
            for header, content in value:
                yield f"header {printable(header)}", printable(str(content))
        elif name == "body":
            yield "body", f"{body['bytes']:,} bytes"
            for tensor in body.get("inputs", ()):
                yield "input", printable(f"{tensor['name']} {tensor['datatype']} {tensor['shape']}")
            if "unreadable" in body:
                yield "", printable(body["unreadable"])
        elif name == "failed_at":
            yield "failed at", when(value)
        elif value is not None:
            yield name.replace("_", " "), printable(str(value))


def when(milliseconds: int | None) -> str:
    """A time for a person, in UTC."""
    if milliseconds is None:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)
