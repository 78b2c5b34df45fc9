"""`loadonce topics`: the three topics."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.frame import Config, Json, epilog, print_json, print_table
from consumer.exits import Exit

if TYPE_CHECKING:
    from consumer.delivery.topics import Topics

_BROKER = {Exit.UNAVAILABLE: "", Exit.REFUSED: "", Exit.CONFIG: ""}

app = typer.Typer(
    help="Create and check the topics of jobs, predictions and dead letters.",
    epilog=epilog("loadonce topics create", "loadonce topics check", exits=_BROKER),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    epilog=epilog(
        "loadonce topics create",
        "loadonce topics create --partitions 12 --replication-factor 3",
        exits=_BROKER,
    )
)
def create(
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, max=10_000, help="Partitions of each topic that is created.")
    ] = 4,
    replication_factor: Annotated[
        int | None,
        typer.Option("--replication-factor", min=1, max=32_767, help="Copies of each; otherwise the broker's default."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Create the topics that are missing.

    Those that exist stay as they are.
    """
    from consumer.delivery.topics import check_topics, create_topics
    from consumer.settings import load

    settings = load(config)
    created = create_topics(settings, partitions=partitions, replication_factor=replication_factor or -1)
    _print(check_topics(settings), created, as_json=as_json)


@app.command(
    epilog=epilog(
        "loadonce topics check",
        "LOADONCE_BOOTSTRAP_SERVERS=kafka:9092 loadonce topics check --json",
        exits=_BROKER | {Exit.UNAVAILABLE: "the broker does not answer, or a topic is missing"},
    )
)
def check(config: Config = None, as_json: Json = False) -> None:
    """Check that broker and topics are there."""
    from consumer.delivery.topics import check_topics
    from consumer.settings import load

    _print(check_topics(load(config)), [], as_json=as_json)


def _print(topics: "Topics", created: list[str], *, as_json: bool) -> None:
    found = {role: topic | {"created": topic["name"] in created} for role, topic in asdict(topics).items()}
    if as_json:
        print_json(found)
        return
    print_table(
        ("role", "topic", "partitions", "copies", "record limit", ""),
        [
            (
                role.replace("_", " "),
                topic["name"],
                str(topic["partitions"]),
                str(topic["replication_factor"]),
                f"{topic['record_limit']:,} bytes",
                "created" if topic["created"] else "",
            )
            for role, topic in found.items()
        ],
    )
