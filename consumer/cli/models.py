"""`loadonce models`: what is in the store."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from consumer.cli.frame import Config, Json, epilog, print_json, print_table, printable
from consumer.cli.latencies import documented, print_latencies, sizes
from consumer.exits import Exit, FatalError

if TYPE_CHECKING:
    from consumer.models.opening import Opener
    from consumer.settings import Settings

EXITS = {
    Exit.DATA: "what was asked for cannot be done: a name, version, alias or file that does not fit",
    Exit.STORE_MISSING: "the store, or what was named in it, is not there",
    Exit.IO: "the store cannot be read or written",
    Exit.CONFIG: "an option that cannot work",
}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name: the jobs' model-key.")]

_KEY_HELP = "PEM file of the ed25519 private key to sign the manifest with."
_CLOSE_S = 5.0

app = typer.Typer(
    help="Add, list, check, sign and remove models of the store.",
    epilog=epilog(
        "loadonce models add digits digits.keras",
        "LOADONCE_MODEL_STORE=/models loadonce models list",
        exits=EXITS,
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    epilog=epilog(
        "loadonce models add digits digits.keras",
        "loadonce models add wine exported/wine --version 7",
        "loadonce models add digits digits.keras --jit-compile --buckets 8,32,128",
        "loadonce models add digits digits.keras --key private.pem",
        exits=EXITS,
    )
)
def add(
    name: Name,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A .keras or .h5 file, or a SavedModel's folder.")],
    *,
    version: Annotated[int | None, typer.Option("--version", min=0, help="Otherwise the next one.")] = None,
    jit_compile: Annotated[
        bool | None,
        typer.Option("--jit-compile/--no-jit-compile", help="Let XLA compile it (wants --buckets), or not."),
    ] = None,
    mixed_precision: Annotated[
        Literal["none", "bfloat16", "float16"] | None,
        typer.Option("--mixed-precision", help="Compute float32 with less precision: faster where the hardware can."),
    ] = None,
    buckets: Annotated[
        str, typer.Option("--buckets", metavar="ROWS,...", help="Batches are padded to the next of these sizes.")
    ] = "",
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help=_KEY_HELP)] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Add a version to the store.

    The model is copied, opened in a process of its own, called, and measured by batch size; what can be served then
    appears, whole, with a manifest: digests of its files, what it takes and gives, and how it is to be warmed up.
    """
    from consumer.progress import Progress

    rows = sizes(buckets, "--buckets")
    progress = Progress()
    with editing(config) as settings:
        from consumer.models.edit import add_version

        private_key = _private_key(key) if key else None
        # What has no manifest yet, and no signature, is what is added.
        with opening(settings, require_manifest=False, public_key=None) as opener:
            added = add_version(
                _folder(settings),
                name,
                source,
                version,
                opener=opener,
                batch_buckets=rows,
                jit_compile=jit_compile,
                mixed_precision=mixed_precision,
                private_key=private_key,
                told=progress.tell,
            )
        unsigned = settings.manifest_public_key is not None and not added.signed
    if as_json:
        print_json(asdict(added) | {"latencies": [documented(latency) for latency in added.latencies]})
    else:
        signed = ", signed" if added.signed else ""
        typer.echo(f"added {added.path_in_store} ({added.format}, opened in {added.open_seconds:.1f} s{signed})")
        print_latencies(added.latencies)
    if unsigned:
        typer.echo(
            f"{name}/{added.version} is not served before it is signed: loadonce models sign {name} {added.version}",
            err=True,
        )


@app.command("list", epilog=epilog("loadonce models list", "loadonce models list --json", exits=EXITS))
def list_(config: Config = None, as_json: Json = False) -> None:
    """List the versions in the store, and which of them are served and why.

    If a consumer answers at LOADONCE_HTTP_HOST and LOADONCE_HTTP_PORT: what it has loaded, too.
    """
    from consumer.cli.running import Running, running

    with editing(config) as settings:
        from consumer.models.contents import list_models
        from consumer.stores import store_of

        listed, problems = list_models(store_of(settings), settings.policies)
        answered = running(settings)
    found = answered or Running()
    states = {
        (each.key, each.version): found.failed.get((each.key, each.version))
        or found.loaded.get((each.key, each.version))
        for each in listed
    }
    if as_json:
        models = [asdict(each) | {"running": states[each.key, each.version]} for each in listed]
        print_json({"models": models, "problems": problems, "consumer_answers": answered is not None})
        return
    print_table(
        ("model", "version", "format", "bytes", "aliases", "content", "manifest", "served", "state")
        + (("running",) if answered else ()),
        [
            (
                each.key,
                str(each.version),
                each.format,
                f"{each.nbytes:,}",
                ", ".join(each.aliases),
                (each.content or "")[:12],
                "signed" if each.is_signed else "yes" if each.has_manifest else "no",
                each.served,
                printable(each.state),
                *((printable(states[each.key, each.version] or ""),) if answered else ()),
            )
            for each in listed
        ],
    )
    for problem in problems:
        typer.echo(f"problem: {printable(problem)}", err=True)


