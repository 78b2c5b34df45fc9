"""What reaches the log."""

import logging

from consumer.observe.logs import AGAIN_S, NotAgain


def _record(name: str, line: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "conn.py", line, text, (), None)


def test_the_kafka_client_says_the_same_once_in_a_while_and_how_often_it_was() -> None:
    now = 100.0
    notes = NotAgain(lambda: now)
    assert notes.filter(_record("kafka.conn", 1, "cannot connect to a"))
    assert not notes.filter(_record("kafka.conn", 1, "cannot connect to b"))
    assert not notes.filter(_record("kafka.conn", 1, "cannot connect to c"))
    assert notes.filter(_record("kafka.conn", 2, "something else"))
    now += AGAIN_S
    again = _record("kafka.conn", 1, "cannot connect to d")
    assert notes.filter(again)
    assert again.getMessage() == "cannot connect to d (and 2 more of its kind)"
    now += AGAIN_S
    last = _record("kafka.conn", 1, "cannot connect to e")
    assert notes.filter(last)
    assert last.getMessage() == "cannot connect to e"


def test_what_loadonce_says_is_always_written() -> None:
    notes = NotAgain(lambda: 0.0)
    assert all(notes.filter(_record("loadonce", 1, "dead letter")) for _ in range(3))
