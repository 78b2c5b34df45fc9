"""What the client makes of the errors of kafka-python.

The errors and log lines are raised here, worded as the client words them: no broker of these tests asks for a login.
"""

import logging

import pytest
from kafka import errors

from consumer.cli.jobs import _explained
from consumer.exits import Exit, FatalError
from consumer.settings import load
from schemas import AccessRefusedError, BrokerUnavailableError, RecordTooLargeError
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
    ("error", "logged"),
    [
        (TIMEOUT, errors.SaslAuthenticationFailedError("SaslAuthenticationFailedError: invalid credentials")),
        (TIMEOUT, errors.UnsupportedSaslMechanismError("Kafka broker does not support PLAIN sasl mechanism")),
        (TIMEOUT, errors.IllegalSaslStateError()),
        (TIMEOUT, "SASL Authentication timed out"),
        (errors.SaslAuthenticationFailedError(), None),
        (errors.TopicAuthorizationFailedError({"jobs"}), None),
        (errors.ClusterAuthorizationFailedError(), "Connection refused"),  # an idempotent producer that may not be one
    ],
)
def test_a_refused_client_is_told_so(error: Exception, logged: Exception | str | None) -> None:
    refused = raised(error, logged)

    assert type(refused) is AccessRefusedError
    assert "auth.sasl-hosts.example:9092 refuses this client" in str(refused)
    assert "check user, password" in str(refused)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (TIMEOUT, None),
        (TIMEOUT, "[Errno 111] Connection refused by auth.sasl-hosts.example:9092"),
        (TIMEOUT, "certificate verify failed: unable to get the certificate authority's certificate"),
        (OSError("no route to host"), None),
    ],
)
def test_a_broker_that_is_not_there_refuses_nobody(error: Exception, logged: str | None) -> None:
    assert type(raised(error, logged)) is BrokerUnavailableError


def test_a_record_that_does_not_fit_is_another_matter() -> None:
    assert type(raised(errors.MessageSizeTooLargeError("2 MB"))) is RecordTooLargeError


@pytest.mark.parametrize(
    ("error", "code"), [(AccessRefusedError("no"), Exit.REFUSED), (BrokerUnavailableError("no"), Exit.UNAVAILABLE)]
)
def test_the_commands_end_with_its_exit_code(error: Exception, code: Exit) -> None:
    with pytest.raises(FatalError, match="LOADONCE_BOOTSTRAP_SERVERS") as caught, _explained(load(None)):
        raise error

    assert caught.value.exit_code == code
