"""What the demo does when a process dies that should not."""

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.demo.processes import serving, wait_until_ready
from consumer.local import LocalKafka
from tests.commands import TIMEOUT_S, loadonce

STARTS_A_CONSUMER = """
import json, sys, time
from pathlib import Path
from consumer.demo.processes import serving, wait_until_ready
with serving(1, Path(sys.argv[1]), json.loads(sys.argv[2])) as processes:
    wait_until_ready(processes, 1)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def options(kafka: LocalKafka, tmp_path: Path) -> dict[str, str]:
    """A consumer's options, with topics of its own and a store without models."""
    run = uuid.uuid4().hex[:8]
    store = tmp_path / "models"
    store.mkdir()
    options = {
        "BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBS_TOPIC": f"jobs-{run}",
        "PREDICTIONS_TOPIC": f"predictions-{run}",
        "DEAD_LETTERS_TOPIC": f"dead-letters-{run}",
        "GROUP_ID": run,
        "MODEL_STORE": str(store),
        "HTTP_PORT": "0",
        "LOG_FORMAT": "json",
    }
    done = loadonce("topics", "create", "--partitions", "1", options=options)
    assert done.returncode == 0, done.stderr
    return options


def _ports(folder: Path) -> Iterator[int]:
    for line in (folder / "consumer-1.log").read_text().splitlines():
        if '"http listening"' in line:
            yield json.loads(line)["port"]


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_consumers_are_killed_with_who_started_them(options: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTS_A_CONSUMER, str(tmp_path), json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        [port] = _ports(tmp_path)
        assert _listens(port)
        parent.kill()
    deadline = time.monotonic() + TIMEOUT_S
    while _listens(port):
        assert time.monotonic() < deadline, "the consumer goes on without its parent"


def test_a_consumer_that_dies_says_how(options: dict[str, str], tmp_path: Path) -> None:
    with serving(1, tmp_path, options) as [process]:
        wait_until_ready([process], 1)
        assert process.ended() is None
        process.kill()
        assert process.ended() == f"consumer-1 ended with exit code -9: {_last_line(tmp_path)}"


def _last_line(folder: Path) -> str:
    return (folder / "consumer-1.log").read_text().splitlines()[-1]
