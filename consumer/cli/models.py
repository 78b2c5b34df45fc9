"""`loadonce models`: what is in the store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.frame import Config, Json, epilog, print_json, print_table, printable
from consumer.exits import Exit, FatalError

if TYPE_CHECKING:
    from consumer.settings import Settings

_EXITS = {
    Exit.DATA: "what was asked for cannot be done: a name, version, alias or file that does not fit",
    Exit.STORE_MISSING: "the store, or what was named in it, is not there",
    Exit.IO: "the store cannot be read or written",
    Exit.CONFIG: "an option that cannot work",
}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name: the jobs' model-key.")]

app = typer.Typer(
    help="Add, list, check and remove models of the store.",
    epilog=epilog(
        "loadonce models add digits digits.keras",
        "LOADONCE_MODEL_STORE=/models loadonce models list",
        exits=_EXITS,
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    epilog=epilog(
        "loadonce models add digits digits.keras",
        "loadonce models add wine exported/wine --version 7",
        exits=_EXITS,
    )
)
def add(
    name: Name,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A .keras or .h5 file, or a SavedModel's folder.")],
    *,
    version: Annotated[int | None, typer.Option("--version", min=0, help="Otherwise the next one.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a version to the store.

    The model is copied, opened and called once; what can be served then appears, whole, with digests of its files.
    """
    from consumer.progress import Progress

    with _editing(config) as settings:
        from consumer.models.edit import add_version

        with Progress().busy(f"importing TensorFlow, then opening {source}"):
            added = add_version(
                settings.model_store, name, source, version, trusted_h5=frozenset(settings.trusted_h5_models)
            )
    if as_json:
        print_json(asdict(added))
    else:
        typer.echo(f"added {added.path_in_store} ({added.format}, opened in {added.open_seconds:.1f} s)")


@app.command("list", epilog=epilog("loadonce models list", "loadonce models list --json", exits=_EXITS))
def list_(config: Config = None, as_json: Json = False) -> None:
    """List the versions in the store."""
    with _editing(config) as settings:
        from consumer.models.edit import list_models

        listed, problems = list_models(settings.model_store)
    if as_json:
        print_json({"models": [asdict(version) for version in listed], "problems": problems})
        return
    print_table(
        ("model", "version", "format", "bytes", "aliases", "digests", "state"),
        [
            (
                version.key,
                str(version.version),
                version.format,
                f"{version.nbytes:,}",
                ", ".join(version.aliases),
                "yes" if version.has_manifest else "no",
                printable(version.state),
            )
            for version in listed
        ],
    )
    for problem in problems:
        typer.echo(f"problem: {printable(problem)}", err=True)


@app.command(
    epilog=epilog(
        "loadonce models verify",
        "loadonce models verify digits --json",
        exits={Exit.FAILED: "a version cannot be served"} | _EXITS,
    )
)
def verify(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One model; otherwise all.")] = None,
    *,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check digests and open every version."""
    from consumer.progress import Progress

    results = []
    progress = Progress()
    with _editing(config) as settings, progress.count("verified") as done:
        from consumer.models.edit import verify as verify_models

        progress.tell("importing TensorFlow, then opening every version")
        for result in verify_models(settings.model_store, name, trusted_h5=frozenset(settings.trusted_h5_models)):
            results.append(result)
            done(len(results))
    if as_json:
        print_json([asdict(result) for result in results])
    else:
        print_table(
            ("model", "version", "digests", "result"),
            [
                (
                    result.key,
                    str(result.version),
                    "checked" if result.has_digests else "none",
                    printable(result.problem or "can be served"),
                )
                for result in results
            ],
        )
    broken = [result for result in results if result.problem]
    if broken:
        raise FatalError(
            Exit.FAILED,
            f"{len(broken)} of {len(results)} versions cannot be served, first {broken[0].key}/{broken[0].version}: "
            f"{printable(broken[0].problem or '')}",
        )


@app.command(epilog=epilog("loadonce models remove digits 3", exits=_EXITS))
def remove(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=0, help="The version to remove.")],
    *,
    config: Config = None,
) -> None:
    """Remove a version from the store."""
    with _editing(config) as settings:
        from consumer.models.edit import remove_version

        remove_version(settings.model_store, name, version)
    typer.echo(f"removed {name}/{version}")


@app.command(
    epilog=epilog(
        "loadonce models alias digits stable 3",
        "loadonce models alias digits canary --remove",
        exits=_EXITS,
    )
)
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="What jobs may write for a version.")],
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", min=0, help="The version that it stands for.")
    ] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the alias.")] = False,
    config: Config = None,
) -> None:
    """Set or remove an alias of a version."""
    if remove == (version is not None):
        raise FatalError(Exit.USAGE, f"alias {printable(alias)}: a VERSION or --remove is needed, and not both")
    with _editing(config) as settings:
        from consumer.models.edit import remove_alias, set_alias

        if version is None:
            remove_alias(settings.model_store, name, alias)
        else:
            set_alias(settings.model_store, name, alias, version)
    typer.echo(f"{name}: {alias} removed" if version is None else f"{name}: {alias} is version {version}")


@contextmanager
def _editing(config: Path | None) -> Iterator["Settings"]:
    """The settings, and the editor's errors as exit codes."""
    from consumer.settings import load, named

    settings = load(config)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks about the machine's hardware
    from consumer.models.edit import EditError, NotInStoreError

    try:
        yield settings
    except NotInStoreError as error:
        store = "" if settings.model_store.is_dir() else f"{named(settings, 'model_store')}: "
        raise FatalError(Exit.STORE_MISSING, store + str(error)) from None
    except EditError as error:
        raise FatalError(Exit.DATA, str(error)) from None
    except OSError as error:
        where = error.filename or settings.model_store
        raise FatalError(Exit.IO, f"{where}: {error.strerror or error}") from None
