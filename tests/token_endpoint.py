"""A token endpoint: OAuth 2.0's client credentials grant over HTTPS, and the keys by which its tokens are checked."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.authority import LOOPBACK, Identity

AUDIENCE = "kafka"
ISSUER = "https://issuer.example"
_KEY_ID = "tests"


class Issuer:
    """Signs tokens (RFC 7519, RS256). Its public key goes to `keys`, a JSON Web Key Set."""

    def __init__(self, keys: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "kid": _KEY_ID,
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }
        keys.write_text(json.dumps({"keys": [key]}))

    def token(self, subject: str, life_s: int = 600) -> str:
        """A token for a user; one whose life is over where `life_s` is negative."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": AUDIENCE,
            "iat": min(now, now + life_s - 1),
            "exp": now + life_s,
            "scope": "kafka",
        }
        signed = f"{_json({'alg': 'RS256', 'kid': _KEY_ID, 'typ': 'JWT'})}.{_json(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"


class Endpoint:
    """What the server knows and has been asked. `answer` replaces what it gives: status and body."""

    def __init__(self, issuer: Issuer, clients: dict[str, str]) -> None:
        self.issuer = issuer
        self.clients = clients
        self.url = ""
        self.life_s = 600
        self.asked: list[dict[str, list[str]]] = []
        self.answer: tuple[int, bytes] | None = None
        self.silent = threading.Event()
        self.silent.set()

    def respond(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, bytes]:
        """Status and body."""
        self.asked.append(form)
        self.silent.wait(30)
        if self.answer is not None:
            return self.answer
        client, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if self.clients.get(unquote(client)) != unquote(secret):
            return 401, b'{"error": "invalid_client", "error_description": "who is that?"}'
        token = self.issuer.token(unquote(client), self.life_s)
        return 200, json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": self.life_s}).encode()


@contextmanager
def token_endpoint(issuer: Issuer, identity: Identity, clients: dict[str, str]) -> Iterator[Endpoint]:
    """A server for these clients and their secrets."""
    endpoint = Endpoint(issuer, clients)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, body = endpoint.respond(self.headers.get("Authorization", ""), form)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", endpoint.url + "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    endpoint.url = f"https://{LOOPBACK}:{server.server_address[1]}/token"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.silent.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _json(value: dict[str, object]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
