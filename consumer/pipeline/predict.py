"""Batch -> answers: stack, call the model, split where it fails until the job at fault stands alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumer.models.engine import EngineError
from consumer.models.runtime import Loaded
from consumer.pipeline.batch import Batch
from consumer.pipeline.job import Bound, Job
from schemas.reasons import Failure, Reason, Stage


@dataclass(frozen=True, slots=True)
class Answers:
    """A run of jobs of one batch with their outputs, still stacked: `outputs` have the rows of all jobs, in order."""

    jobs: tuple[Job, ...]
    bounds: tuple[Bound, ...]
    outputs: Mapping[str, NDArray[Any]] | Failure


def predict(batch: Batch) -> list[Answers]:
    """Predict a batch. Never raises for what a job or model does; every job of the batch is in the result, in order."""
    return _predict(batch.model, batch.jobs, batch.bounds)


def _predict(model: Loaded, jobs: tuple[Job, ...], bounds: tuple[Bound, ...]) -> list[Answers]:
    try:
        outputs = _call(model, jobs, bounds)
    except Exception as error:  # noqa: BLE001 - a model may raise anything; it is the job's failure, not the process's
        if len(jobs) == 1:
            return [Answers(jobs, bounds, _failure(error))]
        half = len(jobs) // 2
        return _predict(model, jobs[:half], bounds[:half]) + _predict(model, jobs[half:], bounds[half:])
    return [Answers(jobs, bounds, outputs)]


def _call(model: Loaded, jobs: tuple[Job, ...], bounds: tuple[Bound, ...]) -> Mapping[str, NDArray[Any]]:
    rows = sum([bound.rows for bound in bounds])
    first = bounds[0]
    inputs = {}
    for index, name in enumerate(first.names):
        parts = [job.data[bound.order[index]] for job, bound in zip(jobs, bounds, strict=True)]
        inputs[name] = stacked(parts, first.dtypes[index], (rows, *first.layout[index]))
    if rows == 0:
        # Many a graph cannot run on no rows: run on one row of zeros, and keep none of it.
        inputs = {name: _one_row(array) for name, array in inputs.items()}
    outputs = model.predict(inputs)
    expected = rows or 1
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != expected:
            raise _NotRowAlignedError(f"output '{name}' has shape {list(array.shape)} for {expected} rows")
    return outputs if rows else {name: array[:0] for name, array in outputs.items()}


def stacked(parts: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """One array of all jobs' elements, in order; of a single job it is a view."""
    if dtype.hasobject:
        return np.concatenate([part.reshape(-1) for part in parts]).reshape(shape)
    return np.ndarray(shape, dtype, parts[0] if len(parts) == 1 else b"".join(parts))


def _one_row(array: NDArray[Any]) -> NDArray[Any]:
    shape = (1, *array.shape[1:])
    return np.full(shape, b"", dtype=object) if array.dtype == object else np.zeros(shape, dtype=array.dtype)


class _NotRowAlignedError(Exception):
    """A model's outputs cannot be given back to their jobs."""


def _failure(error: Exception) -> Failure:
    # TensorFlow's messages quote the data: only the kind of error leaves the process.
    if isinstance(error, _NotRowAlignedError):
        what = str(error)
    elif isinstance(error, EngineError):
        what = error.kind
    else:
        what = type(error).__name__
    return Failure(Reason.INFERENCE_FAILED, Stage.PREDICT, f"the model failed on this job: {what}")
