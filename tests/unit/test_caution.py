"""How jobs that end the process are found: starts counted, jobs tried alone, and nobody else accused."""

from collections.abc import Iterable, Mapping

import pytest
from kafka import TopicPartition

from tests.fake_kafka import ALLOWED, TOPIC, FakeKafka, start


def marked(log: Mapping[int, Iterable[int]], places: Mapping[int, tuple[int, str]]) -> FakeKafka:
    kafka = FakeKafka(log)
    kafka.places.update(places)
    return kafka


# starts -------------------------------------------------------------------------------------------------------------


def test_every_start_is_counted_beside_the_first_job_until_there_are_enough() -> None:
    kafka = marked({0: range(5, 10)}, {0: (5, "")})
    for count in range(1, ALLOWED + 1):
        process = start(kafka)
        assert len(process.turn()) == 5
        assert not process.caution.careful
        assert kafka.places[0] == (5, f"loadonce starts={count}")
    process = start(kafka)
    assert process.turn() == [(0, 5)]
    assert process.caution.careful
    assert process.told == [(0, 5, 10)]


def test_a_start_without_a_committed_offset_is_counted_at_the_first_job() -> None:
    kafka = FakeKafka({0: [3, 4]})
    assert start(kafka).turn() == [(0, 3), (0, 4)]
    assert kafka.places == {0: (3, "loadonce starts=1")}


def test_an_offset_that_moves_on_loses_the_count() -> None:
    kafka = FakeKafka({0: range(5)})
    process = start(kafka)
    process.turn()
    process.answer((0, 0))
    assert process.source.commit(1)
    assert kafka.places[0] == (1, "")


def test_a_stop_before_anything_was_answered_puts_back_the_count() -> None:
    kafka = marked({0: range(5)}, {0: (0, "loadonce starts=1")})
    process = start(kafka)
    process.turn()
    assert kafka.places[0] == (0, "loadonce starts=2")
    assert process.stop()
    assert kafka.places[0] == (0, "loadonce starts=1")


@pytest.mark.parametrize("text", ["loadonce starts=2", "loadonce alone"])
def test_what_is_written_outlives_commits_before_it_is_read(text: str) -> None:
    kafka = marked({0: range(5, 8)}, {0: (5, text)})
    kafka.giving = False
    process = start(kafka)
    assert process.turn() == []
    assert process.source.commit(1)  # an assignment, and no records yet
    assert kafka.places[0] == (5, text)
    kafka.giving, kafka.answering = True, False
    assert process.turn() == []  # records, and no answer what is written
    kafka.answering = True
    assert process.source.commit(1)
    assert kafka.places[0] == (5, text)
    process.turn()
    assert process.poison or process.caution.careful


def test_a_group_that_begins_at_the_end_comes_back_to_it() -> None:
    kafka = FakeKafka({0: [8]})
    kafka.giving = False
    process = start(kafka)
    process.turn()
    process.consumer.seek(TopicPartition(TOPIC, 0), 9)
    assert process.source.commit(1)
    assert kafka.places == {0: (9, "")}


@pytest.mark.parametrize(
    "text", ["x" * 4096, "loadonce alone ", "loadonce starts=99999", "loadonce starts=٣", "\0", "{}"], ids=ascii
)
def test_what_others_write_accuses_nobody(text: str) -> None:
    kafka = marked({0: range(5, 8)}, {0: (5, text)})
    process = start(kafka)
    assert len(process.turn()) == 3
    assert process.poison == []
    assert kafka.places[0] == (5, "loadonce starts=1")


# alone --------------------------------------------------------------------------------------------------------------


def test_jobs_are_tried_alone_as_far_as_an_earlier_process_can_have_had_them_in_hand() -> None:
    kafka = marked({0: range(5, 8)}, {0: (5, "loadonce starts=2")})
    process = start(kafka)
    for offset in (5, 6, 7):
        assert process.turn() == [(0, offset)]
        assert kafka.places[0] == (offset, "loadonce alone")
        assert process.turn() == []  # it has its answer first
        process.answer((0, offset))
    kafka.log[0] += [8, 9]
    assert process.turn() == [(0, 8), (0, 9)]
    assert not process.caution.careful
    assert kafka.places[0] == (8, "")


