"""What an HDF5 file says of itself, before anybody reads the data in it."""

import math
from typing import Any

import h5py

from consumer.models.errors import PermanentLoadError, TooLargeError

MAX_OBJECTS = 1_000_000


def check(file: h5py.File, max_bytes: int) -> None:
    """Refuse data outside of the file, and more of it than `max_bytes`: compressed zeros take hardly any room.

    Soft links stay in the file, and what they lead to is come across anyway. LoadError, or what h5py raises.
    """
    todo: list[Any] = [file["/"]]
    seen: set[Any] = set()
    total = 0
    while todo:
        item = todo.pop()
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:  # hard links can make circles
            continue
        seen.add(address)
        if len(seen) > MAX_OBJECTS:
            raise PermanentLoadError(f"it has more than {MAX_OBJECTS} HDF5 objects")
        if isinstance(item, h5py.Dataset):
            total += _stated_bytes(item)
            if total > max_bytes:
                raise TooLargeError(f"its datasets have {total} bytes or more; the cache may hold {max_bytes}")
        elif isinstance(item, h5py.Group):
            todo.extend(item[name] for name in item if _is_inside(item, name))


def _is_inside(group: h5py.Group, name: str) -> bool:
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise PermanentLoadError("it holds an ExternalLink: its weights are in another file")
    return isinstance(link, h5py.HardLink)


def _stated_bytes(dataset: h5py.Dataset) -> int:
    created = dataset.id.get_create_plist()
    if created.get_layout() == h5py.h5d.VIRTUAL or created.get_external_count():
        raise PermanentLoadError("it holds a dataset whose data is in another file")
    return math.prod(dataset.shape or ()) * int(dataset.dtype.itemsize)
