"""The URL of a store, checked, and what is needed to reach it."""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CONNECT_S = 5.0
READ_S = 20.0
"""Time for a connection, and between two pieces of an answer; every call has a deadline of its own besides."""

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")  # Google's are the longest: 222 with dots
_PREFIX = re.compile(r"(/[A-Za-z0-9._=@+-]+)*")


class AddressError(ValueError):
    """A URL that cannot be a store's, or one whose extra is not installed. One line, without the URL."""


@dataclass(frozen=True, slots=True)
class _Provider:
    extra: str
    module: str
    filesystem: str
    options: dict[str, Any]


_S3 = _Provider(
    "s3",
    "s3fs",
    "S3FileSystem",
    {
        "config_kwargs": {
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"total_max_attempts": 1},  # the watcher and the loader try again, and say so
        }
    },
)
# Not what `gcsfs` exports: that asks for a bucket's kind first, and searches for credentials each time it has none.
_GCS = _Provider("gcs", "gcsfs.core", "GCSFileSystem", {"requests_timeout": READ_S})
_AZURE = _Provider(
    "azure", "adlfs", "AzureBlobFileSystem", {"connection_timeout": int(CONNECT_S), "read_timeout": int(READ_S)}
)
_PROVIDERS = {"s3": _S3, "gs": _GCS, "gcs": _GCS, "az": _AZURE, "abfs": _AZURE}


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket, or a folder in one: `s3://bucket/folder`. Holds no secret."""

    scheme: str
    root: str
    """`bucket` or `bucket/folder`."""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Check a URL, and that its extra is installed. AddressError does not repeat what may be a secret."""
        try:
            parts = urlsplit(url if url.isprintable() else "//[")  # `urlsplit` would leave out what cannot be printed
        except ValueError:
            raise AddressError("the model store's URL cannot be read") from None
        if parts.scheme not in _PROVIDERS:
            known = ", ".join(f"{scheme}://" for scheme in (*_PROVIDERS, "mlflow+http", "mlflow+https"))
            raise AddressError(f"the model store's URL must begin with one of {known}; otherwise it is a folder's path")
        if "@" in parts.netloc:
            raise AddressError(
                "the model store's URL has something before an '@'; credentials and accounts belong where the "
                "provider's own tools look for them (environment or files)"
            )
        if parts.query or parts.fragment or "?" in url or "#" in url:
            raise AddressError("the model store's URL has a query or a fragment; it must end after the folder")
        path = parts.path.rstrip("/")
        if not _BUCKET.fullmatch(parts.netloc):
            raise AddressError(f"the model store's URL needs a bucket's name after {parts.scheme}://")
        if not _PREFIX.fullmatch(path) or {".", ".."} & set(path.split("/")):
            raise AddressError(
                "the folder in the model store's URL may have letters, digits and '._=@+-', and neither '.' nor '..'"
            )
        provider = _PROVIDERS[parts.scheme]
        package = provider.module.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            raise AddressError(
                f"{parts.scheme}:// stores need {package}, which the extra '{provider.extra}' brings: "
                f"pip install 'loadonce[{provider.extra}]'"
            )
        return cls(parts.scheme, parts.netloc + path)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.root}"

    def connect(self) -> Any:
        """A new fsspec file system without a cache of listings.

        Google's and Azure's search for credentials: that may take long, and has no deadline.
        """
        provider = _PROVIDERS[self.scheme]
        filesystem = getattr(importlib.import_module(provider.module), provider.filesystem)
        return filesystem(use_listings_cache=False, skip_instance_cache=True, **provider.options)