def test_the_one_that_ended_its_process_alone_is_rejected_and_all_others_are_given() -> None:
    kafka = marked({0: [7, 8, 9]}, {0: (7, "loadonce alone")})
    process = start(kafka)
    assert process.turn() == []
    assert process.poison == [(0, 7)]
    assert process.turn() == []  # not before its dead letter is there
    process.answer((0, 7))
    assert process.turn() == [(0, 8), (0, 9)]
    assert kafka.places[0] == (8, "")


@pytest.mark.parametrize(
    "log", [range(5, 30), range(6, 60, 2), [5, *range(20, 40, 3)]], ids=["no gaps", "markers", "a gap"]
)
@pytest.mark.parametrize("commit", ["never", "before the first records", "in hand", "answered"])
def test_a_job_that_ends_processes_is_found_by_the_fourth(log: Iterable[int], commit: str) -> None:
    kafka = marked({0: log}, {0: (5, "")})
    poison = kafka.log[0][5]
    lives = 0

    def live() -> bool:
        """Whether it has found the job."""
        process = start(kafka)
        if commit == "before the first records":
            kafka.giving = False
            process.turn()
            process.source.commit(1)
            kafka.giving = True
        while not process.poison:
            jobs = process.turn()
            if commit == "in hand":
                process.source.commit(1)
            if (0, poison) in jobs:
                return False
            process.answer(*jobs)
            if commit == "answered":
                process.source.commit(1)
        return process.poison == [(0, poison)]

    while not live():
        lives += 1
        assert lives < ALLOWED + 2
    assert lives == ALLOWED + 1


# accusations that would be false --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "taken away"])
@pytest.mark.parametrize("answered", [0, 1])
def test_a_job_is_not_accused_where_its_process_ends_in_order(how: str, answered: int) -> None:
    kafka = marked({0: [5, 6, 7]}, {0: (5, "loadonce starts=2")})
    process = start(kafka)
    for offset in range(5, 5 + answered):
        assert process.turn() == [(0, offset)]
        process.answer((0, offset))
    tried = 5 + answered
    assert process.turn() == [(0, tried)]  # its model is being loaded, say
    if how == "stopped":
        assert process.stop()
    else:
        process.consumer.take(0)
    assert kafka.places[0] == (tried, "loadonce starts=2")
    following = start(kafka)
    assert following.turn() == [(0, tried)]
    assert following.poison == []
    assert following.caution.careful


def test_a_mark_that_may_have_been_written_is_taken_back() -> None:
    kafka = marked({0: [5, 9]}, {0: (5, "loadonce starts=2")})
    process = start(kafka)
    process.turn()
    process.answer((0, 5))
    kafka.confirming = False
    assert process.turn() == []
    assert kafka.places[0] == (9, "loadonce alone")
    kafka.confirming = True
    assert process.stop()
    assert kafka.places[0] == (6, "loadonce starts=2")


def test_a_process_does_not_believe_its_own_mark() -> None:
    kafka = marked({0: [5, 6]}, {0: (5, "loadonce starts=2")})
    process = start(kafka)
    assert process.turn() == [(0, 5)]
    process.consumer.lose(0)  # cut off from Kafka for longer than a session, and nobody else was there
    process.consumer.give(0)
    assert process.soon() == [(0, 5)]
    assert process.poison == []
    assert process.caution.careful


def test_the_mark_of_a_partition_that_was_lost_and_is_not_read_again_yet_is_replaced() -> None:
    kafka = marked({0: [3, 4], 1: [5, 6]}, {0: (3, "loadonce starts=2"), 1: (5, "loadonce starts=2")})
    process = start(kafka)
    assert process.turn() == [(0, 3)]
    process.consumer.lose(0)
    process.consumer.give(0)
    assert process.turn() == [(1, 5)]
    assert kafka.places == {0: (3, "loadonce starts=2"), 1: (5, "loadonce alone")}


def test_a_mark_of_a_job_that_is_gone_accuses_no_other() -> None:
    kafka = marked({0: [8, 9]}, {0: (5, "loadonce alone")})
    process = start(kafka)
    assert process.turn() == [(0, 8)]
    assert process.poison == []
    assert kafka.places[0] == (8, "loadonce alone")


def test_no_mark_is_written_for_a_partition_that_is_somebody_elses_by_now() -> None:
    kafka = marked({0: [5, 6], 1: [0]}, {0: (5, "loadonce starts=2")})
    process = start(kafka)
    process.turn()
    process.answer((0, 5))
    process.consumer.take(0)  # on the client's thread: the next poll will say so
    released = kafka.places[0]
    assert process.caution.pass_on([], idle=True) == ([], [])
    assert kafka.places[0] == released


