"""`loadonce dlq`: what became dead letters, and what becomes of them."""

import base64
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli.dead_letters import letter_document, listing_document, print_listing, rows, when
from consumer.cli.frame import Config, Json, epilog, print_json, print_table, printable
from consumer.exits import Exit, FatalError

if TYPE_CHECKING:
    from consumer.dead_letters.deletion import Deleted
    from consumer.dead_letters.judge import Command
    from consumer.dead_letters.run import Handling, Order
    from consumer.dead_letters.selection import Selection
    from consumer.dead_letters.survey import Plan
    from consumer.settings import Settings
    from consumer.watchdog import Watchdog

_BROKER = {
    Exit.DATA: "what was handled is not known: its topic, <dead letters>.handled, is damaged",
    Exit.UNAVAILABLE: "broker or topic not available",
    Exit.TEMPORARY: "the broker gives nothing within the time limit",
    Exit.REFUSED: "",
    Exit.CONFIG: "an option that cannot work",
}
_HANDLING = {
    Exit.FAILED: "without --yes, nothing was done; or nothing is at a --position, and the others were handled",
    Exit.STUCK: "a Kafka call did not return; the same command goes on",
    Exit.FENCED: "another replay or discard of this topic took over",
} | _BROKER

app = typer.Typer(
    help="Look at dead letters, replay them, or discard them.",
    epilog=epilog(
        "loadonce dlq list",
        "loadonce dlq show inference.dead-letters/0/17",
        "loadonce dlq replay --reason model-unavailable --dry-run",
        "loadonce dlq discard --model wine --until 7d --yes",
        exits=_HANDLING,
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", metavar="CODE", help="Only with this dlq-reason; may be repeated.")
]
Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME", help="Only of jobs for this model; may be repeated.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only failed since: 15m, 2h, 7d ago, or as 2026-11-23T10:00Z."),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only failed before.")]
Positions = Annotated[
    list[str] | None,
    typer.Option("--position", metavar="POSITION", help="Only at topic/partition/offset, of dead letter or job."),
]
Every = Annotated[bool, typer.Option("--all", help="All of them, where nothing else narrows it down.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest of a partition first.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command(
    name="list",
    epilog=epilog(
        "loadonce dlq list",
        "loadonce dlq list --since 2h --reason inference-failed --samples 10",
        "loadonce dlq list --json | jq '.groups[] | {reason, model, open}'",
        exits=_BROKER,
    ),
)
def list_(
    *,
    reason: Reasons = None,
    model: Models = None,
    since: Since = None,
    until: Until = None,
    samples: Annotated[
        int, typer.Option("--samples", min=0, max=100, help="How many to show of each reason and model, the last.")
    ] = 1,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Count dead letters by reason and model.

    Open are those that were neither replayed nor discarded; of these samples are shown. Twice: the same job is in an
    earlier dead letter, as at-least-once delivery may write it; a replay leaves that alone.
    """
    from consumer.dead_letters.listing import take_census
    from consumer.progress import Progress
    from consumer.settings import load

    settings = load(config)
    selection = _selection(reason, model, since, until, None)
    with Progress().count("read") as read:
        listing = take_census(settings, selection, samples, read)
    if as_json:
        print_json(listing_document(listing))
    else:
        print_listing(listing)


@app.command(
    epilog=epilog(
        "loadonce dlq show inference.dead-letters/0/17",
        "loadonce dlq show inference.jobs/3/4711 --json",
        "loadonce dlq show inference.dead-letters/0/17 --payload > body",
        exits={Exit.FAILED: "no dead letter there"} | _BROKER,
    )
)
def show(
    position: Annotated[
        str, typer.Argument(metavar="POSITION", help="topic/partition/offset of a dead letter, or of its job.")
    ],
    *,
    payload: Annotated[
        bool, typer.Option("--payload", help="Write the job's value, byte for byte; with --json, add it in base64.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why, and its job's headers.

    The body is described, not shown. A dead letter is found at once by its own position, and by reading the topic by
    its job's.
    """
    from consumer.dead_letters.listing import find_letter
    from consumer.progress import Progress
    from consumer.settings import load

    settings = load(config)
    if payload and not as_json and sys.stdout.isatty():
        raise FatalError(Exit.USAGE, "--payload: not onto a terminal; redirect the bytes, or add --json")
    with Progress().count("read") as read:
        letter, state = find_letter(settings, position, read)
    if payload and not as_json:
        sys.stdout.buffer.write(letter.dead.value or b"")
        sys.stdout.flush()
        return
    found = letter_document(letter, settings) | {"state": state}
    if as_json:
        value = letter.dead.value
        encoded = None if value is None else base64.b64encode(value).decode()
        print_json(found | ({"value": encoded} if payload else {}))
        return
    print_table(("", ""), rows(found))


@app.command(
    epilog=epilog(
        "loadonce dlq replay --reason model-unavailable --since 2h --dry-run",
        "loadonce dlq replay --model wine --limit 10 --yes",
        "loadonce dlq replay --all --rate 200 --yes",
        "loadonce dlq replay --position inference.dead-letters/0/17 --yes",
        exits=_HANDLING,
    )
)
def replay(
    *,
    reason: Reasons = None,
    model: Models = None,
    since: Since = None,
    until: Until = None,
    position: Positions = None,
    everything: Every = False,
    discarded: Annotated[
        bool, typer.Option("--discarded", help="Of those that were discarded, instead of those that are open.")
    ] = False,
    max_replays: Annotated[
        int, typer.Option("--max-replays", min=1, max=1000, help="Leave alone what was replayed so often already.")
    ] = 3,
    limit: Limit = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", min=0.01, help="At most so many jobs a second.")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Publish the jobs of dead letters again.

    Byte for byte, with dlq-replays counted up, to the partition that they came from. Each is marked as replayed in
    the same transaction, so that none is replayed twice. If it is ended in the middle, the same command goes on from
    there.
    """
    from consumer.dead_letters.judge import Command
    from consumer.dead_letters.run import Order

    narrowed = _asked(reason, model, since, until, position)
    _require_meaning(narrowed, everything=everything, yes=yes, dry_run=dry_run)
    order = Order(
        command=Command.REPLAY,
        selection=_selection(reason, model, since, until, position),
        asked={
            "command": Command.REPLAY.value,
            **narrowed,
            "discarded": discarded,
            "max_replays": max_replays,
            "limit": limit,
        },
        max_replays=max_replays,
        limit=limit,
        rate=rate,
        discarded=discarded,
    )
    _handle(config, order, yes=yes, dry_run=dry_run, as_json=as_json)


@app.command(
    epilog=epilog(
        "loadonce dlq discard --reason expired --dry-run",
        "loadonce dlq discard --reason bad-body --until 7d --yes",
        "loadonce dlq discard --all --delete-records --yes",
        exits=_HANDLING,
    )
)
def discard(
    *,
    reason: Reasons = None,
    model: Models = None,
    since: Since = None,
    until: Until = None,
    position: Positions = None,
    everything: Every = False,
    limit: Limit = None,
    delete_records: Annotated[
        bool,
        typer.Option("--delete-records", help="Then delete all before the first open one, for good."),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Mark dead letters as dealt with.

    They are no longer open: `list` counts them apart and `replay` leaves them alone, but with --discarded. They stay
    in the topic until its retention removes them, or --delete-records does.
    """
    from consumer.dead_letters.judge import Command
    from consumer.dead_letters.run import Order

    narrowed = _asked(reason, model, since, until, position)
    _require_meaning(narrowed, everything=everything, yes=yes, dry_run=dry_run)
    order = Order(
        command=Command.DISCARD,
        selection=_selection(reason, model, since, until, position),
        asked={"command": Command.DISCARD.value, **narrowed, "limit": limit},
        limit=limit,
    )
    _handle(config, order, yes=yes, dry_run=dry_run, as_json=as_json, delete_records=delete_records)


# what is meant -------------------------------------------------------------------------------------------------------


def _asked(
    reason: list[str] | None, model: list[str] | None, since: str | None, until: str | None, position: list[str] | None
) -> dict[str, Any]:
    """The selection as it was written."""
    return {
        "reason": sorted(reason or []),
        "model": sorted(model or []),
        "since": since,
        "until": until,
        "position": sorted(position or []),
    }


def _require_meaning(narrowed: dict[str, Any], *, everything: bool, yes: bool, dry_run: bool) -> None:
    if any(narrowed.values()) == everything:
        which = "--all takes no other selection" if everything else "say which: --reason, --model, ..., or --all"
        raise FatalError(Exit.USAGE, which)
    if yes and dry_run:
        raise FatalError(Exit.USAGE, "--yes and --dry-run: one of them")


def _selection(
    reason: list[str] | None, model: list[str] | None, since: str | None, until: str | None, position: list[str] | None
) -> "Selection":
    from consumer.dead_letters.selection import Selection, parse_time
    from schemas.headers import parse_position
    from schemas.reasons import Reason, RefusedError

    known = [str(each) for each in Reason]
    for code in reason or ():
        if code not in known:
            raise FatalError(Exit.USAGE, f"--reason {printable(code)}: no such reason; there are {', '.join(known)}")
    for each in position or ():
        try:
            parse_position(each.encode(errors="replace"))
        except RefusedError:
            raise FatalError(Exit.USAGE, f"--position {printable(each)}: not topic/partition/offset") from None
    now_ms = int(time.time() * 1000)

    def moment(option: str, given: str | None) -> int | None:
        try:
            return None if given is None else parse_time(given, now_ms)
        except ValueError as error:
            raise FatalError(Exit.USAGE, f"{option} {printable(given or '')}: {error}") from None

    return Selection(
        reasons=tuple(reason or ()),
        models=tuple(model or ()),
        since_ms=moment("--since", since),
        until_ms=moment("--until", until),
        positions=tuple(position or ()),
    )


# replay and discard --------------------------------------------------------------------------------------------------


def _handle(
    config: Path | None, order: "Order", *, yes: bool, dry_run: bool, as_json: bool, delete_records: bool = False
) -> None:
    from consumer.dead_letters.run import Handling
    from consumer.progress import Progress
    from consumer.settings import load

    settings = load(config)
    progress = Progress()
    with _watchdog() as watchdog, Handling(settings, order, writing=yes, watchdog=watchdog) as handling:
        with progress.count("read") as read:
            plan = handling.plan(read)
        before, deleted = handling.done, None
        will_do = _will_do(plan, handling)
        if not as_json:
            _print_plan(plan, handling, order.command, settings, will_do)
        if yes:
            try:
                with progress.count(f"{order.command.state}", before + will_do) as done:
                    handling.carry_out(done)
            except KeyboardInterrupt:
                progress.say(f"{order.command.state} {handling.done}; the same command goes on from there")
                raise
            if delete_records:
                deleted = handling.delete_handled()
        done_now = handling.done - before
    missing = sorted(set(order.selection.positions) - plan.positions)
    if as_json:
        print_json(
            {
                "command": order.command,
                "resumed": handling.resumed is not None,
                "done_before": before,
                "due": will_do,
                "by_reason_and_model": [
                    {"reason": reason, "model": model, "count": count} for (reason, model), count in plan.due.items()
                ],
                "left_alone": {verdict.name.lower().replace("_", "-"): n for verdict, n in plan.left_alone.items()},
                "missing_positions": missing,
                "done": done_now if yes else None,
                "deleted_offsets": deleted.offsets if deleted else 0,
                "kept_by": [
                    {"position": stray.position, "readable": stray.readable}
                    for stray in (deleted.kept_by if deleted else ())
                ],
            }
        )
    elif yes:
        typer.echo(f"{order.command.state} {done_now}")
        if deleted:
            _print_deleted(deleted)
    if missing:
        others = f"; {done_now} others were {order.command.state}" if yes else ""
        raise FatalError(Exit.FAILED, f"no dead letter at {', '.join(missing[:5])}, nor of a job there{others}")
    if not yes and not dry_run:
        raise FatalError(Exit.FAILED, "nothing was done; --yes does it")


def _will_do(plan: "Plan", handling: "Handling") -> int:
    due, room = plan.due.total(), handling.room
    return due if room is None else min(due, room)


def _print_plan(plan: "Plan", handling: "Handling", command: "Command", settings: "Settings", will_do: int) -> None:
    if handling.resumed:
        typer.echo(
            f"goes on with the {command} begun at {when(handling.resumed.began_ms)}: {handling.done} done before, "
            "and what has come since is left out"
        )
    elif handling.no_run:
        typer.echo(
            f"{handling.no_run} is not loadonce's: whether a run was interrupted is not known; this one writes over it"
        )
    elif handling.given_up:
        typer.echo(
            f"a {printable(str(handling.given_up.asked.get('command')))} begun at {when(handling.given_up.began_ms)} "
            f"was not finished ({handling.given_up.done} done); this one takes its place"
        )
    if plan.due:
        rows = sorted(plan.due.items(), key=lambda item: -item[1])
        print_table(("reason", "model", "due"), [(reason, model or "-", f"{n:,}") for (reason, model), n in rows])
    where = f" to {settings.jobs_topic}" if command.value == "replay" else ""
    some = f" ({will_do:,} of them, by --limit)" if will_do < plan.due.total() else ""
    typer.echo(f"to be {command.state}{where}: {plan.due.total():,}{some}")
    for verdict, count in plan.left_alone.most_common():
        typer.echo(f"left alone: {count:,} {verdict}")


def _print_deleted(deleted: "Deleted") -> None:
    typer.echo(f"deleted what took {deleted.offsets} offsets")
    for stray in deleted.kept_by:
        what = "is no dead letter" if stray.readable else "cannot be read"
        typer.echo(
            f"{stray.position} {what}: it stays, and what comes after it; Kafka's kafka-delete-records.sh takes it away"
        )


@contextmanager
def _watchdog() -> Iterator["Watchdog"]:
    from consumer.watchdog import Watchdog

    def bark(why: str) -> None:
        sys.stderr.write(f"loadonce: error: {why}; the same command goes on from there\n")
        sys.stderr.flush()
        os._exit(Exit.STUCK)

    watchdog = Watchdog(time.monotonic, bark)
    try:
        yield watchdog
    finally:
        watchdog.close()
