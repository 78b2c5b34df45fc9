"""A topic full of jobs that contenders work off in turn, and how fast, by what they answer."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgpack
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from consumer.local import LocalKafka
from tests import models_zoo as zoo
from tests.conftest import PARTITIONS, Topics, fresh_topics
from tests.replica import options, replica

MODEL = "plus"
BIAS = 1
LIMIT_S = 300.0


class Backlog:
    """`jobs` jobs, [number, 0, 0, 0] each, for a model that adds BIAS to the sum of a row; its file is in `built`."""

    def __init__(self, kafka: LocalKafka, folder: Path, jobs: int) -> None:
        self._kafka = kafka
        self._folder = folder
        self.built = zoo.put(zoo.dense(bias=BIAS), folder / "built", MODEL, 1, "keras")
        zoo.publish(self.built, folder / "store", MODEL, 1)
        self._jobs = fresh_topics(kafka).jobs
        quiet = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}
        producer = Producer(quiet | {"queue.buffering.max.messages": jobs + 1, "linger.ms": 20})
        for number in range(jobs):
            data = np.array([number, 0, 0, 0], "<f4").tobytes()
            body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": data}]}
            headers = [("model-key", MODEL.encode()), ("correlation-id", str(number).encode())]
            producer.produce(self._jobs, msgpack.packb(body), headers=headers, partition=number % PARTITIONS)
            producer.poll(0)
        if producer.flush(120):
            raise SystemExit("the jobs could not be published")

    def by_loadonce(self, count: int) -> float:
        """Jobs a second of `loadonce run`, for the first `count` answers."""
        topics = self._topics()
        # A group of its own each time: the topic is read from its beginning.
        given = options(self._kafka, topics, self._folder / "store", PRELOAD=MODEL) | {"GROUP_ID": topics.predictions}
        log = self._folder / f"{topics.predictions}.log"
        with replica(log, **given | {"DISK_CACHE": self._folder / "disk-cache"}) as process:
            rate = self._rate(topics.predictions, count)
            process.stop()
        return rate

    def by_module(self, name: str, *arguments: str, count: int, echo: bool = False) -> float:
        """Jobs a second of `python -m NAME SERVERS JOBS PREDICTIONS [ARGUMENTS] COUNT`, which ends by itself.

        `echo`: it gives the jobs back as they are.
        """
        topics = self._topics()
        place = [self._kafka.bootstrap_servers, topics.jobs, topics.predictions]
        command = [sys.executable, "-m", name, *place, *arguments, str(count)]
        started = subprocess.Popen(command)  # noqa: S603 - our own module
        try:
            rate = self._rate(topics.predictions, count, echo=echo)
            started.wait(30)
        finally:
            started.kill()
            started.wait(30)
        return rate

    def _topics(self) -> Topics:
        fresh = fresh_topics(self._kafka)
        return Topics(self._jobs, fresh.predictions, fresh.dead_letters)

    def _rate(self, topic: str, count: int, *, echo: bool = False) -> float:
        """Wait for `count` answers, check each, and give their rate by their own timestamps."""
        quiet = {"bootstrap.servers": self._kafka.bootstrap_servers, "log_level": 2, "fetch.queue.backoff.ms": 5}
        consumer = Consumer(quiet | {"group.id": topic, "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        answers: dict[int, bytes] = {}
        times: list[int] = []
        deadline = time.monotonic() + LIMIT_S
        while len(answers) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"{topic}: {len(answers)} of {count} answers within {LIMIT_S:g} s")
            for message in consumer.consume(10_000, 0.2):
                answers[int(dict(message.headers())["correlation-id"])] = message.value()
                times.append(message.timestamp()[1])
        consumer.close()
        if len(times) != len(answers):
            raise SystemExit(f"{topic}: {len(times) - len(answers)} jobs were answered twice")
        for number, value in answers.items():
            document = msgpack.unpackb(value)
            found = _numbers(document["inputs"] if echo else document["outputs"])
            if found != ([number, 0, 0, 0] if echo else [number + BIAS] * 3):
                raise SystemExit(f"job {number}: {found}")
        return (count - 1) * 1000 / max(1, max(times) - min(times))


def _numbers(tensors: Sequence[dict[str, bytes]]) -> list[float]:
    numbers: list[float] = np.frombuffer(tensors[0]["data"], "<f4").tolist()
    return numbers
