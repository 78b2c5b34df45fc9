"""Jobs that come too late: past their `expires-at`, or older than all may be."""

from consumer.pipeline.batch import Batch
from consumer.pipeline.job import Job
from schemas.headers import NO_TIMESTAMP
from schemas.messages import Routing
from schemas.reasons import Failure, Reason, Stage


def deadline(routing: Routing, timestamp_ms: int, max_age_ms: int | None) -> int | None:
    """When a job expires, in milliseconds since the epoch, by whichever rule comes first; None: never.

    `timestamp_ms` is the record's: when it was sent, or appended, as its topic has it.
    """
    if max_age_ms is None or timestamp_ms == NO_TIMESTAMP:
        return routing.expires_at
    too_old = timestamp_ms + max_age_ms
    return too_old if routing.expires_at is None else min(routing.expires_at, too_old)


def expired(job: Job, now_ms: int, stage: Stage = Stage.DECODE) -> Failure | None:
    """Why a job is not to be predicted any more; None where it is in time. `stage` is what it would have come to
    next."""
    if job.deadline_ms is None or now_ms <= job.deadline_ms:
        return None
    rule = "expires-at" if job.deadline_ms == job.routing.expires_at else "LOADONCE_MAX_JOB_AGE_S"
    when = "was read" if stage is Stage.DECODE else "was to be predicted"
    message = f"{rule} had passed by {now_ms - job.deadline_ms} ms when the job {when}"
    return Failure(Reason.EXPIRED, stage, message)


def sift(batch: Batch, now_ms: int) -> tuple[Batch | None, list[tuple[Job, Failure]]]:
    """What of a batch is still in time, None for nothing, and its jobs that have expired while they waited.

    The model is pinned once for each job of the batch: those of the second part are the caller's to release.
    """
    late = []
    for job in batch.jobs:
        failure = expired(job, now_ms, Stage.PREDICT)
        if failure is not None:
            late.append((job, failure))
    if not late:
        return batch, late
    gone = {id(job) for job, _ in late}
    kept = [(job, bound) for job, bound in zip(batch.jobs, batch.bounds, strict=True) if id(job) not in gone]
    if not kept:
        return None, late
    jobs, bounds = zip(*kept, strict=True)
    return Batch(batch.model, jobs, bounds), late
