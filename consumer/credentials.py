"""Files that secrets and certificates are kept in: read and checked. A message names the option, never the content."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECRET_BYTES = 64 * 1024
"""More than any password or token has."""


class CredentialError(OSError):
    """A file that cannot serve. The message is the reason, without name and content."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret in a file, read whenever it is asked for: it may have been replaced. `named` is for the messages."""

    file: Path
    named: str

    def __call__(self) -> str:
        """The secret as it is now. CredentialError."""
        try:
            return read_secret(self.file)
        except CredentialError as error:
            raise CredentialError(f"{self.named}: {error}") from None


def read_secret(file: Path) -> str:
    """The file's text without one newline at its end. CredentialError."""
    check_file(file)
    try:
        with file.open("rb") as opened:
            content = opened.read(SECRET_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise CredentialError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CredentialError("is not UTF-8 text") from None
    if len(content) > SECRET_BYTES:
        raise CredentialError(f"has more than {SECRET_BYTES} bytes")
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise CredentialError("is empty")
    return secret


def check_file(file: Path) -> None:
    """CredentialError: there is no such file. A pipe is none: whoever opened it would wait."""
    try:
        there = file.is_file()
    except OSError as error:  # of a folder on the way
        raise CredentialError(f"cannot be read: {error.strerror}") from None
    if not there:
        raise CredentialError("no such file")


def no_password() -> str:
    """What an encrypted key is tried with where there is no password; without an answer OpenSSL would ask a person."""
    return ""


def check_authorities(file: Path) -> None:
    """CredentialError: the file holds no certificate to trust."""
    _loaded(lambda context: context.load_verify_locations(file), "holds no certificates in PEM")


def check_certificate(certificate: Path, key: Path | None, password: Callable[[], str]) -> None:
    """CredentialError: certificate and key do not serve, alone or together, with this password."""
    _loaded(
        lambda context: context.load_cert_chain(certificate, key, password),
        "certificate and key cannot be used together: not PEM, not each other's, or another password",
    )


def _loaded(load: Callable[[ssl.SSLContext], None], otherwise: str) -> None:
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    except CredentialError:
        raise
    except ssl.SSLError:
        raise CredentialError(otherwise) from None
    except OSError as error:
        raise CredentialError(f"cannot be read: {error.strerror}") from None
