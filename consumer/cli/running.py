"""What a consumer on this machine says that it has loaded: GET /models."""

import http.client
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.settings import Settings

TIMEOUT_S = 2.0
_BYTES = 16 * 1024**2
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to where somebody listens at all


@dataclass(frozen=True, slots=True)
class Running:
    """By model and version: `current`, or `loaded`, and why what failed did."""

    loaded: dict[tuple[str, int], str] = field(default_factory=dict)
    failed: dict[tuple[str, int], str] = field(default_factory=dict)


def running(settings: "Settings") -> Running | None:
    """Ask at HTTP_HOST and HTTP_PORT; None: nobody answers there who can be understood."""
    if settings.http_port == 0:
        return None
    host = _ANY.get(settings.http_host, settings.http_host)
    connection = http.client.HTTPConnection(host, settings.http_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/models")
        response = connection.getresponse()
        text = response.read(_BYTES)
        return _read(json.loads(text)) if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None  # another program may have the port
    finally:
        connection.close()


def _read(document: Any) -> Running:
    found = Running()
    for key, model in document["models"].items():
        for one in model["versions"]:
            state = "current" if one["version"] == model["current"] else "loaded"
            found.loaded[key, int(one["version"])] = state
        for one in model["failed"]:
            found.failed[key, int(one["version"])] = f"failed: {one['reason']}: {one['message']}"
    return found