@app.command(
    epilog=epilog(
        "loadonce models verify",
        "loadonce models verify digits --json",
        exits={Exit.FAILED: "a version cannot be served"} | EXITS,
    )
)
def verify(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One model; otherwise all.")] = None,
    *,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check digests and signatures, and open every version in a process of its own."""
    from consumer.progress import Progress

    results = []
    progress = Progress()
    with editing(config) as settings, progress.count("verified") as done:
        from consumer.models.contents import verify as verify_models
        from consumer.stores import public_key, store_of

        progress.tell("opening every version")
        with opening(settings) as opener:
            for result in verify_models(store_of(settings), name, opener=opener, public_key=public_key(settings)):
                results.append(result)
                done(len(results))
    if as_json:
        print_json([asdict(result) for result in results])
    else:
        print_table(
            ("model", "version", "digests", "signature", "result"),
            [
                (
                    result.key,
                    str(result.version),
                    "checked" if result.has_digests else "none",
                    result.signature,
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


@app.command(
    epilog=epilog(
        "openssl genpkey -algorithm ed25519 -out private.pem",
        "openssl pkey -in private.pem -pubout -out public.pem",
        "loadonce models sign digits 3 --key private.pem",
        "LOADONCE_MANIFEST_PUBLIC_KEY=public.pem loadonce models verify digits",
        exits=EXITS,
    )
)
def sign(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", min=0, help="The version to sign; otherwise the highest.")
    ] = None,
    *,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help=_KEY_HELP)],
    config: Config = None,
) -> None:
    """Sign the manifest of a version, if its files are as it says.

    With LOADONCE_MANIFEST_PUBLIC_KEY nothing else is opened than what its private key has signed.
    """
    with editing(config) as settings:
        from consumer.models.edit import sign_version

        private_key = _private_key(key)
        signed = sign_version(_folder(settings), name, version, private_key)
    typer.echo(f"signed {signed.key}/{signed.version} (content {signed.content[:12]})")


@app.command(epilog=epilog("loadonce models remove digits 3", exits=EXITS))
def remove(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=0, help="The version to remove.")],
    *,
    config: Config = None,
) -> None:
    """Remove a version from the store."""
    with editing(config) as settings:
        from consumer.models.edit import remove_version

        remove_version(_folder(settings), name, version)
    typer.echo(f"removed {name}/{version}")


@app.command(
    epilog=epilog(
        "loadonce models alias digits stable 3",
        "loadonce models alias digits canary --remove",
        exits=EXITS,
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
    with editing(config) as settings:
        from consumer.models.edit import remove_alias, set_alias

        if version is None:
            remove_alias(_folder(settings), name, alias)
        else:
            set_alias(_folder(settings), name, alias, version)
    typer.echo(f"{name}: {alias} removed" if version is None else f"{name}: {alias} is version {version}")


@contextmanager
def editing(config: Path | None) -> Iterator["Settings"]:
    """The settings; errors as exit codes, and nothing half done left behind by SIGTERM."""
    from consumer.settings import load, named

    settings = load(config)
    from consumer.models.contents import EditError, NotInStoreError

    try:
        with _unwound_by_sigterm():
            yield settings
    except NotInStoreError as error:
        store = settings.model_store
        there = not isinstance(store, Path) or store.is_dir()
        raise FatalError(
            Exit.STORE_MISSING, str(error) if there else f"{named(settings, 'model_store')}: {error}"
        ) from None
    except EditError as error:
        raise FatalError(Exit.DATA, str(error)) from None
    except OSError as error:
        where = error.filename or settings.model_store
        raise FatalError(Exit.IO, f"{where}: {error.strerror or error}") from None


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """SIGTERM takes back what was begun, as Ctrl-C does; a second one ends the process at once."""

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)  # what a shell says of a process that the signal has ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _folder(settings: "Settings") -> Path:
    """The store, where it is a folder."""
    if not isinstance(settings.model_store, Path):
        raise FatalError(
            Exit.DATA,
            "LOADONCE_MODEL_STORE is a URL, and only a store that is a folder can be changed: change a folder, and "
            "copy it there with the provider's own tools",
        )
    return settings.model_store


def _private_key(file: Path) -> bytes:
    from consumer.models.trust import KeyFileError, load_private_key

    try:
        return load_private_key(file)
    except KeyFileError as error:
        raise FatalError(Exit.DATA, f"--key: {error}") from None
    except FileNotFoundError:
        raise FatalError(Exit.STORE_MISSING, f"--key {file}: no such file") from None


@contextmanager
def opening(settings: "Settings", **change: Any) -> Iterator["Opener"]:
    """What opens versions here, however large: another process may have room for what this one's options have not."""
    from consumer.stores import open_options, opener_of

    opener = opener_of(settings, replace(open_options(settings), max_bytes=sys.maxsize, **change))
    try:
        yield opener
    finally:
        opener.close(_CLOSE_S)
