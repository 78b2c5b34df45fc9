"""A million mutated records between what the client reads and what it is to send (10,000 in `make test`).

Each has exactly one outcome, none raises, none takes memory or time out of proportion. `make fuzz SEED=1 FROM=2
RECORDS=1` does the record again that a failure names.
"""

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import FrameType

import pytest

from consumer.models.opening import Opener
from consumer.models.policy import Policies
from consumer.models.serving import Serving
from consumer.models.store import LocalStore
from schemas.reasons import Reason
from tests import models_zoo as zoo
from tests import stores
from tests.fuzz import mutator, options
from tests.fuzz.mutator import record
from tests.fuzz.options import tell
from tests.fuzz.passage import Passage, read_by_the_client

CHUNK = 1_000
TRACED_EVERY = 5
"""Tracing memory makes it three times as slow; the chunks between are held to the bound of the whole process."""
GROWTH_KIB = 400 * 1024
"""What the whole run may add to the process's largest resident memory."""
HANG_S = 120.0
"""Of the processor's time, not the clock's, for one chunk: what takes longer never ends."""
USUAL = {"prediction", *Reason} - {Reason.MODEL_UNAVAILABLE, Reason.POISON, Reason.MISSING_MODEL_KEY}


@pytest.fixture(scope="module")
def serving(store: Path, opener: Opener) -> Iterator[Serving]:
    serving = Serving(
        LocalStore(store),
        opener,
        policies=Policies(),
        poll_s=3_600,
        cache_models=10,
        cache_bytes=1 << 30,
        cache_min_s=0,
        load_attempts=2,
        load_backoff_s=0.01,
        load_backoff_max_s=600,
        events=zoo.Told(),
        clock=time.monotonic,
    )
    serving.preload([stores.DOUBLE, stores.FUSSY, stores.UPPER, stores.SUM], 120)
    yield serving
    serving.close(30)


class HangError(BaseException):
    """Not an Exception, so that nothing that is tested swallows it."""


@contextmanager
def watched() -> Iterator[None]:
    def end(_: int, __: FrameType | None) -> None:
        raise HangError(f"more than {HANG_S:g} s of work")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_a_record_is_the_same_whatever_was_made_before() -> None:
    before = deepcopy(mutator._SHAPES)
    for number in range(6_000):
        record(3, number)
    assert before == mutator._SHAPES


@pytest.mark.timeout(4 * 3_600)
def test_every_record_has_one_outcome(serving: Serving) -> None:
    seed, first, count = options.SEED, options.FIRST, options.RECORDS
    passage = Passage(serving)
    began, resident_before = time.monotonic(), _resident_kib()
    for start in range(first, first + count, CHUNK):
        if start % 100_000 == 0 and start > first:
            tell(f"{start - first} records of seed {seed} in {time.monotonic() - began:.0f} s")
        end = min(start + CHUNK, first + count)
        raws = [record(seed, number) for number in range(start, end)]
        try:
            with watched():
                passage.push(
                    read_by_the_client(raws, start), traced=start // CHUNK % TRACED_EVERY == 0 or count < CHUNK
                )
        except (Exception, HangError) as error:
            at, many = (start, end - start) if passage.at is None else (passage.at, 1)
            raise AssertionError(
                f"{type(error).__name__}: {error}; again by: make fuzz SEED={seed} FROM={at} RECORDS={many}"
            ) from error
    grown = _resident_kib() - resident_before
    tell(
        f"{count} records of seed {seed} ({passage.bytes / 1e6:.0f} MB) in {time.monotonic() - began:.0f} s; "
        f"most memory to read one {passage.reading_peak / 1024:.0f} KiB, to answer {CHUNK} "
        f"{passage.answering_peak / 2**20:.1f} MiB; slowest {passage.slowest_s * 1000:.0f} ms; "
        f"the process grew by {grown / 1024:.0f} MiB at the most\n"
        f"{ {str(outcome): times for outcome, times in passage.outcomes.most_common()} }"
    )
    assert passage.outcomes.total() == count
    assert grown <= GROWTH_KIB
    if count >= 30_000:  # or the mutator has gone blind
        assert passage.outcomes.keys() >= USUAL


def _resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
