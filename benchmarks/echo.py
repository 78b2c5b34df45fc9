"""What kafka-python can do at the most: each record goes to another topic as it came, and nothing is looked at.

python -m benchmarks.echo BOOTSTRAP_SERVERS JOBS_TOPIC PREDICTIONS_TOPIC JOBS

At least once: offsets are committed behind a flush, five times a second.
"""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer

COMMIT_S = 0.2


def main(*arguments: str) -> None:
    """Copy so many records, with polls of 500, then end."""
    servers, jobs, predictions, count = arguments
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
    while done < int(count):
        for records in consumer.poll(200).values():
            for record in records:
                producer.send(
                    predictions, record.value, key=record.key, headers=record.headers, partition=record.partition
                )
            done += len(records)
        if time.monotonic() >= commit_at or done >= int(count):
            producer.flush()
            consumer.commit()
            commit_at = time.monotonic() + COMMIT_S
    producer.close()
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
