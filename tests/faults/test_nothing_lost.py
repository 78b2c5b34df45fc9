"""Nothing is lost: processes killed, brokers stopped, partitions moved, a model's files out of reach."""

import resource
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import Topics, fresh_topics
from tests.ledger import ANSWERS_S, Ledger, lag
from tests.replica import options, replica, until

JOBS = 3_000


OPTIONS = {"PRELOAD": stores.DOUBLE, "MAX_BATCH_ROWS": 16}


def test_a_consumer_killed_in_mid_stream(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "first.log", **options(kafka, topics, store, **OPTIONS)) as first:
        first.wait_ready()
        ledger.publish(JOBS)
        until(lambda: ledger.collect() > JOBS // 10, ANSWERS_S, "some answers")
        first.kill()
    with replica(tmp_path / "second.log", **options(kafka, topics, store, **OPTIONS)) as second:
        ledger.publish(JOBS)
        ledger.settle()
        assert second.wait_ready().stop() == 0
    assert lag(kafka, topics) == 0


def test_a_stop_answers_what_is_in_hand_and_commits_it(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "first.log", **options(kafka, topics, store, **OPTIONS)) as first:
        first.wait_ready()
        ledger.publish(JOBS)
        until(lambda: ledger.collect() > JOBS // 10, ANSWERS_S, "some answers")
        assert first.stop() == 0
        assert first.events("drained")[-1]["jobs_left"] == 0
    with replica(tmp_path / "second.log", **options(kafka, topics, store, **OPTIONS)) as second:
        ledger.publish(JOBS)
        ledger.settle()
        assert second.wait_ready().stop() == 0
    assert ledger.duplicates == 0
    assert lag(kafka, topics) == 0


def test_replicas_that_come_and_go_in_mid_stream(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    with (
        replica(tmp_path / "first.log", **options(kafka, topics, store, **OPTIONS)) as first,
        replica(tmp_path / "second.log", **options(kafka, topics, store, **OPTIONS)) as second,
    ):
        first.wait_ready()

        def shared() -> bool:
            ledger.publish(100)
            ledger.collect()
            return all(len((one.get("/readyz")[1] or {}).get("partitions", ())) == 1 for one in (first, second))

        until(shared, ANSWERS_S, "a partition each")
        ledger.publish(JOBS)
        assert first.stop() == 0
        ledger.publish(JOBS)
        ledger.settle()
        assert second.stop() == 0
    assert lag(kafka, topics) == 0


def test_a_broker_that_goes_away_and_comes_back(store: Path, tmp_path: Path) -> None:
    with LocalKafka() as kafka:
        topics = fresh_topics(kafka)
        ledger = Ledger(kafka, topics)
        with replica(tmp_path / "replica.log", **options(kafka, topics, store, **OPTIONS)) as process:
            process.wait_ready()
            ledger.publish(JOBS)
            until(lambda: ledger.collect() > JOBS // 10, ANSWERS_S, "some answers")
            kafka.nodes[0].kill()
            kafka.nodes[0].start()
            ledger.publish(JOBS)
            ledger.settle()
            assert process.stop() == 0
        assert lag(kafka, topics) == 0


def test_a_record_that_the_broker_refuses_costs_the_producer_and_no_job(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "replica.log", **options(kafka, topics, store, **OPTIONS)) as process:
        process.wait_ready()
        ledger.publish(100)
        ledger.settle()
        # The limit sinks under a running producer: what it sends next is refused, and it is useless from then on.
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        _limit(admin, topics.predictions, "100")
        ledger.publish(10)
        until(lambda: process.events("publishing failed"), ANSWERS_S, "a producer that failed")
        until(lambda: ledger.collect() == 110, ANSWERS_S, "answers")
        assert ledger.reasons == {"bad-body": 11, "prediction": 90, "output-too-large": 9}
        until(lambda: process.get("/readyz")[0] == 200, ANSWERS_S, "readiness")
        assert process.stop() == 0
        admin.close()


def test_a_store_that_cannot_be_read_for_a_while(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "replica.log", LOAD_ATTEMPTS=2, **options(kafka, topics, store, **OPTIONS)) as process:
        process.wait_ready()
        # Linux lets one process lower another's limits: from now on the replica can open nothing more (EMFILE).
        limits = resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        ledger.publish(2, stores.UPPER)
        until(lambda: ledger.collect() == 2, ANSWERS_S, "answers while the model cannot be opened")
        assert ledger.reasons == {"model-unavailable": 2}
        resource.prlimit(process.process.pid, resource.RLIMIT_NOFILE, limits)

        def answered_by_the_model() -> bool:
            ledger.publish(1, stores.UPPER)
            until(lambda: ledger.collect() == ledger.published, ANSWERS_S, "an answer")
            return ledger.reasons["bad-input"] > 0  # it takes text, and says so

        until(answered_by_the_model, ANSWERS_S, "a model that loads")
        assert len(process.events("load attempt failed")) >= 1
        assert len(process.events("load failed")) >= 1
        assert process.stop() == 0


def _limit(admin: KafkaAdminClient, topic: str, limit: str) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": limit})])


class _NotUtf8(str):
    """A header name as other clients may write it."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


def test_records_that_the_client_cannot_parse(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    ledger = Ledger(kafka, topics)
    ledger.publish(10)
    foreign = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    places = [
        foreign.send(topics.jobs, b"", headers=[(_NotUtf8("ab"), b"x")], partition=partition).get(timeout=10)
        for partition in (0, 1, 1)
    ]
    foreign.close(timeout=10)
    ledger.publish(10)
    with replica(tmp_path / "replica.log", **options(kafka, topics, store, **OPTIONS)) as process:
        until(lambda: ledger.collect() and len(ledger.unparsed) == 3, ANSWERS_S, "dead letters")
        ledger.settle()
        assert sorted(ledger.unparsed) == sorted(
            (f"{place.topic}/{place.partition}/{place.offset}", "bad-header") for place in places
        )
        assert process.stop() == 0
    assert lag(kafka, topics) == 0
