"""kafka-python, imported when it is needed, configured for publishers and readers, its failures told in one line."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from schemas.causes import Kind, Why, listening, one_line
from schemas.errors import AccessRefusedError, BrokerUnavailableError, RecordTooLargeError, TopicMissingError

_SECURITY_PREFIXES = ("security_", "sasl_", "ssl_")
_SHORTEST_TIMEOUT_S = 1.0  # the client refuses a request timeout below its fetch wait of 0.5 s
_BOOTSTRAP_S = 6.0  # a login that is refused is tried again for so long before it is told
_LOOK_MS = 1_000
_REMEDIES = {
    Kind.LOGIN: "check sasl_plain_username and sasl_plain_password, or the token",
    Kind.MECHANISM: "check sasl_mechanism",
    Kind.RIGHTS: "give the user the right",
    Kind.CLIENT_CERTIFICATE: "check ssl_certfile and ssl_keyfile",
    Kind.UNTRUSTED: "check ssl_cafile",
    Kind.OTHER_HOST: "name the brokers as their certificates do",
    Kind.NO_LOGIN_WANTED: "the listener wants no login: check security_protocol",
    Kind.WANTS_TLS: "the listener speaks TLS: check security_protocol",
    Kind.SPEAKS_NO_TLS: "the listener does not speak TLS: check security_protocol",
    Kind.HUNG_UP: "as a listener does that wants a login: check security_protocol",
    Kind.NO_TOKEN: "check that the token endpoint answers",
    Kind.FILE: "check ssl_cafile, ssl_certfile and ssl_keyfile",
    Kind.UNREACHABLE: "check that one runs there, and the security options",
}


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the brokers are and how to talk to them.

    `security` holds kafka-python's own options (`security_protocol`, `sasl_*`, `ssl_*`); `sasl_plain_password` may be
    a function, which is asked at each login. `request_timeout_s` bounds every request; the first connection is given up
    after 6 s at the latest. ValueError: another option, a time limit below 1 s.
    """

    bootstrap_servers: tuple[str, ...]
    security: Mapping[str, Any] = field(repr=False)
    request_timeout_s: float

    @classmethod
    def to(
        cls, bootstrap_servers: str | Sequence[str], security: Mapping[str, Any] | None, request_timeout_s: float
    ) -> "Connection":
        """A connection to `host:port`, comma-separated or as a sequence."""
        servers = bootstrap_servers.split(",") if isinstance(bootstrap_servers, str) else bootstrap_servers
        if unknown := [name for name in security or () if not name.startswith(_SECURITY_PREFIXES)]:
            raise ValueError(f"not a security option: {', '.join(unknown)}; known are security_protocol, sasl_*, ssl_*")
        if request_timeout_s < _SHORTEST_TIMEOUT_S:
            raise ValueError(f"request_timeout_s is {request_timeout_s}; at least {_SHORTEST_TIMEOUT_S} is needed")
        return cls(tuple(servers), dict(security or {}), request_timeout_s)

    def producer(self, max_record_bytes: int) -> Any:
        """A KafkaProducer: idempotent, acknowledged by all replicas. BrokerUnavailableError."""
        with self.explained():
            return kafka().KafkaProducer(
                **self._common(),
                acks="all",
                enable_idempotence=True,
                # A batch that expires inside wedges an idempotent producer; callers have their own time limit.
                delivery_timeout_ms=3_600_000,
                max_block_ms=min(5_000, self._request_timeout_ms),
                # send() refuses what the broker would; a record that the broker refuses ends an idempotent producer.
                max_request_size=max_record_bytes,
                batch_size=min(262_144, max_record_bytes),
                linger_ms=5,
            )

    def consumer(self) -> Any:
        """A KafkaConsumer without a group, which sees what is committed. BrokerUnavailableError."""
        with self.explained():
            consumer = kafka().KafkaConsumer(
                **self._common(),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
            )
        _module("schemas.batches").read_with_care(consumer)
        return consumer

    def require_topic(self, topic: str) -> None:
        """TopicMissingError where the brokers have no topic of that name. BrokerUnavailableError."""
        consumer = self.consumer()
        try:
            self.partitions(consumer, topic)
        finally:
            consumer.close(timeout_ms=self._request_timeout_ms)

    def partitions(self, consumer: Any, topic: str) -> list[Any]:
        """The topic's TopicPartitions as a consumer sees them, which creates no topic. TopicMissingError."""
        with self.explained():
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                # Also where it may not be seen; then this raises, as a rule.
                with suppress(kafka_errors().KafkaTimeoutError):
                    consumer.end_offsets([kafka().TopicPartition(topic, 0)], timeout_ms=_LOOK_MS)
        if not numbers:
            raise TopicMissingError(f"the broker has no topic {topic}; `loadonce topics create` makes it")
        return [kafka().TopicPartition(topic, number) for number in sorted(numbers)]

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the client's errors into this package's, with the cause that only its log knows.

        AccessRefusedError, BrokerUnavailableError, RecordTooLargeError.
        """
        errors = kafka_errors()
        with listening() as cause:
            try:
                yield
            except errors.MessageSizeTooLargeError as error:
                raise RecordTooLargeError(
                    f"the job does not fit a record: {one_line(error)}; send fewer rows"
                ) from None
            except (errors.KafkaError, OSError) as error:
                raise self._unavailable(cause.of(error)) from None

    def _unavailable(self, why: Why) -> BrokerUnavailableError:
        where, remedy = ",".join(self.bootstrap_servers), _REMEDIES[why.kind]
        if why.kind.refused:
            return AccessRefusedError(f"the broker at {where} refuses this client ({why.text}); {remedy}")
        return BrokerUnavailableError(f"no broker serves this at {where} ({why.text}); {remedy}")

    @property
    def _request_timeout_ms(self) -> int:
        return int(self.request_timeout_s * 1000)

    def _common(self) -> dict[str, Any]:
        _module("schemas.logins").prepare_logins()
        return {
            **self.security,
            "bootstrap_servers": list(self.bootstrap_servers),
            "client_id": "loadonce-client",
            "bootstrap_timeout_ms": int(min(self.request_timeout_s, _BOOTSTRAP_S) * 1000),
            "request_timeout_ms": self._request_timeout_ms,
            "reconnect_backoff_max_ms": 1_000,  # 30 s by default: half a minute more after every outage
            "metadata_max_age_ms": 30_000,
            "metrics_enabled": False,
        }


def kafka() -> Any:
    """The module `kafka`. ImportError that says how to get it."""
    return _module("kafka")


def kafka_errors() -> Any:
    """The module `kafka.errors`."""
    return _module("kafka.errors")


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            "the client needs kafka-python 3: pip install 'kafka-python[crc32c,lz4,snappy,zstd]>=3.0.12'"
        ) from error
