"""What the commands share: common options, examples and exit codes below each help, and how data is printed."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from consumer.exits import Exit

MEANING = {
    Exit.OK: "done",
    Exit.FAILED: "it ran, and the answer is no",
    Exit.USAGE: "the command line cannot be understood",
    Exit.DATA: "a file or standard input holds what cannot be a job or a model",
    Exit.STORE_MISSING: "the model store, or an input file, is not there",
    Exit.UNAVAILABLE: "broker, topic or port not available",
    Exit.SOFTWARE: "a defect of loadonce",
    Exit.STUCK: "a Kafka call or a model that does not return: the process has ended itself",
    Exit.IO: "reading or writing a file failed",
    Exit.TEMPORARY: "no answer within the time limit",
    Exit.FENCED: "another process has taken this one's place: same LOADONCE_INSTANCE_ID",
    Exit.REFUSED: "the broker refuses: authentication or authorization",
    Exit.CONFIG: "an option or a preloaded model that cannot work",
}

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file of options; LOADONCE_* in the environment is stronger."),
]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]


def epilog(*examples: str, exits: Mapping[Exit, str]) -> str:
    """Examples and exit codes for the end of a help page; an empty meaning stands for the usual one."""
    codes = {Exit.OK: "", Exit.USAGE: "", **exits}
    lines = [f"  {code.value:<3} {codes[code] or MEANING[code]}" for code in sorted(codes)]
    # \b keeps a paragraph's lines as they are.
    return "\n".join(["\b", "Examples:", *(f"  {example}" for example in examples), "", "\b", "Exit codes:", *lines])


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"loadonce {version('loadonce')}\n")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


def printable(text: str, *, keep: str = "") -> str:
    """Text from a topic for a terminal: control characters, with which it could write elsewhere, become `?`."""
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)


def print_json(value: Any) -> None:
    """One JSON document on standard output, indented on a terminal; ASCII, without control codes."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output; away from a terminal its rows are not wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        wide = console.options.update(max_width=10_000)
        console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
