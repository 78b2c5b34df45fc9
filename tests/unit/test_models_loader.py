"""Loading beside the loop: once at a time, again where it may help, not again where it cannot."""

import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from consumer.models.loader import THREADS, LoadDone, Loader
from consumer.models.opening import Opener
from consumer.models.store import LocalStore, Located, locate
from schemas.reasons import Reason
from tests import models_zoo as zoo
from tests.serving import Held

WAIT_S = 60


class Bench:
    """A loader with what it says and gives."""

    def __init__(self, opener: Opener, attempts: int = 3, backoff_s: float = 0.01) -> None:
        self.done: SimpleQueue[LoadDone | BaseException] = SimpleQueue()
        self.told = zoo.Told()
        self.loader = Loader(
            self.done.put,
            LocalStore(Path()),  # what it is given is there already
            opener,
            attempts=attempts,
            backoff_s=backoff_s,
            backoff_max_s=backoff_s * 4,
            events=self.told,
        )

    def next(self) -> LoadDone:
        done = self.done.get(timeout=WAIT_S)
        assert isinstance(done, LoadDone), done
        self.loader.took(done)
        return done


@pytest.fixture
def bench(opener: Opener) -> Iterator[Bench]:
    bench = Bench(opener)
    yield bench
    bench.loader.close(10)


def located(folder: Path, key: str = "m") -> Located:
    found = locate(folder, key, 1)
    assert found is not None
    return found


def unreadable(tmp_path: Path) -> tuple[Located, Path]:
    """A version of a store that is away, and where it is until it comes back."""
    found = located(zoo.put(zoo.sequential(), tmp_path / "store", "m", 1, "keras"))
    return found, (tmp_path / "store").rename(tmp_path / "away")


def mend(found: Located, away: Path) -> None:
    away.rename(found.path.parent.parent)


def test_a_model_is_loaded(tmp_path: Path, bench: Bench) -> None:
    bench.loader.submit(located(zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras")))
    assert bench.loader.busy("m", 1)
    done = bench.next()
    assert not bench.loader.busy("m", 1)
    assert done.loaded is not None
    assert done.failure is None
    assert done.attempts == 1
    assert done.loaded.path_in_store == "m/1/model.keras"


def test_a_version_is_loaded_once_at_a_time(tmp_path: Path, bench: Bench) -> None:
    found = located(zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras"))
    for _ in range(10):
        bench.loader.submit(found)
    bench.loader.submit(locate_as(found, "last"))
    done = {bench.next().located.key, bench.next().located.key}
    assert done == {"m", "last"}
    assert bench.loader.in_hand() == []
    bench.loader.submit(found)
    assert bench.next().loaded is not None


def test_versions_that_hang_keep_nobody_from_being_opened_and_can_be_cancelled(opener: Opener, tmp_path: Path) -> None:
    held = Held(opener)
    bench = Bench(held)
    found = located(zoo.put(zoo.two_by_two(), tmp_path, "m", 1, "keras"))
    held.hanging = {(f"hangs{index}", 1) for index in range(THREADS - 1)}
    for key, _ in sorted(held.hanging):
        bench.loader.submit(locate_as(found, key))
    bench.loader.submit(locate_as(found, "good"))
    assert bench.next().located.key == "good"
    for name in sorted(held.hanging):
        bench.loader.cancel(name)
        done = bench.next()
        assert (done.located.key, done.loaded, done.failure) == (name[0], None, None)
    bench.loader.close(10)


def test_a_permanent_failure_is_not_tried_again(tmp_path: Path, bench: Bench) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras")
    (folder / "model.keras").write_bytes(b"broken")
    bench.loader.submit(located(folder))
    done = bench.next()
    assert done.failure is not None
    assert done.failure.reason is Reason.MODEL_CORRUPT
    assert done.failure.attempts == 1
    assert done.permanent
    assert bench.told.events == []


def test_a_passing_failure_is_tried_again_until_it_has_passed(opener: Opener, tmp_path: Path) -> None:
    bench = Bench(opener, attempts=1000)
    found, away = unreadable(tmp_path)
    bench.loader.submit(found)
    deadline = time.monotonic() + WAIT_S
    while bench.told.count("attempt", "m", 1) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    mend(found, away)
    done = bench.next()
    assert done.loaded is not None
    assert done.attempts == bench.told.count("attempt") + 1
    attempts = [event[3] for event in bench.told.events]
    assert attempts == list(range(1, len(attempts) + 1))
    assert "the model store cannot be read: No such file" in bench.told.events[0][4]
    bench.loader.close(10)


def test_a_passing_failure_that_stays_is_given_up(tmp_path: Path, bench: Bench) -> None:
    found, _ = unreadable(tmp_path)
    bench.loader.submit(found)
    done = bench.next()
    assert done.failure is not None
    assert done.failure.reason is Reason.MODEL_UNAVAILABLE
    assert done.failure.attempts == 3
    assert not done.permanent
    assert bench.told.count("attempt") == 2
    assert str(tmp_path) not in done.failure.message


def test_waits_grow_and_are_bounded(opener: Opener, tmp_path: Path) -> None:
    bench = Bench(opener, attempts=6, backoff_s=0.02)
    found, _ = unreadable(tmp_path)
    bench.loader.submit(found)
    bench.next()
    waits = [event[5] for event in bench.told.events]
    assert 0.02 <= waits[0] <= 0.04
    assert 0.04 <= waits[1] <= 0.06
    assert max(waits) <= 0.08
    bench.loader.close(10)


def waiting_for_its_next_try(opener: Opener, tmp_path: Path) -> Bench:
    """A loader whose one version has failed once, and is not tried again for minutes."""
    bench = Bench(opener, attempts=5, backoff_s=300)
    found, _ = unreadable(tmp_path)
    bench.loader.submit(found)
    deadline = time.monotonic() + WAIT_S
    while not bench.told.count("attempt"):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return bench


def test_closing_interrupts_the_wait_for_the_next_try(opener: Opener, tmp_path: Path) -> None:
    bench = waiting_for_its_next_try(opener, tmp_path)
    bench.loader.close(WAIT_S)
    done = bench.next()
    assert (done.loaded, done.failure) == (None, None)


def test_a_cancelled_version_ends_with_neither(tmp_path: Path, opener: Opener) -> None:
    bench = waiting_for_its_next_try(opener, tmp_path)
    bench.loader.cancel(("m", 1))
    done = bench.next()
    assert (done.loaded, done.failure) == (None, None)
    bench.loader.close(WAIT_S)


def test_a_failing_model_that_waits_does_not_keep_others_from_loading(opener: Opener, tmp_path: Path) -> None:
    bench = Bench(opener, attempts=5, backoff_s=300)
    for index in range(4):
        found, _ = unreadable(tmp_path / str(index))
        bench.loader.submit(locate_as(found, f"broken-{index}"))
    bench.loader.submit(located(zoo.put(zoo.sequential(), tmp_path, "good", 1, "keras"), "good"))
    assert bench.next().located.key == "good"
    bench.loader.close(WAIT_S)


def locate_as(found: Located, key: str) -> Located:
    return Located(key, 1, found.path, found.files, found.fingerprint, None)


def test_a_withdrawn_version_is_neither_loaded_nor_failed(tmp_path: Path, bench: Bench) -> None:
    folder = zoo.put(zoo.sequential(), tmp_path, "m", 1, "keras")
    found = located(folder)
    folder.rename(tmp_path / "gone")
    bench.loader.submit(found)
    done = bench.next()
    assert done.loaded is None
    assert done.failure is None
