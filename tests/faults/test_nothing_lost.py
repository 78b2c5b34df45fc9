"""Nothing is lost: processes killed, brokers stopped, partitions moved, a model's files out of reach."""

import resource
import signal
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer

from consumer.local import LocalKafka
from schemas import DeadLetter, OutcomeReader, Prediction, Reason
from schemas.headers import RawName
from tests import stores
from tests.conftest import PARTITIONS, Topics, fresh_topics
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
            ledger.publish(1_000)  # never idle: a busy replica must take part in the rebalance
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


def test_a_header_name_that_is_not_utf8_touches_its_own_job_only(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    # One producer batch, so that the client meets bad names in the middle of good jobs.
    foreign = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=1_000, batch_size=1_000_000)
    raw = (RawName.of(b"\xff\xfe"), b"x")
    for number in range(20):
        headers = [("model-key", b"double"), ("correlation-id", b"%d" % number), *([raw] if number % 3 == 0 else [])]
        foreign.send(topics.jobs, Ledger.body(number), headers=headers, partition=0)
    foreign.close(timeout=10)
    answers: dict[int, Prediction | DeadLetter] = {}
    with (
        replica(tmp_path / "replica.log", **options(kafka, topics, store, **OPTIONS)) as process,
        OutcomeReader(
            kafka.bootstrap_servers,
            predictions_topic=topics.predictions,
            dead_letters_topic=topics.dead_letters,
            start="earliest",
        ) as reader,
    ):

        def answered() -> bool:
            answers.update({outcome.position.offset: outcome for outcome in reader.poll(0.2)})
            return len(answers) == 20

        until(answered, ANSWERS_S, "an answer to every job")
        assert process.stop() == 0
    for number, outcome in answers.items():
        if number % 3:
            assert isinstance(outcome, Prediction)
            assert outcome.response.outputs[0].array == [[2 * number]]
        else:
            assert isinstance(outcome, DeadLetter)
            assert (outcome.reason, outcome.value) == (Reason.BAD_HEADER, Ledger.body(number))
            assert [name.encode() for name, _ in outcome.headers] == [b"model-key", b"correlation-id", b"\xff\xfe"]
    assert lag(kafka, topics) == 0


def test_a_record_damaged_on_disk(store: Path, tmp_path: Path) -> None:
    with LocalKafka(data_dir=tmp_path / "kafka") as kafka:
        topics = fresh_topics(kafka)
        ledger = Ledger(kafka, topics)
        for _ in range(6):
            ledger.publish(1)  # flushed, so that each has a batch of its own
        [segment] = (tmp_path / "kafka").rglob(f"{topics.jobs}-1/*.log")
        stored = segment.read_bytes()
        segment.write_bytes(stored.replace(Ledger.body(3), Ledger.body(3).replace(b"FP32", b"FP64")))
        with replica(tmp_path / "replica.log", **options(kafka, topics, store, **OPTIONS)) as process:
            until(lambda: ledger.collect() == 5 and ledger.unparsed, ANSWERS_S, "an answer to every job")
            assert ledger.unparsed == [(f"{topics.jobs}/1/1", "bad-header", True)]
            assert 3 not in ledger.answers
            assert process.stop() == 0
        assert lag(kafka, topics) == 0


def test_a_group_that_starts_at_the_end_goes_on_where_it_was(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    before = Ledger(kafka, topics)
    before.publish(10)
    latest = options(kafka, topics, store, AUTO_OFFSET_RESET="latest", **OPTIONS)
    with replica(tmp_path / "first.log", **latest) as process:
        process.wait_ready()
        assert process.stop() == 0
    ledger = Ledger(kafka, topics)
    ledger.publish(100)
    with replica(tmp_path / "second.log", **latest) as process:
        ledger.settle()
        assert process.stop() == 0
    assert lag(kafka, topics) == 0


def test_markers_of_transactions_leave_no_lag(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    ledger = Ledger(kafka, topics)
    ledger.publish(10)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=topics.jobs)
    producer.init_transactions()
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for partition in range(PARTITIONS):
            producer.send(topics.jobs, b"\xc1", headers=[("correlation-id", b"0")], partition=partition)
        producer.flush(10)
        end()
    producer.close(timeout=10)
    with replica(tmp_path / "replica.log", **options(kafka, topics, store, **OPTIONS)) as process:
        until(lambda: ledger.collect() == 10, ANSWERS_S, "an answer to every job")
        until(lambda: lag(kafka, topics) == 0, ANSWERS_S, "no lag")
        assert process.stop() == 0


def test_a_stop_without_a_broker_keeps_its_time(store: Path, tmp_path: Path) -> None:
    with LocalKafka() as kafka:
        topics = fresh_topics(kafka)
        ledger = Ledger(kafka, topics)
        with replica(tmp_path / "replica.log", DRAIN_S=5, **options(kafka, topics, store, **OPTIONS)) as process:
            process.wait_ready()
            ledger.publish(JOBS)
            until(lambda: ledger.collect() > 10, ANSWERS_S, "some answers")
            kafka.nodes[0].pause()
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(20) == 0
            assert process.events("drained")
            kafka.nodes[0].resume()
