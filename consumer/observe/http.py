"""The HTTP endpoint: /livez (the loop moves) and /readyz (jobs are being answered), each with its reasons as JSON."""

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from consumer.exits import Exit, FatalError
from consumer.observe.status import Status

CLOSE_S = 3.0


@contextmanager
def serving(status: Status, host: str, port: int) -> Iterator[int]:
    """Serve on a thread of its own while the context lasts; the port, which is a free one where `port` is 0.

    Raises:
        FatalError: the address is taken or not this machine's (69).
    """
    with _listen(host, port) as listening:
        server = uvicorn.Server(
            uvicorn.Config(_application(status), log_config=None, access_log=False, lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, args=([listening],), name="http", daemon=True)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(CLOSE_S)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            text = f"LOADONCE_HTTP_PORT={port}: {error.strerror} at {host}; port 0 takes any free one"
        else:
            text = f"LOADONCE_HTTP_HOST={host}: {error.strerror}; it must be an address of this machine, or 0.0.0.0"
        raise FatalError(Exit.UNAVAILABLE, text) from None
    return listening


def _application(status: Status) -> Starlette:
    def answer(reasons: Callable[[], list[str]]) -> Callable[[Request], JSONResponse]:
        def endpoint(_request: Request) -> JSONResponse:
            problems, snapshot = reasons(), status.snapshot
            body = {
                "ok": not problems,
                "reasons": problems,
                "phase": snapshot.phase,
                "partitions": list(snapshot.partitions),
            }
            return JSONResponse(body, status_code=503 if problems else 200)

        return endpoint

    return Starlette(
        routes=[
            Route("/livez", answer(status.why_not_live), methods=["GET"]),
            Route("/readyz", answer(status.why_not_ready), methods=["GET"]),
        ]
    )
