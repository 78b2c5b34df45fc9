"""Settings -> kafka-python's configuration, and why a broker cannot be reached.

The numbers are those that hold up against a real broker; each says why it is not the client's default.
"""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    AuthorizationError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
)

from consumer.credentials import SecretFile, no_password
from consumer.delivery.tokens import EndpointTokens, FileTokens
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named
from schemas.causes import Kind, Why, listening
from schemas.logins import prepare_logins

# The client waits this long for a first broker; with a store and its models to look at, a start that cannot succeed
# must still end within 15 s.
BOOTSTRAP_MS = 6_000

TOPICS = ("jobs_topic", "predictions_topic", "dead_letters_topic")
"""The options that name them."""

# Exit code, problem, remedy; {option} stands for its name and value.
_PROBLEMS = {
    Kind.LOGIN: (Exit.REFUSED, "the login is refused", ""),
    Kind.MECHANISM: (Exit.REFUSED, "the broker does not offer this mechanism", "check {sasl_mechanism}"),
    Kind.RIGHTS: (Exit.REFUSED, "this user is not allowed what it needs", "see docs/security.md"),
    Kind.CLIENT_CERTIFICATE: (
        Exit.REFUSED,
        "the broker refuses the client's certificate, or that there is none",
        "check {ssl_certfile} and {ssl_keyfile}",
    ),
    Kind.UNTRUSTED: (Exit.CONFIG, "the broker's certificate is not trusted", "check {ssl_cafile}"),
    Kind.OTHER_HOST: (Exit.CONFIG, "the broker's certificate is for another host", "check {bootstrap_servers}"),
    Kind.NO_LOGIN_WANTED: (Exit.CONFIG, "the listener there wants no login", "check {security_protocol}"),
    Kind.WANTS_TLS: (Exit.CONFIG, "the listener there speaks TLS", "check {security_protocol}"),
    Kind.FILE: (Exit.CONFIG, "a file cannot be used", "check {ssl_cafile}, {ssl_certfile} and {ssl_keyfile}"),
    # As a broker does that dies: an outage must not be taken for a wrong option.
    Kind.SPEAKS_NO_TLS: (Exit.UNAVAILABLE, "the listener there does not speak TLS", "check {security_protocol}"),
    Kind.HUNG_UP: (
        Exit.UNAVAILABLE,
        "the broker hangs up, as a listener does that wants a login",
        "check {security_protocol}",
    ),
    Kind.NO_TOKEN: (
        Exit.UNAVAILABLE,
        "the token endpoint gives no token",
        "check that it answers, {sasl_oauth_token_url} and {ssl_cafile}",
    ),
    Kind.UNREACHABLE: (
        Exit.UNAVAILABLE,
        "no broker answers",
        "check that one runs there, and {security_protocol}",
    ),
}
_LOGIN_REMEDIES = {
    "user": "check {sasl_username}, {sasl_password} and {sasl_mechanism}",
    "endpoint": "check {sasl_oauth_client_id}, {sasl_oauth_client_secret}, {sasl_oauth_scope}, {sasl_oauth_token_url}",
    "file": "check {sasl_oauth_token_file}",
}
_OPTION = re.compile(r"{(\w+)}")


def common(settings: Settings, client_id: str) -> dict[str, Any]:
    """What consumer, producer and admin client share."""
    prepare_logins()
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
        config |= _login(settings)
    if settings.security_protocol.endswith("SSL"):
        # As paths, which the client reads for each connection. It checks the brokers' host names, by default.
        for option in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path = getattr(settings, option)
            config[option] = str(path) if path else None
        config["ssl_password"] = settings.secret("ssl_key_password") or no_password
    return config


def _login(settings: Settings) -> dict[str, Any]:
    """Nothing secret, only whom to ask at each login: the client writes its configuration to its log."""
    login: dict[str, Any] = {"sasl_mechanism": settings.sasl_mechanism}
    if settings.sasl_mechanism != "OAUTHBEARER":
        return login | {
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.secret("sasl_password"),
        }
    if settings.sasl_oauth_token_file is not None:
        named_file = named(settings, "sasl_oauth_token_file")
        return login | {"sasl_oauth_token_provider": FileTokens(SecretFile(settings.sasl_oauth_token_file, named_file))}
    url, client_id = settings.sasl_oauth_token_url, settings.sasl_oauth_client_id
    client_secret = settings.secret("sasl_oauth_client_secret")
    assert url is not None and client_id is not None and client_secret is not None  # noqa: S101 - by Settings
    return login | {
        "sasl_oauth_token_provider": EndpointTokens(
            url,
            client_id=client_id,
            client_secret=client_secret,
            scope=settings.sasl_oauth_scope,
            authorities=settings.ssl_cafile,
            named=named(settings, "sasl_oauth_token_url"),
        )
    }


