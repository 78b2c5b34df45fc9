"""The HTTP endpoint: /livez (the loop moves) and /readyz (jobs are being answered), each with its reasons as JSON;
/metrics for Prometheus; /models: what is loaded, what could not be; POST /models/refresh: look at the store now."""

import errno
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumer.exits import Exit, FatalError
from consumer.models.events import Snapshot
from consumer.observe.metrics import Metrics
from consumer.observe.status import Status

CLOSE_S = 3.0


@contextmanager
def serving(status: Status, metrics: Metrics, refresh: Callable[[], None], host: str, port: int) -> Iterator[int]:
    """Serve on a thread of its own while the context lasts; the port, which is a free one where `port` is 0.

    `refresh` has the store looked at soon; it is called on any thread and must not block.

    Raises:
        FatalError: the address is taken or not this machine's (69).
    """
    with serving_application(_application(status, metrics, refresh), host, port) as bound:
        yield bound


@contextmanager
def serving_application(application: Starlette, host: str, port: int) -> Iterator[int]:
    """As `serving`, for any application."""
    with _listen(host, port) as listening:
        server = uvicorn.Server(
            uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", ws="none")
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


def _application(status: Status, metrics: Metrics, refresh: Callable[[], None]) -> Starlette:
    def health(reasons: list[str]) -> tuple[dict[str, Any], int]:
        snapshot = status.snapshot
        body = {
            "ok": not reasons,
            "reasons": reasons,
            "phase": snapshot.phase,
            "partitions": list(snapshot.partitions),
        }
        return body, 503 if reasons else 200

    def live(_request: Request) -> Response:
        body, code = health(status.why_not_live())
        return JSONResponse(body, code)

    def ready(_request: Request) -> Response:
        body, code = health(status.why_not_ready())
        return JSONResponse(body | {"degraded": status.degraded()}, code)

    def measured(request: Request) -> Response:
        text, content_type = metrics.text(request.headers.get("accept", ""))
        return Response(text, media_type=None, headers={"content-type": content_type})

    def models(_request: Request) -> Response:
        return JSONResponse(_document(status.models, status.clock()))

    return Starlette(
        routes=[
            Route("/livez", live, methods=["GET"]),
            Route("/readyz", ready, methods=["GET"]),
            Route("/metrics", measured, methods=["GET"]),
            Route("/models", models, methods=["GET"]),
            refresh_route(refresh),
        ]
    )


def refresh_route(refresh: Callable[[], object]) -> Route:
    """POST /models/refresh, which calls `refresh` for whoever is on this machine."""

    def refreshed(request: Request) -> Response:
        if not _is_loopback(request):
            return JSONResponse({"ok": False, "reasons": ["only this machine may ask for that"]}, 403)
        refresh()
        return JSONResponse({"ok": True, "reasons": []}, 202)

    return Route("/models/refresh", refreshed, methods=["POST"])


def _is_loopback(request: Request) -> bool:
    """Whether the peer is this machine; behind a proxy here, whether the one that it speaks for is."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _document(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """The models' snapshot as JSON, by name; `now` is of the clock that its times are of."""
    models: dict[str, dict[str, Any]] = {}

    def entry(key: str) -> dict[str, Any]:
        return models.setdefault(key, {"current": None, "aliases": {}, "versions": [], "failed": []})

    for one in snapshot.models:
        model = entry(one.key)
        if one.current:
            model["current"] = one.version
        model["aliases"].update(dict.fromkeys(one.aliases, one.version))
        model["versions"].append(
            {
                "version": one.version,
                "path": one.path_in_store,
                "format": one.format,
                "bytes": one.nbytes,
                "in_use": one.in_use,
                "pinned": one.pinned,
            }
        )
    for failed in snapshot.failed:
        entry(failed.key)["failed"].append(
            {
                "version": failed.version,
                "reason": failed.failure.reason,
                "message": failed.failure.message,
                "attempts": failed.failure.attempts,
                "permanent": failed.permanent,
                "retry_in_s": None if failed.retry_at is None else round(max(0.0, failed.retry_at - now), 1),
            }
        )
    return {
        "models": models,
        "loading": [{"model": key, "version": version} for key, version in snapshot.loading],
        "waiting_for_room": [{"model": key, "version": version} for key, version in snapshot.waiting_for_room],
        "cache_bytes": snapshot.cache_bytes,
        "store_problems": list(snapshot.problems),
    }
