"""Why a client does not get to its brokers, which kafka-python tells its log and nobody else.

Nothing listening, a wrong password and a wrong certificate all raise the same KafkaTimeoutError. What its log says of
each connection that failed is listened to, and sorted here once for the consumer and for the publishers' client.
"""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto

CAUSE_CHARS = 160


class Kind(Enum):
    """What there is to be done about it."""

    LOGIN = auto()  # user, password or token are refused
    MECHANISM = auto()  # the listener does not offer the SASL mechanism
    RIGHTS = auto()  # known, and not allowed
    CLIENT_CERTIFICATE = auto()  # the broker wants a certificate of the client, or another one
    UNTRUSTED = auto()  # the broker's certificate is signed by nobody who is trusted here, or has expired
    OTHER_HOST = auto()  # the broker's certificate is for another host
    NO_LOGIN_WANTED = auto()  # the listener is not a SASL listener
    WANTS_TLS = auto()  # the listener speaks TLS, the client does not
    SPEAKS_NO_TLS = auto()  # the other way round
    HUNG_UP = auto()  # without a word, which a listener that wants a login also does where none is tried
    NO_TOKEN = auto()  # who gives the tokens for OAUTHBEARER does not answer, or gives none
    FILE = auto()  # a file of the client cannot be used
    UNREACHABLE = auto()

    @property
    def refused(self) -> bool:
        """Whether the broker has understood this client and refuses it."""
        return self in _REFUSED


@dataclass(frozen=True, slots=True)
class Why:
    """A kind of failure, and in one short line what the client said of it."""

    kind: Kind
    text: str


_REFUSED = frozenset({Kind.LOGIN, Kind.MECHANISM, Kind.RIGHTS, Kind.CLIENT_CERTIFICATE})
_VAGUE = (Kind.UNREACHABLE, Kind.SPEAKS_NO_TLS, Kind.HUNG_UP)

# Exceptions by name: this module comes without the client and the consumer.
_BY_NAME = {
    "SaslAuthenticationFailedError": Kind.LOGIN,
    "UnsupportedSaslMechanismError": Kind.MECHANISM,
    "AuthorizationError": Kind.RIGHTS,
    "TokenEndpointError": Kind.NO_TOKEN,  # the consumer's
    "IllegalSaslStateError": Kind.NO_LOGIN_WANTED,
}
# TLS failures reach the client's errors as OpenSSL's and Python's words alone. The frame length is what a TLS alert
# (RFC 8446, 5.1: type 21, version 3.x) is taken for by a client that expects Kafka's four bytes of size.
_BY_TEXT = (
    (re.compile("AuthorizationFailedError"), Kind.RIGHTS),  # of an idempotent producer, in a plain KafkaError
    (re.compile("mismatch, certificate is not valid for", re.IGNORECASE), Kind.OTHER_HOST),
    (re.compile("CERTIFICATE_VERIFY_FAILED|certificate verify failed", re.IGNORECASE), Kind.UNTRUSTED),
    (
        re.compile("alert (certificate|unknown ca|bad certificate|unsupported certificate|access denied)"),
        Kind.CLIENT_CERTIFICATE,
    ),
    (re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|Handshake failed: .*EOF"), Kind.SPEAKS_NO_TLS),
    (re.compile("Invalid frame length: 35251[89][0-9]{3}"), Kind.WANTS_TLS),
    (re.compile("socket disconnected"), Kind.HUNG_UP),
)
_TOLD = re.compile("Connection (?:failed|lost): ")
_NAMES = re.compile(r"^(?:(?:\[Error \d+\] )?\w+Error: )*")  # which the client puts before what there is to say


class Cause(logging.Handler):
    """What the client's log says of connections that failed: the last of what is most telling."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._why: Why | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a line about a failed connection says, but for an echo that says less than the line before."""
        message = record.getMessage()
        told = _TOLD.search(message)
        if told is None:
            return
        errors = [each for each in record.args or () if isinstance(each, BaseException)]
        text = _said(message[told.end() :])
        error = errors[-1] if errors else None
        if type(error).__name__ == "RequestTimedOutError" and self._why:
            return  # the last try is cut off by the end of the time that was given
        # What the client cannot read from its own files comes as it is; what sockets raise, it wraps.
        kind = Kind.FILE if isinstance(error, OSError) else _kind(error, text)
        if self._why is None or _telling(kind) >= _telling(self._why.kind):
            self._why = Why(kind, text)

    def of(self, error: BaseException) -> Why:
        """The cause of what was raised: what the log said, or else the error itself."""
        kind = _kind(error, str(error))
        text = one_line(error) if kind is Kind.RIGHTS else _said(str(error)) or type(error).__name__
        return Why(kind, text) if self._why is None or kind not in _VAGUE else self._why


class _Aside:
    """Keeps the client's log from the host's handlers while somebody listens to it; several threads may at once."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("kafka")
        self._lock = threading.Lock()
        self._listeners = 0
        self._heard = True

    def join(self, listener: logging.Handler) -> None:
        with self._lock:
            if not self._listeners:
                self._heard, self._logger.propagate = self._logger.propagate, False
            self._listeners += 1
            self._logger.addHandler(listener)

    def leave(self, listener: logging.Handler) -> None:
        with self._lock:
            self._logger.removeHandler(listener)
            self._listeners -= 1
            if not self._listeners:
                self._logger.propagate = self._heard


_aside = _Aside()


@contextmanager
def listening() -> Iterator[Cause]:
    """Listen to the client's log while connections are made or used; nobody else hears it meanwhile.

    The client logs every try of a connection that fails; what is raised in the end says it once.
    """
    cause = Cause()
    _aside.join(cause)
    try:
        yield cause
    finally:
        _aside.leave(cause)


def one_line(text: object) -> str:
    """At most CAUSE_CHARS printable characters."""
    line = "".join(character if character.isprintable() else " " for character in str(text))
    return line if len(line) <= CAUSE_CHARS else line[: CAUSE_CHARS - 3] + "..."


def _said(text: str) -> str:
    return one_line(_NAMES.sub("", text, count=1))


def _kind(error: BaseException | None, text: str) -> Kind:
    for each in type(error).__mro__:
        if each.__name__ in _BY_NAME:
            return _BY_NAME[each.__name__]
    return next((kind for words, kind in _BY_TEXT if words.search(text)), Kind.UNREACHABLE)


def _telling(kind: Kind) -> int:
    return _VAGUE.index(kind) if kind in _VAGUE else len(_VAGUE)
