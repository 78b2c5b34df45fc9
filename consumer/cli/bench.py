"""`loadonce bench`: how fast a model of the store is here."""

from dataclasses import asdict
from typing import Annotated

import typer

from consumer.cli.frame import Config, Json, epilog, print_json
from consumer.cli.latencies import documented, print_latencies, sizes
from consumer.cli.models import EXITS, Name, editing, opening
from consumer.exits import Exit, FatalError

app = typer.Typer(
    help="Measure a model of the store.",
    epilog=epilog("loadonce bench model digits", exits=EXITS),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _bench() -> None:
    """A group, though it has one command."""


@app.command(
    epilog=epilog(
        "loadonce bench model digits",
        "loadonce bench model digits --version 3 --rows 1,16,256 --seconds 10",
        "loadonce bench model digits --json | jq '.latencies[] | [.rows, .rows_per_s]'",
        exits={Exit.FAILED: "the model cannot be served, or takes no zeros"} | EXITS,
    )
)
def model(
    name: Name,
    *,
    version: Annotated[int | None, typer.Option("--version", min=0, help="Otherwise the highest.")] = None,
    rows: Annotated[
        str, typer.Option("--rows", metavar="ROWS,...", help="Batch sizes; otherwise 1,8,32,128,256,1024.")
    ] = "",
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=3600, help="For all sizes together.")] = 6,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print a model's rows per second by batch size.

    It is opened as a consumer opens it and called with zeros, by one caller that calls again at once, without Kafka.
    Sizes that would not fit into what is left of the time are left out.
    """
    import threading

    from consumer.progress import Progress

    given = sizes(rows, "--rows")
    progress = Progress()
    with editing(config) as settings:
        from consumer.models.contents import find
        from consumer.models.engine import EngineError
        from consumer.models.errors import LoadError, StaleError
        from consumer.models.measure import ROWS, measure
        from consumer.stores import store_of

        batch_sizes = given or ROWS
        store = store_of(settings)
        located = find(store, name, version)
        with opening(settings) as opener:
            try:
                with progress.busy(f"opening {located.path_in_store}"):
                    loaded = opener.open(store.fetch(located, threading.Event()), threading.Event())
                latencies = []
                with progress.count("sizes measured", len(batch_sizes)) as done:
                    for latency in measure(loaded, batch_sizes, seconds):
                        latencies.append(latency)
                        done(len(latencies))
                loaded.close()
            except (LoadError, EngineError) as error:
                raise FatalError(Exit.FAILED, f"{name}/{located.version}: {error}") from None
            except StaleError:
                raise FatalError(
                    Exit.FAILED, f"{name}/{located.version}: its files changed while it was opened; try again"
                ) from None
    if as_json:
        print_json(
            {
                "model": name,
                "version": located.version,
                "serving": asdict(loaded.servable.serving),
                "open_seconds": loaded.load_seconds,
                "latencies": [documented(latency) for latency in latencies],
            }
        )
    else:
        print_latencies(latencies)
    if not latencies:
        raise FatalError(Exit.FAILED, f"{name}/{located.version}: cannot be measured: it does not take zeros")
