"""Versions come, are corrupt and go while jobs flow: each job is answered, by a version that was valid for it."""

import threading
from pathlib import Path

from consumer.local import LocalKafka
from tests import models_zoo as zoo
from tests.conftest import Topics
from tests.replica import options, replica, until
from tests.stream import Stream
from tests.swaps import MODEL, Kind, Swaps, build, problems

RATE = 200.0
PLAN: tuple[Kind, ...] = ("good", "corrupt", "withdrawn", "good", "corrupt", "good")


def test_a_steady_stream_while_versions_are_swapped(kafka: LocalKafka, topics: Topics, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    folders = build(tmp_path, len(PLAN) + 1)
    zoo.publish(folders[0], store, MODEL, 1)
    stream = Stream(kafka, topics, MODEL)
    with replica(tmp_path / "log", **options(kafka, topics, store, PRELOAD=MODEL)) as process:
        process.wait_ready()
        done = threading.Event()
        publisher = stream.publish(RATE, lambda _: done.is_set())
        swaps = Swaps(store, process, stream)
        try:
            for version, kind in enumerate(PLAN, start=2):
                swaps.swap(folders[version - 1], version, kind)
            after = stream.published
            until(lambda: stream.published > after + RATE, 10, "jobs after the last swap")
        finally:
            done.set()
            publisher.join(30)
        until(lambda: stream.collect() == 0, 60, "an answer to every job")
        assert process.stop() == 0
    assert swaps.served == [1, 2, 4, 2, 5, 7]
    assert problems(stream, swaps.served, swaps.marks) == []
    assert {answer.version for answer in stream.answers.values()} >= {1, 2, 5, 7}
    failed = {event["version"] for event in process.events("load failed")}
    assert failed == {3, 6}
