"""Whether a version may be opened: its files against the digests of its manifest, and the manifest against a key.

A signature is ed25519 (RFC 8032) over the manifest's bytes with the model's name and version before them, so that a
signed manifest is worth nothing in another model's folder, or as another version. It says who made a version, and not
that it is the newest: whoever can write to a store can still take versions away, put back signed ones that were
removed, and move aliases.
"""

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from consumer.models import digest, documents, manifest
from consumer.models.documents import DocumentError
from consumer.models.errors import PermanentLoadError, StaleError
from consumer.models.manifest import MANIFEST, MANIFEST_BYTES, SIGNATURE
from consumer.models.store import Located

DOMAIN = b"loadonce manifest v1\n"
"""Before what is signed, so that the key's signatures of anything else do not count."""
SIGNATURE_BYTES = 1024
"""The largest manifest.json.sig: 64 bytes in base64, and room for whatever editors do at its end."""
KEY_BYTES = 16 * 1024


class KeyFileError(Exception):
    """A file that does not hold the key it should. One line: cause and remedy."""


def verify(located: Located, *, require_manifest: bool, public_key: bytes | None) -> str:
    """Check the files that opening the version will read; their content id, sha256 in hex.

    `public_key`: 32 bytes of ed25519; with one, a manifest that it has signed is required. PermanentLoadError names
    what is wrong; StaleError: the files are no longer those of the look; OSError.
    """
    stated = located.manifest.files if located.manifest else {}
    if (require_manifest or public_key is not None) and not stated:
        option = "LOADONCE_REQUIRE_MANIFEST" if require_manifest else "LOADONCE_MANIFEST_PUBLIC_KEY"
        lacks = "no manifest" if located.manifest is None else "a manifest without digests"
        raise PermanentLoadError(f"it has {lacks}, and {option} is set: put it in by `loadonce models add`")
    if public_key is not None:
        check_signed(located, public_key)
    opened = located.opened_files
    if stated:
        for name in opened:
            if name not in stated:
                raise PermanentLoadError(f"the manifest has no digest of {_short(name)}")
        for name in stated:
            if name not in located.files:
                raise PermanentLoadError(f"{_short(name)}, which the manifest names, is not there")
    found = {name: digest.sha256(located.path / name) for name in {*opened, *stated}}
    for name, of_file in stated.items():
        if found[name] != of_file:
            raise PermanentLoadError(f"the digest of {_short(name)} is not the manifest's")
    return digest.content_id({name: found[name] for name in opened})


def is_signed(located: Located) -> bool:
    """Whether there is a signature, by whatever key."""
    return SIGNATURE in located.files


def sign(text: bytes, key: str, version: int, private_key: bytes) -> str:
    """What `manifest.json.sig` holds, for a manifest of that text in that place."""
    signature = Ed25519PrivateKey.from_private_bytes(private_key).sign(_signed(text, key, version))
    return base64.b64encode(signature).decode() + "\n"


def load_public_key(path: Path) -> bytes:
    """The 32 bytes of an ed25519 public key, from PEM or base64. KeyFileError; OSError."""
    text = _read_key(path)
    if b"PRIVATE KEY-----" in text:
        raise KeyFileError(f"{path} holds a private key; give its public one: `openssl pkey -in {path} -pubout`")
    if b"-----BEGIN" not in text:
        return _raw_key(path, text)
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path} is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds another kind of key than ed25519")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def load_private_key(path: Path) -> bytes:
    """The 32 bytes of an ed25519 private key, from PEM without a password. KeyFileError; OSError."""
    text = _read_key(path)
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        raise KeyFileError(
            f"{path} is not a private key in PEM without a password; `openssl genpkey -algorithm ed25519` makes one"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds another kind of key than ed25519")
    return key.private_bytes_raw()


def check_signed(located: Located, public_key: bytes) -> None:
    """Check that the manifest is signed by the key, for its place. PermanentLoadError; StaleError; OSError."""
    if not is_signed(located):
        raise PermanentLoadError(
            f"it has no {SIGNATURE}, and LOADONCE_MANIFEST_PUBLIC_KEY is set: sign it by `loadonce models sign`"
        )
    try:
        text = documents.read(located.path / MANIFEST, MANIFEST_BYTES)
        encoded = documents.read(located.path / SIGNATURE, SIGNATURE_BYTES)
        # What the look has parsed is what everybody goes by; it must be what was signed.
        if manifest.parse(text) != located.manifest:
            raise StaleError
        signature = base64.b64decode(b"".join(encoded.split()), validate=True)
    except (DocumentError, binascii.Error) as error:
        raise PermanentLoadError(
            str(error) if isinstance(error, DocumentError) else f"{SIGNATURE} is not base64"
        ) from None
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _signed(text, located.key, located.version))
    except InvalidSignature:
        raise PermanentLoadError(
            f"{SIGNATURE} is not the signature of this manifest, as {located.key}/{located.version}, by the key of "
            "LOADONCE_MANIFEST_PUBLIC_KEY"
        ) from None


def _signed(text: bytes, key: str, version: int) -> bytes:
    # A name holds neither slash nor newline, so that nothing can be read in two ways.
    return DOMAIN + f"{key}/{version}\n".encode() + text


def _read_key(path: Path) -> bytes:
    try:
        return documents.read(path, KEY_BYTES)
    except DocumentError:
        raise KeyFileError(f"{path} is not a key's file") from None


def _raw_key(path: Path, text: bytes) -> bytes:
    try:
        key = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise KeyFileError(f"{path} holds neither a public key in PEM nor the 32 bytes of an ed25519 one in base64")
    return key


def _short(name: str) -> str:
    return name.rpartition("/")[2]
