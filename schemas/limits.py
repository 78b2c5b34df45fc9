"""How large a job may be. Checked before anything is allocated."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one job; past any of them it is `too-large`.

    `body_bytes` and `header_bytes` count the record's value, and its header names and values; `headers` counts headers
    (one with neither takes memory all the same); `tensors` counts inputs; `rows` is the first dimension of a tensor;
    `rank` its number of dimensions; `elements` their product, where a dimension of 0 counts as 1.
    """

    body_bytes: int = 16 * 1024 * 1024
    header_bytes: int = 64 * 1024
    headers: int = 1024
    tensors: int = 64
    rows: int = 65_536
    rank: int = 8
    elements: int = 16 * 1024 * 1024
