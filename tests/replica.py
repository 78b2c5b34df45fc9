"""`loadonce run` as ops run it: a process with its options in the environment, watched from outside."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from consumer.local import LocalKafka
from tests.conftest import Topics
from tests.disk_cache import DISK_CACHE

START_S = 60.0
STOP_S = 40.0


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true value of `condition`; AssertionError naming `what` where none comes in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def options(kafka: LocalKafka, topics: Topics, store: Path, **more: object) -> dict[str, object]:
    """The options of a replica of its own group, on these topics and this store."""
    return {
        "BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBS_TOPIC": topics.jobs,
        "PREDICTIONS_TOPIC": topics.predictions,
        "DEAD_LETTERS_TOPIC": topics.dead_letters,
        "GROUP_ID": topics.jobs,
        "MODEL_STORE": store,
        **more,
    }


class Replica:
    """One consumer process."""

    def __init__(self, log: Path, command: Sequence[str] = ("consumer", "run"), /, **options: object) -> None:
        """`command`: a module and its arguments."""
        self._log = log
        given = {name: value for name, value in os.environ.items() if not name.startswith("LOADONCE_")}
        env = {
            "DISK_CACHE": DISK_CACHE,
            "HTTP_PORT": 0,
            "LOG_FORMAT": "json",
            "STORE_POLL_S": 0.5,
            "LOAD_BACKOFF_S": 0.1,
            "LOAD_BACKOFF_MAX_S": 1,
        }
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=given | {f"LOADONCE_{name}": str(value) for name, value in (env | options).items()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log lines of this process so far, or those of one event."""
        found = []
        for line in self._log.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and name in (None, event.get("event")):
                    found.append(event)
        return found

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON body of a GET; status 0 while nothing listens."""
        listening = self.events("http listening")
        if not listening:
            return 0, None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{listening[-1]['port']}{path}", timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def wait_ready(self) -> "Replica":
        """Wait until it answers jobs."""

        def ready() -> bool:
            assert self.process.poll() is None, self._log.read_text("utf-8", "replace")[-3000:]
            return self.get("/readyz")[0] == 200

        until(ready, START_S, "a ready replica")
        return self

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is committed."""
        self.process.kill()
        self.process.wait(STOP_S)


@contextlib.contextmanager
def replica(log: Path, command: Sequence[str] = ("consumer", "run"), /, **options: object) -> Iterator[Replica]:
    """A replica that does not outlive the test."""
    started = Replica(log, command, **options)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()
