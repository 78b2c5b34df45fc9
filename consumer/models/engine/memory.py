"""What this process has of the machine's memory, as far as the C library and the system tell."""

import ctypes
import os
from pathlib import Path

_C = ctypes.CDLL(None)


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of malloc.h, glibc 2.33 and later; mallinfo(3)."""

    _fields_ = (
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def heap_bytes() -> int | None:
    """Bytes in use of malloc's heaps, all arenas, large blocks with a mapping of their own left out; None: not told."""
    mallinfo2 = getattr(_C, "mallinfo2", None)
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2
    return int(mallinfo2().uordblks)


def resident_bytes() -> int:
    """proc(5), /proc/pid/statm, `resident`, in pages; 0 where there is none."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def trim() -> None:
    """Give memory that has been freed back to the system, where the C library can (glibc's malloc_trim).

    To be called after sessions were closed: without it, their weights may stay with the process.
    """
    malloc_trim = getattr(_C, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
