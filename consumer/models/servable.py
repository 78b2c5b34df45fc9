"""A version made ready for TensorFlow's C API: a SavedModel's folder, and what is called in it.

Whatever a version's format, opening it (in the helper process) ends in one of these; from then on there are no formats.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from consumer.models.engine import MixedPrecision
from consumer.models.signature import Signature, TensorSpec

Format = Literal["keras", "h5", "savedmodel"]


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How a version wants to be served: the `serving` part of its manifest, checked.

    `warmup_rows`: batch sizes that are predicted before it serves. `batch_buckets`, ascending: batches are padded to
    the next of these and their outputs cut, so that a compiled model sees few shapes; empty: not. `jit_compile`: XLA.
    `mixed_precision`: the dtype that float32 may be computed with. None: as for all models, which is up to the process.
    """

    warmup_rows: tuple[int, ...] = (1, 2)
    batch_buckets: tuple[int, ...] = ()
    jit_compile: bool | None = None
    mixed_precision: MixedPrecision | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One input or output: what it is called outside, and the graph's tensor (`serving_default_x:0`)."""

    spec: TensorSpec
    tensor: str


@dataclass(frozen=True, slots=True)
class Servable:
    """What the helper process found: it has opened this folder and called it once.

    `weights_bytes` are those of the variables.
    """

    folder: Path
    format: Format
    inputs: tuple[Endpoint, ...]
    outputs: tuple[Endpoint, ...]
    rows: int | None
    weights_bytes: int
    serving: ServingOptions = field(default_factory=ServingOptions)

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return Signature(
            tuple(endpoint.spec for endpoint in self.inputs),
            tuple(endpoint.spec for endpoint in self.outputs),
            self.rows,
        )
