"""A loaded model: what it takes and gives, and calling it with numpy arrays."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer.models.engine import Code, EngineError, Session, Threads
from consumer.models.errors import PassingLoadError, PermanentLoadError, describe
from consumer.models.servable import Format, Servable
from consumer.models.signature import TensorSpec
from consumer.models.store import Fingerprint, Located
from schemas.tensor import DTYPES


class Loaded:
    """One version of a model, in memory. The count of uses is for the loop's thread; `predict` may be for any.

    `nbytes` is what it is counted as in the cache.
    """

    __slots__ = (
        "_buckets",
        "_names",
        "_session",
        "_takes",
        "fingerprint",
        "format",
        "in_use",
        "key",
        "load_seconds",
        "nbytes",
        "path_in_store",
        "servable",
        "signature",
        "version",
    )

    def __init__(
        self,
        *,
        key: str,
        version: int,
        path_in_store: str,
        servable: Servable,
        session: Session,
        nbytes: int,
        fingerprint: Fingerprint,
        load_seconds: float = 0.0,
    ) -> None:
        """`session` is open, with the servable's inputs and outputs in their order, and belongs to this from now on."""
        self.key = key
        self.version = version
        self.path_in_store = path_in_store
        self.servable = servable
        self.format: Format = servable.format
        self.signature = servable.signature
        self.nbytes = nbytes
        self.load_seconds = load_seconds
        self.fingerprint = fingerprint
        self.in_use = 0
        self._session = session
        self._takes = [spec.name for spec in self.signature.inputs]
        self._names = [spec.name for spec in self.signature.outputs]
        self._buckets = servable.serving.batch_buckets

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Call the model: arrays of exactly the signature's datatypes, rows first, as many rows in each.

        BYTES are object arrays of `bytes`, both ways. The outputs are in the signature's order and read-only. A batch
        is padded to the next of the model's buckets by repeating its last row; above the largest it goes as it is.
        EngineError: whatever the model raised. MemoryError.
        """
        arrays = [inputs[name] for name in self._takes]
        if not self._buckets:
            return dict(zip(self._names, self._session.run(arrays), strict=True))
        rows = len(arrays[0])
        bucket = _bucket(self._buckets, rows)
        outputs = self._session.run([_padded(array, bucket) for array in arrays])
        return {name: _cut(output, bucket, rows) for name, output in zip(self._names, outputs, strict=True)}

    def retain(self) -> None:
        """One more user: the model stays in memory."""
        self.in_use += 1

    def release(self) -> None:
        """One user less."""
        self.in_use -= 1

    def close(self) -> None:
        """Free the model. Arrays that it gave stay valid; `predict` raises from now on."""
        self._session.close()


def open_warm(located: Located, servable: Servable, threads: Threads) -> Loaded:
    """Open what has become of a version and warm it up; it counts with its variables. EngineError; as `warm_up`."""
    session = Session.open(
        servable.folder,
        [endpoint.tensor for endpoint in servable.inputs],
        [endpoint.tensor for endpoint in servable.outputs],
        threads,
        servable.serving.mixed_precision or "none",
    )
    loaded = Loaded(
        key=located.key,
        version=located.version,
        path_in_store=located.path_in_store,
        servable=servable,
        session=session,
        nbytes=servable.weights_bytes,
        fingerprint=located.fingerprint,
    )
    try:
        warm_up(loaded)
    except BaseException:
        loaded.close()
        raise
    return loaded


def warm_up(loaded: Loaded) -> None:
    """Predict zeros (BYTES: empty; varying dimensions: 1), and check that the outputs follow the rows.

    As many rows as the servable's `warmup_rows` say and each of its buckets. One row and then two unless it says
    otherwise: an output that is always of one row would pass with one. A model that does not take zeros
    (InvalidArgument: it parses its strings, say, or needs larger images) is not thereby broken: it is served without
    having been warmed up, and its outputs are checked with each batch. PermanentLoadError: outputs that do not follow
    the rows, or any other error. PassingLoadError: too little memory, or an answer that says try again.
    """
    for count in _warmup_rows(loaded.servable):
        try:
            outputs = loaded.predict({spec.name: zeros(spec, count) for spec in loaded.signature.inputs})
        except EngineError as error:
            if error.code in (Code.INVALID_ARGUMENT, Code.OUT_OF_RANGE):
                return
            raise _load_error(error) from error
        except Exception as error:
            raise _load_error(error) from error
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != count:
                raise PermanentLoadError(f"output '{name}' has shape {list(array.shape)} for {count} rows")


def is_passing(error: BaseException) -> bool:
    """Whether Python or TensorFlow says that trying again may help."""
    return isinstance(error, MemoryError) or (isinstance(error, EngineError) and error.passing)


def _load_error(error: Exception) -> PassingLoadError | PermanentLoadError:
    kind = PassingLoadError if is_passing(error) else PermanentLoadError
    return kind(f"warming up failed: {describe(error)}")


def _warmup_rows(servable: Servable) -> Sequence[int]:
    if servable.rows is not None:
        return (servable.rows,)
    return tuple(dict.fromkeys((*servable.serving.warmup_rows, *servable.serving.batch_buckets)))


def _bucket(buckets: tuple[int, ...], rows: int) -> int:
    """The rows that a batch is padded to. No row to repeat: none."""
    place = bisect_left(buckets, rows)
    return buckets[place] if rows and place < len(buckets) else rows


def _padded(array: NDArray[Any], rows: int) -> NDArray[Any]:
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _cut(array: NDArray[Any], bucket: int, rows: int) -> NDArray[Any]:
    """The first `rows`, where the output follows the rows: what does not is for the caller to judge."""
    return array[:rows] if array.ndim and len(array) == bucket else array


def zeros(spec: TensorSpec, rows: int) -> NDArray[Any]:
    """The simplest input there is: zeros, BYTES empty, varying dimensions 1."""
    shape = (rows, *(1 if dim is None else dim for dim in (spec.shape or (None,))[1:]))
    dtype = DTYPES[spec.datatype]
    return np.full(shape, b"", dtype=object) if dtype.hasobject else np.zeros(shape, dtype)
