"""The command line's frame: help, usage errors, and the one line that ends a failure."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from consumer.cli import main
from tests.commands import TIMEOUT_S, loadonce

COMMANDS = [
    "run",
    "demo",
    "broker",
    "publish",
    "predict",
    "tail",
    "topics create",
    "topics check",
    "models add",
    "models list",
    "models verify",
    "models remove",
    "models alias",
    "dlq list",
    "dlq show",
    "dlq replay",
    "dlq discard",
    "config show",
    "config check",
]
GROUPS = ["", "topics", "models", "dlq", "config"]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


Shown = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, shown: Shown) -> None:
    code, out, err = shown(*command.split(), "--help")

    assert (code, err) == (0, "")
    _, examples, exits = re.split("Examples:|Exit codes:", out)
    assert f"loadonce {command}" in examples
    assert re.search(r"^\s+0 +\S", exits, re.MULTILINE)
    assert re.search(r"^\s+64 +\S", exits, re.MULTILINE)


def test_the_help_names_every_command(shown: Shown) -> None:
    _, top, _ = shown("--help")

    for command in COMMANDS:
        name, *sub = command.split()
        assert re.search(rf"^  {name} ", top, re.MULTILINE), name
        if sub:
            assert re.search(rf"^  {sub[0]} ", shown(name, "--help")[1], re.MULTILINE), command


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_shows_its_help(group: str, shown: Shown) -> None:
    code, out, err = shown(*group.split())

    assert (code, out) == (64, "")
    assert "Commands:" in err
    assert "Exit codes:" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--delivry", "x"], "--delivry"),
        (["serve"], "serve"),
        (["topics", "create", "--partitions", "many"], "--partitions many"),
        (["topics", "create", "--partitions", "0"], "--partitions 0"),
        (["broker", "--nodes", "2"], "--nodes 2"),
        (["publish"], "MODEL"),
        (["models", "add", "digits"], "SOURCE"),
        (["publish", "digits", "--header", "nonsense"], "--header nonsense"),
        (["dlq", "replay", "--yes"], "--all"),
        (["dlq", "replay", "--all", "--model", "wine"], "--all"),
        (["dlq", "discard", "--all", "--yes", "--dry-run"], "--dry-run"),
        (["dlq", "list", "--reason", "boredom"], "boredom"),
        (["dlq", "list", "--since", "yesterday"], "--since yesterday"),
        (["dlq", "replay", "--position", "0/0"], "--position 0/0"),
    ],
)
def test_what_cannot_be_understood_is_one_line_and_64(arguments: list[str], named: str, shown: Shown) -> None:
    code, out, err = shown(*arguments)

    assert (code, out) == (64, "")
    assert err.count("\n") == 1
    assert err.startswith("loadonce: error: ")
    assert named in err


def test_a_process_says_the_same() -> None:
    done = loadonce("run", "--delivry", "x")

    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("loadonce: error: No such option: --delivry ")
    assert done.stderr.count("\n") == 1


def test_version() -> None:
    done = loadonce("--version")

    assert done.returncode == 0
    assert re.fullmatch(r"loadonce \d+\.\d+\.\d+\n", done.stdout)


def test_help_needs_neither_tensorflow_nor_kafka_nor_rich() -> None:
    slow = {"tensorflow", "keras", "kafka", "numpy", "rich"}
    code = (
        f"import sys; from consumer.cli import main; main(['run', '--help']); print(sorted({slow} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_defect_is_one_line_and_70_and_a_traceback_only_for_who_asks(level: str) -> None:
    code = (
        "import sys, consumer.settings as settings; from consumer.cli import main\n"
        "def broken(config): raise RuntimeError('first\\nsecond')\n"
        "settings.load = broken\n"
        "sys.exit(main(['config', 'check']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LOADONCE_LOG_LEVEL": level},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 70
    assert done.stderr.splitlines()[-1].startswith("loadonce: error: unexpected RuntimeError: first second")
    assert ("Traceback" in done.stderr) == (level == "debug")


def test_ctrl_c_is_quiet() -> None:
    code = (
        "import sys, consumer.settings as settings; from consumer.cli import main\n"
        "def interrupted(config): raise KeyboardInterrupt\n"
        "settings.load = interrupted\n"
        "sys.exit(main(['config', 'check']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
