"""Two things about logins that kafka-python 3.0 does not do by itself.

Passwords that change: `sasl_plain_password` may be a function, asked at each login. This rests on the client making an
object of the mechanism for each login (`KafkaConnection._sasl_authenticate`), out of what `register_sasl_mechanism`,
which it exports, has been given. Certificates need nothing: `KafkaSSLTransport` reads `ssl_cafile`, `ssl_certfile` and
`ssl_keyfile` for each connection. An OAUTHBEARER token comes from an object of the caller's, asked at each login.

The broker's last words: it answers a login that it refuses and hangs up. Where both arrive in one read, the client
throws the answer away and says "socket disconnected", so that a wrong password is told from a dead broker only by
luck. `_sock_recv` of its transports gives what was read and the error, and is made to keep the error for the next read.
"""

from collections.abc import Callable
from typing import Any

from kafka.net.sasl import get_sasl_mechanism, register_sasl_mechanism
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_done = False


def prepare_logins() -> None:
    """Teach this process's kafka-python both. Once is enough; more often does no harm."""
    global _done  # noqa: PLW0603 - what is taught is global as well
    if _done:
        return
    _done = True
    for name in _MECHANISMS:
        register_sasl_mechanism(name, _asking(get_sasl_mechanism(name)), overwrite=True)
    for transport in (KafkaTCPTransport, KafkaSSLTransport):
        transport._sock_recv = _first_what_was_read(transport._sock_recv)


def _asking(mechanism: Callable[..., Any]) -> Callable[..., Any]:
    def log_in(**config: Any) -> Any:
        password = config.get("sasl_plain_password")
        return mechanism(**config | {"sasl_plain_password": password() if callable(password) else password})

    return log_in


def _first_what_was_read(receive: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(transport: Any) -> Any:
        data, error = receive(transport)
        return (data, None) if data else (data, error)

    return read