# a producer that fails ------------------------------------------------------------------------------------------------


def test_poison_stays_marked_until_its_dead_letter_is_there() -> None:
    kafka = marked({0: [7, 8, 9]}, {0: (7, "loadonce alone")})
    process = start(kafka)
    process.turn()
    assert process.source.commit(1)
    assert kafka.places[0] == (7, "loadonce alone")
    assert process.stop()
    assert kafka.places[0] == (7, "loadonce alone")


def test_poison_is_rejected_again_where_its_dead_letter_was_lost() -> None:
    kafka = marked({0: [7, 8, 9]}, {0: (7, "loadonce alone")})
    process = start(kafka)
    process.turn()
    for _ in range(3):
        process.source.commit(1)
        process.source.rewind()  # the producer has failed
        assert process.soon() == []
    assert process.poison == [(0, 7)] * 4
    process.answer((0, 7))
    assert process.turn() == [(0, 8), (0, 9)]


def test_a_job_whose_answer_was_lost_is_tried_alone_again() -> None:
    kafka = marked({0: [5, 6]}, {0: (5, "loadonce starts=2")})
    process = start(kafka)
    assert process.turn() == [(0, 5)]
    process.source.rewind()
    assert process.soon() == [(0, 5)]
    assert kafka.places[0] == (5, "loadonce alone")


def test_a_job_whose_answer_was_lost_is_not_accused_of_what_happens_until_it_is_read_again() -> None:
    kafka = marked({0: [3], 1: [5, 6]}, {0: (3, "loadonce starts=2"), 1: (5, "loadonce starts=2")})
    process = start(kafka)
    assert process.turn() == [(0, 3)]
    process.answer((0, 3))
    assert process.turn() == [(1, 5)]
    process.source.rewind()
    kafka.log[0].append(4)
    assert process.turn() == []
    assert kafka.places == {0: (4, ""), 1: (5, "loadonce starts=2")}
    assert process.soon() == [(0, 4)]  # none of those that are tried, and nothing else is marked meanwhile
    assert kafka.places == {0: (4, ""), 1: (5, "loadonce starts=2")}


# two partitions -------------------------------------------------------------------------------------------------------


def test_only_the_job_that_is_tried_is_marked() -> None:
    kafka = marked({0: [3], 1: [5, 6]}, {0: (3, "loadonce starts=2"), 1: (5, "loadonce starts=2")})
    process = start(kafka)
    assert process.turn() == [(0, 3)]
    process.answer((0, 3))
    assert process.turn() == [(1, 5)]
    assert kafka.places == {0: (4, ""), 1: (5, "loadonce alone")}
    following = start(kafka)
    following.turn()
    assert following.poison == [(1, 5)]


def test_poison_that_has_its_dead_letter_is_not_rejected_again_for_what_follows_elsewhere() -> None:
    kafka = marked({0: [5, 6], 1: [7, 8]}, {0: (5, "loadonce starts=2"), 1: (7, "loadonce alone")})
    process = start(kafka)
    assert process.turn() == []
    process.answer((1, 7))
    assert process.turn() == [(0, 5)]
    assert kafka.places == {0: (5, "loadonce alone"), 1: (8, "")}


def test_a_partition_that_is_taken_away_ends_the_search_there_alone() -> None:
    kafka = marked({0: [3, 4], 1: [5, 6, 7]}, {0: (3, "loadonce starts=2")})
    process = start(kafka)
    assert process.turn() == [(0, 3)]
    process.consumer.take(0)
    assert process.turn() == [(1, 5), (1, 6), (1, 7)]
    assert not process.caution.careful
    assert kafka.places == {0: (3, "loadonce starts=2"), 1: (5, "loadonce starts=1")}


def test_nothing_is_alone_beside_a_job_that_went_elsewhere_and_is_still_predicted() -> None:
    kafka = marked({0: [3, 4], 1: [5, 6]}, {0: (3, "loadonce starts=2"), 1: (5, "loadonce starts=2")})
    process = start(kafka)
    assert process.turn() == [(0, 3)]
    process.consumer.take(0)
    assert process.turn(idle=False) == []
    assert kafka.places[1] == (5, "loadonce starts=3")
    assert process.turn() == [(1, 5)]
