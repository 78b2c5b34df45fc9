"""`loadonce config`: the options as this process would take them."""

from dataclasses import asdict

import typer

from consumer.cli.frame import Config, Json, epilog, print_json, print_table
from consumer.exits import Exit

_CONFIG = {Exit.STORE_MISSING: "the file of --config is not there", Exit.CONFIG: "an option that cannot work"}

app = typer.Typer(
    help="Show and check the options. Strongest first: LOADONCE_* in the environment, .env, the file of --config.",
    epilog=epilog("loadonce config show", "loadonce config check --config loadonce.toml", exits=_CONFIG),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(
    epilog=epilog(
        "loadonce config show",
        "loadonce config show --json | jq '.[] | select(.value != .default)'",
        exits=_CONFIG,
    )
)
def show(config: Config = None, as_json: Json = False) -> None:
    """Show every option with its value and meaning.

    Secrets are masked; what differs from its default is marked with *.
    """
    from consumer.settings import describe, load

    options = describe(load(config))
    if as_json:
        print_json([asdict(option) for option in options])
        return
    print_table(
        ("option", "", "value", "meaning"),
        [
            (option.name, "*" if option.value != option.default else "", option.value, option.description)
            for option in options
        ],
    )


@app.command(epilog=epilog("loadonce config check", "loadonce config check --config loadonce.toml", exits=_CONFIG))
def check(config: Config = None) -> None:
    """Check the options by themselves.

    Neither broker nor store is looked at; the first option that cannot work is named.
    """
    from consumer.settings import load

    load(config)
    typer.echo("the options are good")
