"""Ports on the loopback interface."""

import errno
import socket
from contextlib import ExitStack

from consumer.local.errors import LocalKafkaError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Give ports that are free now. They are not held: another process may take one before it is used."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in held]


def check_free(port: int) -> None:
    """Raise `LocalKafkaError` where the port cannot be listened on."""
    if not 0 < port < 65536:
        raise LocalKafkaError(f"port {port} is not a port; name one from 1 to 65535, or none to take a free one")
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LocalKafkaError(
                f"port {port} is taken; stop the program that listens on it, or name another port, "
                "or none to take a free one"
            ) from error
        raise LocalKafkaError(
            f"port {port} cannot be listened on: {error.strerror}; name another port, or none to take a free one"
        ) from error
