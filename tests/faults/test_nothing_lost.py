"""Nothing is lost: processes killed, brokers stopped, partitions moved, a model's files out of reach."""

import resource
from collections import Counter
from pathlib import Path

import msgpack
import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from kafka import KafkaAdminClient

from consumer.local import LocalKafka
from tests import stores
from tests.conftest import Topics, fresh_topics
from tests.replica import replica, until

JOBS = 3_000
ANSWERS_S = 60.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores.write(tmp_path_factory.mktemp("store"))


def options(kafka: LocalKafka, topics: Topics, store: Path) -> dict[str, object]:
    return {
        "BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBS_TOPIC": topics.jobs,
        "PREDICTIONS_TOPIC": topics.predictions,
        "DEAD_LETTERS_TOPIC": topics.dead_letters,
        "GROUP_ID": topics.jobs,
        "MODEL_STORE": store,
        "PRELOAD": stores.DOUBLE,
        "MAX_BATCH_ROWS": 16,
    }


class Ledger:
    """Jobs published by id, and what each of them became."""

    def __init__(self, kafka: LocalKafka, topics: Topics) -> None:
        self._topics = topics
        # Brokers are stopped here on purpose: librdkafka's own lines about it (level 3) would bury the tests' output.
        quiet = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}
        self._producer = Producer(quiet | {"linger.ms": 1})
        self._consumer = Consumer(
            quiet
            | {
                "group.id": f"ledger-{topics.jobs}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign(
            [
                TopicPartition(topic, number, 0)
                for topic in (topics.predictions, topics.dead_letters)
                for number in (0, 1)
            ]
        )
        self.published = 0
        self.answers: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()

    def publish(self, count: int, model: str = stores.DOUBLE) -> None:
        """Jobs with the ids that follow; every tenth cannot be read."""
        for number in range(self.published, self.published + count):
            data = np.float32([number]).tobytes()
            inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": data}]
            value = msgpack.packb({"id": str(number), "inputs": inputs}) if number % 10 else b"\xc1"
            headers = [("model-key", model.encode()), ("correlation-id", str(number).encode())]
            self._producer.produce(self._topics.jobs, value, headers=headers, partition=number % 2)
            self._producer.poll(0)
        self.published += count
        assert self._producer.flush(30) == 0

    def collect(self) -> int:
        """Read what has come; how many jobs have an answer."""
        for message in self._consumer.consume(1_000, 0.2):
            if message.error() is not None:
                continue  # a broker that is away; nothing is read, so nothing is missed
            headers = dict(message.headers())
            number = int(headers["correlation-id"])
            if message.topic() == self._topics.predictions:
                document = msgpack.unpackb(message.value())
                [double] = np.frombuffer(document["outputs"][0]["data"], "<f4")
                assert (document["id"], double) == (str(number), 2 * number)
                outcome = "prediction"
            else:
                outcome = headers["dlq-reason"].decode()
            if not self.answers[number]:
                self.reasons[outcome] += 1
            self.answers[number] += 1
        return len(self.answers)

    def settle(self) -> None:
        """Wait until every job is answered, and check what by."""
        until(lambda: self.collect() == self.published, ANSWERS_S, "an answer to every job")
        unreadable = len([number for number in range(self.published) if number % 10 == 0])
        assert self.reasons == {"bad-body": unreadable, "prediction": self.published - unreadable}

    @property
    def duplicates(self) -> int:
        """Answers beyond the first of each job."""
        return self.answers.total() - len(self.answers)


def lag(kafka: LocalKafka, topics: Topics) -> int:
    """Jobs that the group has not committed."""
    probe = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topics.jobs})
    try:
        partitions = [TopicPartition(topics.jobs, number) for number in (0, 1)]
        ends = [probe.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions]
        committed = [max(partition.offset, 0) for partition in probe.committed(partitions, timeout=10)]
        return sum(ends) - sum(committed)
    finally:
        probe.close()


def test_a_consumer_killed_in_mid_stream(kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path) -> None:
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "first.log", **options(kafka, topics, store)) as first:
        first.wait_ready()
        ledger.publish(JOBS)
        until(lambda: ledger.collect() > JOBS // 10, ANSWERS_S, "some answers")
        first.kill()
    with replica(tmp_path / "second.log", **options(kafka, topics, store)) as second:
        ledger.publish(JOBS)
        ledger.settle()
        assert second.wait_ready().stop() == 0
    assert lag(kafka, topics) == 0


def test_a_stop_answers_what_is_in_hand_and_commits_it(
    kafka: LocalKafka, topics: Topics, store: Path, tmp_path: Path
) -> None:
    ledger = Ledger(kafka, topics)
    with replica(tmp_path / "first.log", **options(kafka, topics, store)) as first:
        first.wait_ready()
        ledger.publish(JOBS)
        until(lambda: ledger.collect() > JOBS // 10, ANSWERS_S, "some answers")
        assert first.stop() == 0
        assert first.events("drained")[-1]["jobs_left"] == 0
    with replica(tmp_path / "second.log", **options(kafka, topics, store)) as second:
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
        replica(tmp_path / "first.log", **options(kafka, topics, store)) as first,
        replica(tmp_path / "second.log", **options(kafka, topics, store)) as second,
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
        with replica(tmp_path / "replica.log", **options(kafka, topics, store)) as process:
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
    with replica(tmp_path / "replica.log", **options(kafka, topics, store)) as process:
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
    with replica(tmp_path / "replica.log", LOAD_ATTEMPTS=2, **options(kafka, topics, store)) as process:
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