def for_consumer(settings: Settings, client_id: str) -> dict[str, Any]:
    """Manual commits, cooperative rebalances, transactions respected."""
    return common(settings, client_id) | {
        "group_id": settings.group_id,
        "enable_auto_commit": False,
        "auto_offset_reset": settings.auto_offset_reset,
        # Jobs of aborted transactions are not jobs, and committed() then waits for open transactions.
        "isolation_level": "read_committed",
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "group_instance_id": settings.instance_id,
        "session_timeout_ms": int(settings.session_timeout_s * 1000),
        "heartbeat_interval_ms": int(settings.session_timeout_s * 1000 / 3),
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


def for_transactions(
    settings: Settings, client_id: str, record_limits: Sequence[int], *, name: str, timeout_s: float
) -> dict[str, Any]:
    """As `for_producer`, with transactions that the brokers give up after `timeout_s` seconds.

    `name` is the transactional id: who has it last fences the one before.
    """
    return for_producer(settings, client_id, record_limits) | {
        "transactional_id": name,
        "transaction_timeout_ms": int(timeout_s * 1000),
        "retry_backoff_ms": 10,  # 100 by default, which each transaction waits for at least once
    }


def require_fast_crc() -> None:
    """kafka-python falls back in silence to a checksum in Python, 25 to 60 times slower."""
    if importlib.util.find_spec("crc32c") is None:
        raise FatalError(Exit.SOFTWARE, "the C extension crc32c is missing; install loadonce with its dependencies")


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turn what the client raises while connecting into one line that names the option and the cause.

    Nothing listening, a wrong password and a wrong certificate all look alike to the caller (KafkaTimeoutError); the
    cause is only in the client's log, so the log is listened to. FatalError: 77 where this client is refused, 78 where
    it is certain that an option is wrong, otherwise 69.
    """
    with listening() as cause:
        try:
            yield
        except AuthorizationError as error:
            raise not_allowed(settings, error) from None
        except (KafkaError, OSError, ValueError) as error:
            raise _unavailable(settings, cause.of(error)) from None


def not_allowed(settings: Settings, error: AuthorizationError) -> FatalError:
    """What a right that the user lacks ends the process with (77): one line that names the topic or group."""
    if isinstance(error, TopicAuthorizationFailedError):
        # The client gives the name of one topic, a set of names, or, asked for offsets, none: only jobs' are asked for.
        given = error.args[0] if error.args else ()
        topics = ({given} if isinstance(given, str) else set(given)) or {settings.jobs_topic}
        options = [option for option in TOPICS if getattr(settings, option) in topics]
        which = ", ".join(named(settings, option) for option in options) or f"topic {','.join(sorted(topics))}"
    elif isinstance(error, GroupAuthorizationFailedError):
        which = named(settings, "group_id")
    elif isinstance(error, TransactionalIdAuthorizationFailedError):
        which = f"transactional ids that begin with {named(settings, 'group_id')}"
    else:
        which = named(settings, "bootstrap_servers")
    name = type(error).__name__
    return FatalError(Exit.REFUSED, f"{which}: this user is not allowed what it needs ({name}); see docs/security.md")


def fenced(settings: Settings) -> FatalError:
    """What ends a process whose name another has taken (76)."""
    return FatalError(
        Exit.FENCED,
        f"{named(settings, 'instance_id')}: another process of this name has joined the group; each replica needs a "
        "name of its own",
    )


def _unavailable(settings: Settings, why: Why) -> FatalError:
    exit_code, problem, remedy = _PROBLEMS[why.kind]
    if why.kind is Kind.LOGIN:
        by_token = "file" if settings.sasl_oauth_token_file else "endpoint"
        remedy = _LOGIN_REMEDIES[by_token if settings.sasl_mechanism == "OAUTHBEARER" else "user"]
    check = _OPTION.sub(lambda option: named(settings, _given(settings, option[1])), remedy)
    return FatalError(exit_code, f"{named(settings, 'bootstrap_servers')}: {problem} ({why.text}); {check}")


def _given(settings: Settings, option: str) -> str:
    """The option, or that of its file where the secret is in one."""
    return option if getattr(settings, f"{option}_file", None) is None else f"{option}_file"


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
