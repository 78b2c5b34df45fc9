"""Stores that are not a folder: buckets of S3, Google Cloud Storage and Azure through fsspec, and MLflow's registry.

`address` reads a bucket's URL, `objects` asks it, `registry` asks MLflow, `listing` makes versions of object names,
`downloads` is the folder that versions are downloaded to, and `store` puts them together as a `Store`.
"""

from pathlib import Path

from consumer.models.remote.address import Address, AddressError
from consumer.models.remote.objects import Bucket
from consumer.models.remote.registry import SCHEMES, Registry
from consumer.models.remote.store import RemoteStore

__all__ = ["AddressError", "RemoteStore", "open_store"]


def open_store(url: str, cache: Path, cache_bytes: int) -> RemoteStore:
    """The store at this URL; versions are downloaded to the folder `cache`, which holds `cache_bytes` at most.

    Asks nobody anything yet. AddressError: the URL is none of a store, or its extra is not installed.
    UnsafeFolderError: others can write to `cache`. OSError.
    """
    objects = Registry(url) if url.partition("://")[0] in SCHEMES else Bucket(Address.parse(url))
    return RemoteStore(objects, cache, cache_bytes)
