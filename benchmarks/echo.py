"""What a Kafka client can do at the most: each record goes to another topic as it came, and nothing is looked at.

python -m benchmarks.echo CLIENT BOOTSTRAP_SERVERS JOBS_TOPIC PREDICTIONS_TOPIC JOBS

At least once: offsets are committed behind a flush, five times a second.
"""

import sys
import time
from collections.abc import Callable

COMMIT_S = 0.2


def kafka_python(servers: str, jobs: str, predictions: str, count: int) -> None:
    """kafka-python, with polls of 500 records."""
    from kafka import KafkaConsumer, KafkaProducer  # noqa: PLC0415 - one client a process

    consumer = KafkaConsumer(
        jobs,
        bootstrap_servers=servers,
        group_id=f"echo-{predictions}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=500,
    )
    producer = KafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=5, batch_size=262_144)
    done, commit_at = 0, 0.0
    while done < count:
        for records in consumer.poll(200).values():
            for record in records:
                producer.send(
                    predictions, record.value, key=record.key, headers=record.headers, partition=record.partition
                )
            done += len(records)
        if time.monotonic() >= commit_at or done >= count:
            producer.flush()
            consumer.commit()
            commit_at = time.monotonic() + COMMIT_S
    producer.close()
    consumer.close()


def confluent(servers: str, jobs: str, predictions: str, count: int) -> None:
    """confluent-kafka (librdkafka), in bulk calls of 1,000 records."""
    from confluent_kafka import Consumer, Producer  # noqa: PLC0415

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"echo-{predictions}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = Producer(
        {"bootstrap.servers": servers, "acks": "all", "linger.ms": 5, "queue.buffering.max.messages": 1_000_000}
    )
    consumer.subscribe([jobs])
    done, commit_at = 0, 0.0
    while done < count:
        messages = consumer.consume(1_000, 0.2)
        for message in messages:
            producer.produce(
                predictions,
                message.value(),
                key=message.key(),
                headers=message.headers(),
                partition=message.partition(),
            )
        producer.poll(0)
        done += len(messages)
        if messages and (time.monotonic() >= commit_at or done >= count):
            producer.flush()
            consumer.commit(asynchronous=False)
            commit_at = time.monotonic() + COMMIT_S
    consumer.close()


CLIENTS: dict[str, Callable[[str, str, str, int], None]] = {"kafka-python": kafka_python, "confluent": confluent}


if __name__ == "__main__":
    _, client, servers_, jobs_, predictions_, count_ = sys.argv
    CLIENTS[client](servers_, jobs_, predictions_, int(count_))
