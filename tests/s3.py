"""An S3-compatible server as a process of its own, that can be stopped and started with what it holds.

The process is moto's server, which keeps objects in memory; they are kept in a folder beside it too, and put back
before it listens again. It writes a line for each request, and can be told to leave requests for bytes unanswered.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

BUCKET = "models"
START_S = 60.0
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as the server's process has seen it. `range` is the header's text, or empty."""

    method: str
    path: str
    query: str
    range: str
    sent: int


class S3Server:
    """A bucket called `models` on a port of this machine that stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self._objects = folder / "objects"
        self._objects.mkdir(parents=True)
        self._log = folder / "requests.jsonl"
        self._log.touch()
        self._errors = folder / "errors.txt"
        self._limited = False
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        return self._process.pid if self._process else None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_EC2_METADATA_DISABLED": "true"}

    def start(self, *, answers: int | None = None) -> None:
        """Start with the objects as they are. `answers`: how many requests for a range are answered; others hang."""
        self._limited = answers is not None
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.s3", str(self.port), self._objects, self._log, str(answers)],
                env=os.environ | CREDENTIALS,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._errors.read_text()[-2000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{BUCKET}?list-type=2", timeout=5).close()
                return
            time.sleep(0.05)
        raise AssertionError("the S3 server has not started")

    def stop(self) -> None:
        """Kill it: connections break, nothing listens."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def empty(self) -> None:
        """As it was at first: running, without limits and objects."""
        for path in list(self._objects.iterdir()):
            if self._process is not None and not self._limited:
                self._send("DELETE", _read(path)[0], None)
            path.unlink()
        if self._process is None or self._limited:
            self.stop()
            self.start()

    def put(self, name: str, content: bytes) -> None:
        """Store an object; it survives a restart."""
        self._file(name).write_bytes(name.encode() + b"\0" + content)
        if self._process is not None:
            self._send("PUT", name, content)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._file(name).unlink()
        if self._process is not None:
            self._send("DELETE", name, None)

    def requests(self, since: int = 0) -> list[Request]:
        """The requests so far, from the one of that number on."""
        lines = self._log.read_text().splitlines()[since:]
        return [Request(**json.loads(line)) for line in lines]

    def _file(self, name: str) -> Path:
        return self._objects / sha256(name.encode()).hexdigest()

    def _send(self, method: str, name: str, content: bytes | None) -> None:
        url = f"http://127.0.0.1:{self.port}/{BUCKET}/{quote(name, safe='')}"
        # Any signature will do: without one moto takes the client for somebody from the street.
        headers = {
            "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request",
            "Content-Type": "application/octet-stream",  # urllib's own means a form
        }
        urllib.request.urlopen(
            urllib.request.Request(url, data=content, method=method, headers=headers), timeout=30
        ).close()


def _read(path: Path) -> tuple[str, bytes]:
    name, _, content = path.read_bytes().partition(b"\0")
    return name.decode(), content


def _serve(port: int, objects: Path, log: Path, answers: int | None) -> None:
    import threading

    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import run_simple

    # moto's servers of one process share what they hold: fill it through one that nobody else knows.
    private = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    private.start()
    host, own_port = private.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{own_port}")
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(objects.iterdir()):
        name, content = _read(path)
        client.put_object(Bucket=BUCKET, Key=name, Body=content)
    private.stop()

    application = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()
    left = answers

    def logged(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal left
        wanted = environ.get("HTTP_RANGE", "")
        with lock:
            hang = bool(wanted) and left == 0
            if wanted and left:
                left -= 1
        if hang:
            threading.Event().wait()
        body = b"".join(application(environ, start_response))
        request = Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], wanted, len(body))
        with lock, log.open("a") as file:
            file.write(json.dumps({name: getattr(request, name) for name in Request.__slots__}) + "\n")
        return [body]

    run_simple("127.0.0.1", port, logged, threaded=True)


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A started server that does not outlive the tests."""
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), None if sys.argv[4] == "None" else int(sys.argv[4]))
