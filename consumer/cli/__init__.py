"""The command line: thin commands that parse, call and print. What they need is imported when they run, so that
`--help` answers at once."""

import os
import shlex
import sys
import traceback
from collections.abc import Sequence

import typer

from consumer.cli import bench, config, dlq, jobs, models, serve, topics
from consumer.cli.frame import Version, epilog
from consumer.exits import Exit, FatalError

# Plain help: it can be read top to bottom and in a pipe, and appears in half the time of the framed one.
app = typer.Typer(
    help="Serve TensorFlow models from a Kafka topic, every model loaded once.\n\n"
    "while running: poll -> decode -> route -> batch -> predict -> publish -> commit",
    epilog=epilog(
        "loadonce demo",
        "loadonce broker",
        "loadonce models add digits digits.keras",
        "LOADONCE_PRELOAD=digits loadonce run",
        exits=dict.fromkeys(Exit, ""),
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (serve, jobs):
    group.register(app)
app.add_typer(topics.app, name="topics")
app.add_typer(models.app, name="models")
app.add_typer(dlq.app, name="dlq")
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")


@app.callback()
def _loadonce(version: Version = False) -> None:
    """The options before the command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code. Whatever ends it early is one last line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return int(app(given, prog_name="loadonce", standalone_mode=False) or Exit.OK)
    except FatalError as error:
        return _fail(error.exit_code, str(error))
    except typer.TyperException as error:
        return _misused(error, given)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - the last line of defence: a defect ends in one line as well
        if os.environ.get("LOADONCE_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        return _fail(
            Exit.SOFTWARE,
            f"unexpected {type(error).__name__}: {error} (a defect; LOADONCE_LOG_LEVEL=debug shows where)",
        )


def _misused(error: typer.TyperException, arguments: Sequence[str]) -> int:
    message = error.format_message()
    if message.startswith("Usage:"):  # a group without a command: its help is the answer
        sys.stderr.write(message + "\n")
        return Exit.USAGE
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "loadonce"
    given = shlex.join(arguments)[:200]  # the message names the option, but not always the value
    return _fail(Exit.USAGE, f"{message.rstrip('.')} (given: {given}; see {command} --help)")


def _fail(code: int, message: str) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"loadonce: error: {' '.join(message.split())}\n")
    return int(code)
