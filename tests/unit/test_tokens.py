"""Tokens for OAUTHBEARER, from a file and from an endpoint over HTTPS."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, SaslAuthenticationFailedError

from consumer.delivery import tokens
from consumer.delivery.connection import explained
from consumer.delivery.tokens import EndpointTokens, FileTokens
from consumer.exits import Exit, FatalError
from consumer.settings import Settings
from tests.authority import Authority
from tests.token_endpoint import Endpoint, Issuer, token_endpoint

SECRET = "s3cret /:+é"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def endpoint(authority: Authority, tmp_path: Path) -> Iterator[Endpoint]:
    with token_endpoint(Issuer(tmp_path / "keys"), authority.issue("endpoint"), {"robot:1": SECRET}) as served:
        yield served


def ask(
    url: str,
    authority: Authority | None,
    secret: str = SECRET,
    clock: Callable[[], float] = time.monotonic,
) -> EndpointTokens:
    return EndpointTokens(
        url,
        client_id="robot:1",
        client_secret=lambda: secret,
        scope="jobs",
        authorities=authority.file if authority else None,
        named="LOADONCE_SASL_OAUTH_TOKEN_URL=...",
        clock=clock,
    )


def test_a_token_is_used_again_while_it_is_fresh(endpoint: Endpoint, authority: Authority) -> None:
    now = 1_000.0
    provider = ask(endpoint.url, authority, clock=lambda: now)
    first = provider.token()
    now += 0.79 * endpoint.life_s
    assert provider.token() == first
    assert endpoint.asked == [{"grant_type": ["client_credentials"], "scope": ["jobs"]}]
    now += 0.02 * endpoint.life_s
    provider.token()
    assert len(endpoint.asked) == 2


def test_a_token_that_is_not_fresh_serves_while_no_other_can_be_had(endpoint: Endpoint, authority: Authority) -> None:
    now = 1_000.0
    provider = ask(endpoint.url, authority, clock=lambda: now)
    first = provider.token()
    endpoint.answer = 503, b""
    now += 0.9 * endpoint.life_s
    assert provider.token() == first
    now += 0.2 * endpoint.life_s
    with pytest.raises(KafkaConnectionError, match="503"):
        provider.token()


def test_a_client_that_is_refused_is_told_so(endpoint: Endpoint, authority: Authority) -> None:
    with pytest.raises(SaslAuthenticationFailedError, match=r": 401 invalid_client$"):
        ask(endpoint.url, authority, "wrong").token()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"access_token": 5}',
        b'{"access_token": ""}',
        b'{"access_token": "hunter2\\u0001auth=x"}',
        b'{"access_token": "hunter2", "expires_in": "never"}',
        b'{"access_token": "hunter2", "expires_in": -1}',
        b'{"access_token": "hunter2", "expires_in": NaN}',
        b"[" * 60_000,
        b'{"access_token": "' + b"hunter2" * 20_000 + b'"}',
    ],
)
def test_an_answer_without_a_token_is_not_repeated(endpoint: Endpoint, authority: Authority, answer: bytes) -> None:
    endpoint.answer = 200, answer
    with pytest.raises(KafkaConnectionError, match="the answer holds no token") as refused:
        ask(endpoint.url, authority).token()
    assert "hunter2" not in str(refused.value)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of a server that gives these bytes to who asks first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            asked, _ = server.accept()
            with asked:
                asked.sendall(answer)
                asked.shutdown(socket.SHUT_WR)
                while asked.recv(65_536):  # a close with something unread would take the answer back
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/token"
        thread.join(10)


NOT_HTTP = {
    b'{"access_token":"hunter2"}\r\n\r\n': "BadStatusLine",
    b"HTTP/1.1 hunter2 OK\r\n\r\n": "BadStatusLine",
    b"HTTP/1.1 200 OK\r\n" + b"X: hunter2\r\n" * 200 + b"\r\n{}": "HTTPException",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n": "IncompleteRead",
}


@pytest.mark.parametrize(("answer", "name"), NOT_HTTP.items(), ids=["no status", "no number", "headers", "chunks"])
def test_an_answer_that_is_not_http_is_told_by_the_errors_name_alone(answer: bytes, name: str) -> None:
    with answering(answer) as url, pytest.raises(KafkaConnectionError) as refused:
        ask(url, None).token()
    assert str(refused.value).endswith(f": the request failed ({name})")
    assert "hunter2" not in str(refused.value)


def test_an_error_whose_body_breaks_off_is_told_by_its_code() -> None:
    answer = b"HTTP/1.1 400 no\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n"
    with answering(answer) as url, pytest.raises(SaslAuthenticationFailedError) as refused:
        ask(url, None).token()
    assert str(refused.value).endswith(": 400")


def test_a_token_serves_while_the_endpoint_does_not_speak_http(
    endpoint: Endpoint, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    provider = ask(endpoint.url, authority, clock=lambda: now)
    first = provider.token()
    now += 0.9 * endpoint.life_s
    with answering(next(iter(NOT_HTTP))) as url:
        monkeypatch.setattr(provider, "_url", url)
        assert provider.token() == first


def test_an_endpoint_that_gives_no_token_is_not_taken_for_the_broker(endpoint: Endpoint, authority: Authority) -> None:
    endpoint.answer = 500, b""
    settings = Settings.model_validate({"sasl_oauth_token_url": endpoint.url})
    with pytest.raises(KafkaConnectionError) as refused:
        ask(endpoint.url, authority).token()
    with pytest.raises(FatalError) as told, explained(settings):
        logging.getLogger("kafka.net.connection").error("%s: Connection lost: %s", "<it>", refused.value)
        raise KafkaTimeoutError("Unable to bootstrap")
    assert told.value.exit_code is Exit.UNAVAILABLE
    assert "the token endpoint gives no token (LOADONCE_SASL_OAUTH_TOKEN_URL=...: 500)" in str(told.value)
    assert f"check that it answers, LOADONCE_SASL_OAUTH_TOKEN_URL={endpoint.url}" in str(told.value)


def test_an_error_is_told_by_its_code_alone(endpoint: Endpoint, authority: Authority) -> None:
    endpoint.answer = 400, b'{"error": "invalid_scope hunter2", "error_description": "hunter2"}'
    with pytest.raises(SaslAuthenticationFailedError) as refused:
        ask(endpoint.url, authority).token()
    assert str(refused.value).endswith(": 400")


def test_a_redirect_does_not_get_the_secret(endpoint: Endpoint, authority: Authority) -> None:
    endpoint.answer = 302, b""
    with pytest.raises(KafkaConnectionError, match="302"):
        ask(endpoint.url, authority).token()
    assert len(endpoint.asked) == 1


def test_an_endpoint_that_nobody_vouches_for_is_not_asked(endpoint: Endpoint, tmp_path: Path) -> None:
    for authority in (None, Authority(tmp_path, "stranger")):
        with pytest.raises(KafkaConnectionError, match="certificate verify failed"):
            ask(endpoint.url, authority).token()
    assert not endpoint.asked


def test_an_endpoint_that_does_not_answer_is_given_up(
    endpoint: Endpoint, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "TOKEN_S", 0.2)
    endpoint.silent.clear()
    with pytest.raises(KafkaConnectionError, match=r"LOADONCE_SASL_OAUTH_TOKEN_URL=\.\.\.: "):
        ask(endpoint.url, authority).token()


def test_a_token_comes_from_its_file_as_it_is_now() -> None:
    given = iter(["a.b-c_d", "e==", "not a token"])
    provider = FileTokens(lambda: next(given))
    assert provider.token() == "a.b-c_d"
    assert provider.token() == "e=="
    with pytest.raises(SaslAuthenticationFailedError):
        provider.token()
