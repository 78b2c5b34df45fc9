"""Settings -> kafka-python's configuration, and why a broker cannot be reached.

The numbers are those that hold up against a real broker; each says why it is not the client's default.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import AuthorizationError, KafkaError

from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named
from schemas.causes import listening, one_line

# The client waits this long for a first broker; with a store and its models to look at, a start that cannot succeed
# must still end within 15 s.
BOOTSTRAP_MS = 6_000


def common(settings: Settings, client_id: str) -> dict[str, Any]:
    """What consumer, producer and admin client share."""
    config: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": client_id,
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": 1_000,  # 30 s by default: half a minute more after every outage
        "metadata_max_age_ms": 30_000,  # new partitions and topics are seen this late
        "request_timeout_ms": 20_000,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.startswith("SASL"):
        assert settings.sasl_password is not None  # noqa: S101 - Settings refuses it otherwise
        config |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    if settings.security_protocol.endswith("SSL"):
        for option in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path = getattr(settings, option)
            config[option] = str(path) if path else None
    return config


def for_consumer(settings: Settings, client_id: str) -> dict[str, Any]:
    """Manual commits, cooperative rebalances, transactions respected."""
    return common(settings, client_id) | {
        "group_id": settings.group_id,
        "enable_auto_commit": False,
        "auto_offset_reset": settings.auto_offset_reset,
        # Jobs of aborted transactions are not jobs, and committed() then waits for open transactions.
        "isolation_level": "read_committed",
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "session_timeout_ms": 15_000,  # how long a killed replica's partitions stand still
        "heartbeat_interval_ms": 5_000,
        "max_poll_interval_ms": 300_000,
        "max_poll_records": 500,
        "metrics_enabled": False,  # the client's own counters cost time per record and nobody reads them
    }


def for_producer(settings: Settings, client_id: str, record_limits: Sequence[int]) -> dict[str, Any]:
    """Idempotent; nothing expires inside the client: a batch that did would wedge it for good.

    `record_limits` are the max.message.bytes of the topics it writes to.
    """
    return common(settings, client_id) | {
        "acks": "all",
        "enable_idempotence": True,
        "delivery_timeout_ms": 3_600_000,  # the sink has its own, shorter deadline
        "max_block_ms": 5_000,
        # send() then refuses what the broker would: one record that the broker refuses ends an idempotent producer.
        "max_request_size": max(record_limits),
        "batch_size": min(262_144, *record_limits),
        "linger_ms": 5,
        "metrics_enabled": False,
    }


def require_fast_crc() -> None:
    """kafka-python falls back in silence to a checksum in Python, 25 to 60 times slower."""
    if importlib.util.find_spec("crc32c") is None:
        raise FatalError(Exit.SOFTWARE, "the C extension crc32c is missing; install loadonce with its dependencies")


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turn what the client raises while connecting into one line that names the option and the cause.

    Nothing listening, a wrong password and a wrong certificate all look alike to the caller (KafkaTimeoutError); the
    cause is only in the client's log, so the log is listened to.
    """
    where = named(settings, "bootstrap_servers")
    with listening() as cause:
        try:
            yield
        except AuthorizationError as error:
            raise FatalError(Exit.REFUSED, f"{where}: not allowed: {one_line(error)}") from None
        except (KafkaError, OSError, ValueError) as error:
            why = cause.of(error)
            if "auth" in why.lower() or "sasl" in why.lower():
                raise FatalError(
                    Exit.REFUSED,
                    f"{where}: the broker refuses the login ({why}); check {named(settings, 'sasl_username')}, the "
                    f"password and {named(settings, 'sasl_mechanism')}",
                ) from None
            raise FatalError(
                Exit.UNAVAILABLE,
                f"{where}: no broker answers ({why}); check that one runs there, "
                f"and {named(settings, 'security_protocol')}",
            ) from None


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client for a few calls; raises FatalError where no broker can be reached."""
    with explained(settings):
        client = KafkaAdminClient(**common(settings, "loadonce-admin"))
    try:
        with explained(settings):
            yield client
    finally:
        client.close()
