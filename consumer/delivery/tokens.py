"""Tokens for OAUTHBEARER: from a file that somebody else keeps fresh, or from a token endpoint.

kafka-python asks for one at each login, and again before the broker ends a session (KIP-368), on the thread that does
all I/O of its client: what asks a network has a short time limit, and a token is used again while it is fresh.
"""

import base64
import json
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from kafka.errors import KafkaConnectionError, SaslAuthenticationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider

TOKEN_S = 4.0
"""What an answer of the token endpoint may take in all; the heartbeats of a group wait meanwhile."""
ANSWER_BYTES = 64 * 1024
FRESH = 0.8
"""The part of its life in which a token is used again. Sessions are prolonged at 0.85 to 0.95 of theirs."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_ERROR = re.compile(r"[a-z_]{1,40}")  # RFC 6749, 5.2: invalid_client and the like
_REFUSED = frozenset({400, 401, 403})


class TokenEndpointError(KafkaConnectionError):
    """The endpoint gives no token, which may pass. `schemas.causes` knows it by this name."""


class FileTokens(AbstractTokenProvider):
    """The token that `read` gives; CredentialError is its to raise."""

    def __init__(self, read: Callable[[], str]) -> None:
        super().__init__()
        self._read = read

    def token(self) -> str:
        """The token as it is now. SaslAuthenticationFailedError: what is there is none."""
        token = self._read()
        if not _TOKEN.fullmatch(token):
            raise SaslAuthenticationFailedError("the file of the token holds no token")
        return token


class EndpointTokens(AbstractTokenProvider):
    """Tokens by the client credentials grant (RFC 6749, 4.4): the client is known to the endpoint by HTTP Basic.

    The endpoint is trusted by the system's authorities and by those in `authorities`. `named` is for the messages.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        client_secret: Callable[[], str],
        scope: str | None,
        authorities: Path | None,
        named: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._url = url
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._authorities = authorities
        self._named = named
        self._clock = clock
        self._token = ""
        self._fresh_until = 0.0
        self._valid_until = 0.0

    def token(self) -> str:
        """A token that is still fresh, or a new one.

        SaslAuthenticationFailedError: the endpoint refuses the client. TokenEndpointError: it gives no token.
        """
        now = self._clock()
        if now < self._fresh_until:
            return self._token
        try:
            token, life_s = self._within(TOKEN_S)
        except TokenEndpointError:
            if now < self._valid_until:
                return self._token
            raise
        self._token = token
        self._fresh_until, self._valid_until = now + FRESH * life_s, now + life_s
        return token

    def _within(self, limit_s: float) -> tuple[str, float]:
        """Ask on a thread that may be left behind: a name server, and an answer that trickles, know no time limit."""
        answer: Future[tuple[str, float]] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._ask())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                answer.set_exception(error)

        threading.Thread(target=ask, name="token", daemon=True).start()
        try:
            return answer.result(limit_s)
        except TimeoutError:
            raise TokenEndpointError(f"{self._named}: no answer within {limit_s:g} s") from None

    def _ask(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        client = f"{quote(self._client_id, safe='')}:{quote(self._client_secret(), safe='')}"  # RFC 6749, 2.3.1
        request = urllib.request.Request(  # noqa: S310 - http or https: Settings has looked
            self._url,
            data=urlencode(form).encode(),
            headers={"Accept": "application/json", "Authorization": f"Basic {_base64(client)}"},
        )
        try:
            context = ssl.create_default_context()
            if self._authorities is not None:
                context.load_verify_locations(self._authorities)
            opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
            with opener.open(request, timeout=TOKEN_S) as response:
                answer = response.read(ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                why = f"{self._named}: {error.code} {_said(error)}".rstrip()
            raise (SaslAuthenticationFailedError if error.code in _REFUSED else TokenEndpointError)(why) from None
        except urllib.error.URLError as error:
            raise TokenEndpointError(f"{self._named}: {error.reason}") from None
        except OSError as error:
            raise TokenEndpointError(f"{self._named}: {error}") from None
        except Exception as error:  # noqa: BLE001 - what http.client says repeats the answer, and that may be a token
            raise TokenEndpointError(f"{self._named}: the request failed ({type(error).__name__})") from None
        return self._read(answer)

    def _read(self, answer: bytes) -> tuple[str, float]:
        """Token and life in seconds. Nothing of the answer is ever repeated: it may hold a token."""
        try:
            document = json.loads(answer)
            token, life = document["access_token"], float(document.get("expires_in", 0))
            if _TOKEN.fullmatch(token) and 0 <= life < float("inf"):
                return token, life
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise TokenEndpointError(f"{self._named}: the answer holds no token")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The client's secret goes where the option says, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirect is an error."""


def _said(error: urllib.error.HTTPError) -> str:
    try:
        said = json.loads(error.read(ANSWER_BYTES))["error"]
        return said if _ERROR.fullmatch(said) else ""
    except Exception:  # noqa: BLE001 - an answer that breaks off, no JSON, other JSON
        return ""


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
