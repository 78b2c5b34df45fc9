"""What the client makes of the errors of kafka-python.

The errors and log lines are raised here, worded as the client words them: no broker of these tests asks for a login.
"""

import logging
from contextlib import ExitStack

import pytest
from kafka import errors

from consumer.cli.jobs import _explained
from consumer.delivery.tokens import TokenEndpointError
from consumer.exits import Exit, FatalError
from consumer.settings import load
from schemas import AccessRefusedError, BrokerUnavailableError, RecordTooLargeError
from schemas.causes import listening
from schemas.connection import Connection

CONNECTION = Connection.to("auth.sasl-hosts.example:9092", None, 1.0)
TIMEOUT = errors.KafkaTimeoutError("Timed out waiting for a broker")


def raised(error: Exception, logged: Exception | str | None = None) -> Exception:
    """What comes out where the client logs one thing and raises another."""
    with pytest.raises(Exception) as caught, CONNECTION.explained():
        if logged is not None:
            logging.getLogger("kafka.net.manager").error("Connection failed: %s", logged)
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "logged", "remedy"),
    [
        (TIMEOUT, errors.SaslAuthenticationFailedError("invalid credentials"), "check sasl_plain_username"),
        (TIMEOUT, errors.UnsupportedSaslMechanismError("Kafka broker does not support PLAIN"), "check sasl_mechanism"),
        (TIMEOUT, errors.KafkaConnectionError("[SSL] tlsv13 alert certificate required"), "check ssl_certfile"),
        (errors.SaslAuthenticationFailedError(), None, "check sasl_plain_username"),
        (errors.TopicAuthorizationFailedError({"jobs"}), None, "give the user the right"),
        (
            errors.KafkaError("InitProducerId: [Error 31] ClusterAuthorizationFailedError"),
            None,
            "give the user the right",
        ),
        (errors.ClusterAuthorizationFailedError(), "Connection refused", "give the user the right"),
    ],
)
def test_a_refused_client_is_told_so(error: Exception, logged: Exception | str | None, remedy: str) -> None:
    refused = raised(error, logged)

    assert type(refused) is AccessRefusedError
    assert "auth.sasl-hosts.example:9092 refuses this client" in str(refused)
    assert remedy in str(refused)


@pytest.mark.parametrize(
    ("error", "logged", "remedy"),
    [
        (TIMEOUT, None, "check that one runs there"),
        (TIMEOUT, "[Errno 111] Connection refused by auth.sasl-hosts.example:9092", "check that one runs there"),
        (TIMEOUT, "SASL Authentication timed out", "check that one runs there"),
        (
            TIMEOUT,
            "certificate verify failed: unable to get the certificate authority's certificate",
            "check ssl_cafile",
        ),
        (TIMEOUT, "IP address mismatch, certificate is not valid for '127.0.0.1'", "as their certificates do"),
        (TIMEOUT, errors.IllegalSaslStateError(), "wants no login: check security_protocol"),
        (TIMEOUT, errors.InvalidReceiveError("Invalid frame length: 352518912"), "speaks TLS: check security_protocol"),
        (TIMEOUT, "Handshake failed: EOF occurred in violation of protocol", "does not speak TLS"),
        (TIMEOUT, errors.KafkaConnectionError("socket disconnected"), "wants a login"),
        (TIMEOUT, FileNotFoundError(2, "No such file or directory"), "check ssl_cafile, ssl_certfile and ssl_keyfile"),
        (TIMEOUT, TokenEndpointError("LOADONCE_SASL_OAUTH_TOKEN_URL=...: 500"), "check that the token endpoint"),
        (OSError("no route to host"), None, "check that one runs there"),
    ],
)
def test_a_broker_that_is_not_there_refuses_nobody(
    error: Exception, logged: Exception | str | None, remedy: str
) -> None:
    unavailable = raised(error, logged)

    assert type(unavailable) is BrokerUnavailableError
    assert remedy in str(unavailable)


def test_what_tells_most_is_told() -> None:
    log = logging.getLogger("kafka.net.connection")
    with pytest.raises(AccessRefusedError, match=r"\(invalid credentials\)"), CONNECTION.explained():
        log.error("%s: Connection lost: %s", "<it>", errors.KafkaConnectionError("socket disconnected"))
        log.error("%s: Connection lost: %s", "<it>", errors.SaslAuthenticationFailedError("invalid credentials"))
        log.error("%s: Connection lost: %s", "<it>", errors.KafkaConnectionError("socket disconnected"))
        log.error("%s: Connection lost: %s", "<it>", errors.RequestTimedOutError("after 12 ms"))
        raise TIMEOUT


@pytest.mark.parametrize("heard", [True, False])
def test_the_log_is_as_it_was_when_the_last_has_listened(heard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("kafka")
    monkeypatch.setattr(log, "propagate", heard)
    handlers = list(log.handlers)
    with ExitStack() as first:
        first.enter_context(listening())
        with ExitStack() as second:
            second.enter_context(listening())
            first.close()  # as threads overlap, who began first ends first
            assert not log.propagate
    assert log.propagate is heard
    assert log.handlers == handlers


def test_a_record_that_does_not_fit_is_another_matter() -> None:
    assert type(raised(errors.MessageSizeTooLargeError("2 MB"))) is RecordTooLargeError


@pytest.mark.parametrize(
    ("error", "code"), [(AccessRefusedError("no"), Exit.REFUSED), (BrokerUnavailableError("no"), Exit.UNAVAILABLE)]
)
def test_the_commands_end_with_its_exit_code(error: Exception, code: Exit) -> None:
    with pytest.raises(FatalError, match="LOADONCE_BOOTSTRAP_SERVERS") as caught, _explained(load(None)):
        raise error

    assert caught.value.exit_code == code
