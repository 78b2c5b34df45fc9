"""Jobs of one model do not notice what happens to another; the process does as it is told."""

import signal
from pathlib import Path

import pytest

from consumer.local import LocalKafka
from consumer.models.opening import Opener
from tests import stores
from tests.conftest import Topics
from tests.ledger import ANSWERS_S, Ledger, lag
from tests.replica import STOP_S, options, replica, until


def test_jobs_of_other_models_go_on_while_a_model_loads(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "log", **options(kafka, topics, store, PRELOAD=stores.DOUBLE)) as process:
        process.wait_ready()
        ledger.publish(2, stores.SLOW)
        ledger.publish(200, stores.DOUBLE)
        ledger.settle()
        slow = ledger.answered_ms[1]
        others = [ledger.answered_ms[number] for number in range(2, 202)]
        assert max(others) < slow
        assert [event["model"] for event in process.events("model loaded")] == [stores.DOUBLE, stores.SLOW]
        assert process.stop() == 0


def test_more_jobs_than_may_wait_for_a_model_wait_in_their_partitions(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    ledger.publish(500, stores.SLOW)
    with replica(
        tmp_path / "log",
        **options(kafka, topics, store, MAX_PARKED_JOBS=10, MAX_IN_FLIGHT_JOBS=50, MAX_IN_FLIGHT_BYTES="10KiB"),
    ) as process:
        ledger.settle()
        assert len(process.events("model loaded")) == 1
        assert process.stop() == 0
    assert ledger.duplicates == 0
    assert lag(kafka, topics) == 0


def test_a_job_for_a_model_that_was_just_stored_finds_it(
    kafka: LocalKafka, topics: Topics, store: Path, opener: Opener, tmp_path: Path
) -> None:
    from consumer.models.edit import add_version

    own = tmp_path / "store"
    own.mkdir()
    ledger = Ledger(kafka, topics)
    # The store is looked at once an hour: it is the job that has it looked at.
    with replica(tmp_path / "log", **options(kafka, topics, own, STORE_POLL_S=3600)) as process:
        process.wait_ready()
        ledger.publish(2, stores.DOUBLE)
        until(lambda: ledger.collect() == 2, ANSWERS_S, "dead letters")
        assert ledger.reasons == {"unknown-model": 2}
        add_version(own, stores.DOUBLE, store / stores.DOUBLE / "1", opener=opener)
        ledger.publish(2, stores.DOUBLE)
        until(lambda: ledger.collect() == 4, ANSWERS_S, "predictions")
        assert ledger.reasons == {"unknown-model": 2, "prediction": 2}
        assert process.stop() == 0


def test_a_newer_version_is_taken_up_and_a_corrupt_one_is_not(
    kafka: LocalKafka, topics: Topics, store: Path, opener: Opener, tmp_path: Path
) -> None:
    from consumer.models.edit import add_version

    own = tmp_path / "store"
    own.mkdir()
    add_version(own, stores.DOUBLE, store / stores.DOUBLE / "1", opener=opener)
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "log", **options(kafka, topics, own, PRELOAD=stores.DOUBLE)) as process:
        process.wait_ready()
        ledger.publish(10)
        ledger.settle()
        add_version(own, stores.DOUBLE, store / stores.DOUBLE / "1", opener=opener)

        def loaded() -> list[int]:
            return [event["version"] for event in process.events("model loaded")]

        until(lambda: loaded() == [1, 2], ANSWERS_S, "version 2")
        broken = own / stores.DOUBLE / "3"
        broken.mkdir()
        (broken / "model.keras").write_bytes(b"PK\x03\x04 not a model")
        until(lambda: process.events("load failed"), ANSWERS_S, "a failed load")
        ledger.publish(10)
        ledger.settle()
        assert loaded() == [1, 2]
        assert process.events("load failed")[0]["version"] == 3
        assert process.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_loop_begins_ends_in_order(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with replica(tmp_path / "log", **options(kafka, topics, store, PRELOAD=stores.SLOW)) as process:
        until(lambda: process.events("http listening"), STOP_S, "a start")
        process.process.send_signal(number)
        assert process.process.wait(STOP_S) == 0
