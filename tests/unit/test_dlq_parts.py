"""What `loadonce dlq` is made of, without a broker."""

import json
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters import deletion
from consumer.dead_letters.deletion import delete_handled
from consumer.dead_letters.journal import Place, Run
from consumer.dead_letters.judge import Command, Found, Rules, Stray, Verdict
from consumer.dead_letters.letter import Letter, read_letter
from consumer.dead_letters.marks import CHUNK, Marks, State
from consumer.dead_letters.reader import Reader
from consumer.dead_letters.seen import Seen
from consumer.dead_letters.selection import Selection, parse_time
from consumer.dead_letters.survey import MAX_GROUPS, OTHERS, Census, Plan
from consumer.delivery.dead_letters import dead_letter
from consumer.settings import load
from schemas.headers import Unopened
from schemas.messages import RawHeaders
from schemas.reasons import Failure, Reason, Stage

NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Record:
    """A record as the client gives it."""

    key: bytes | None
    value: bytes | None
    headers: RawHeaders
    topic: str = "dead"
    partition: int = 0
    offset: int = 0


def record(
    *headers: tuple[str, bytes],
    value: bytes = b"body",
    partition: int = 0,
    offset: int = 0,
    limit: int = 10_000,
    job: str = "jobs/1/2",
) -> Record:
    failure = Failure(Reason.BAD_INPUT, Stage.PREDICT, "why")
    dead = dead_letter(
        key=b"k",
        value=value,
        headers=headers,
        position=job,
        failure=failure,
        failed_at_ms=NOW_MS,
        consumer="c",
        limit=limit,
    )
    return Record(*dead, partition=partition, offset=offset)


def letter(*headers: tuple[str, bytes], **given: Any) -> Letter:
    found = read_letter(record(*headers, **given))
    assert found is not None
    return found


# a dead letter and its job -------------------------------------------------------------------------------------------


def test_the_job_comes_out_as_it_went_in() -> None:
    own = [("model-key", b"m"), ("a", b""), ("a", b"\xff"), ("b", b"2")]
    found = letter(*own)
    assert found.job_headers() == [*own, ("dlq-replays", b"1")]
    assert (found.model, found.replays, found.dead.value, found.position) == ("m", 0, b"body", "dead/0/0")


@pytest.mark.parametrize(
    ("given", "counted"), [(b"2", 2), (b"", 0), (b"-1", 0), (b"many", 0), (b"1" * 10, 0), ("٣".encode(), 0)]
)
def test_replays_are_counted_up_and_nonsense_is_none(given: bytes, counted: int) -> None:
    found = letter(("dlq-replays", given))
    assert found.replays == counted
    assert found.job_headers() == [("dlq-replays", b"%d" % (counted + 1))]


@pytest.mark.parametrize("name", [b"", b"../x", b"\xff", b"m" * 129, b"a b"])
def test_a_name_that_is_none_is_no_model(name: bytes) -> None:
    assert letter(("model-key", name), ("expires-at", b"soon")).model == ""


def test_what_is_no_dead_letter_is_none() -> None:
    assert read_letter(Record(None, None, [])) is None
    assert read_letter(Record(None, b"", [("dlq-reason", b"bad-body"), ("dlq-stage", b"decode")])) is None


def test_dead_letters_of_one_job_have_one_digest_and_others_another() -> None:
    one = letter(("a", b"1"))
    assert letter(("a", b"1"), offset=5).digest() == one.digest()
    others = [letter(("a", b"2")), letter(("a", b"1"), value=b"x"), letter(("a", b"1"), job="jobs/1/3"), letter()]
    assert len({one.digest(), *(other.digest() for other in others)}) == 5


# marks ---------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3 * CHUNK), st.sampled_from(State)), max_size=60))
def test_marks_are_kept_through_their_records(changes: list[tuple[int, int, State]]) -> None:
    marks, again, expected = Marks(), Marks(), {}
    for partition, offset, state in changes:
        key = marks.set(partition, offset, state)
        again.load(key, marks.value(key))
        expected[partition, offset] = state
    for place, state in expected.items():
        assert marks[place] is again[place] is state
        assert again[place[0] + 10, place[1]] is State.OPEN


def test_neighbours_stay_as_they_are() -> None:
    marks = Marks()
    marks.set(0, 9, State.REPLAYED)
    assert [marks[0, offset] for offset in (8, 9, 10, 9 + CHUNK)] == [
        State.OPEN,
        State.REPLAYED,
        State.OPEN,
        State.OPEN,
    ]


@pytest.mark.parametrize(
    ("key", "value"), [("0/0", b""), ("0/0", b"x" * 100), ("0", b"x" * 2_048), ("a/b", b"x" * 2_048), ("0/-1", None)]
)
def test_what_is_no_mark_is_refused(key: str, value: bytes | None) -> None:
    with pytest.raises(ValueError, match="not the"):
        Marks().load(key, value)


def test_chunks_of_what_is_gone_are_known_and_forgotten() -> None:
    marks = Marks()
    for partition, offset in ((0, 5), (0, CHUNK), (1, 5)):
        marks.set(partition, offset, State.DISCARDED)
    assert list(marks.before({0: CHUNK, 1: CHUNK - 1})) == ["0/0"]
    marks.load("0/0", None)
    assert marks[0, 5] is State.OPEN
    assert marks[0, CHUNK] is State.DISCARDED


# digests -------------------------------------------------------------------------------------------------------------


def test_many_digests_are_told_apart_and_known_by_their_first_place_in_little_memory() -> None:
    seen, chance = Seen(), random.Random(4)
    digests = [chance.getrandbits(64) for _ in range(200_000)] + [0, 2**64 - 1]
    assert all(seen.first(digest, (number % 7, number)) is None for number, digest in enumerate(digests))
    assert len(seen._last) < 70_000
    for number in [*chance.sample(range(len(digests)), 2_000), 200_000, 200_001]:
        assert seen.first(digests[number], (9, 9)) == (number % 7, number)
    assert seen.first(1, (0, 2**48 - 1)) is None
    assert seen.first(1, (0, 0)) == (0, 2**48 - 1)


# selection -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW_MS - 90_000),
        ("15m", NOW_MS - 900_000),
        ("2h", NOW_MS - 7_200_000),
        ("7d", NOW_MS - 604_800_000),
        ("2023-11-14T22:13:20Z", NOW_MS),
        ("2023-11-14T22:13:20", NOW_MS),
        ("2023-11-14T23:13:20+01:00", NOW_MS),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert parse_time(text, NOW_MS) == expected


@pytest.mark.parametrize("text", ["", "2w", "h", "-1h", "yesterday", "1.5h", "0000-01-01", "٣h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="neither a time"):
        parse_time(text, NOW_MS)


def test_all_that_is_given_must_hold() -> None:
    found = letter(("model-key", b"m"))
    assert Selection().matches(found)
    assert Selection(("bad-body", "bad-input"), ("m",), NOW_MS, NOW_MS + 1, ("jobs/1/2",)).matches(found)
    assert Selection(positions=("dead/0/0",)).matches(found)
    for other in (
        Selection(("bad-body",)),
        Selection(models=("n",)),
        Selection(since_ms=NOW_MS + 1),
        Selection(until_ms=NOW_MS),
        Selection(positions=("dead/0/1",)),
    ):
        assert not other.matches(found)


# verdicts ------------------------------------------------------------------------------------------------------------

RULES = Rules(Command.REPLAY, Selection(), State.OPEN, max_replays=3, record_limit=10_000, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("found", "state", "duplicate", "verdict"),
    [
        (letter(), State.OPEN, False, Verdict.DUE),
        (letter(), State.REPLAYED, False, Verdict.HANDLED),
        (letter(), State.DISCARDED, False, Verdict.HANDLED),
        (letter(), State.OPEN, True, Verdict.DUPLICATE),
        (letter(value=b"x" * 9_990), State.OPEN, False, Verdict.TRUNCATED),
        (letter(value=b"x" * 9_950, limit=20_000), State.OPEN, False, Verdict.TOO_LARGE),
        (letter(("dlq-replays", b"2")), State.OPEN, False, Verdict.DUE),
        (letter(("dlq-replays", b"3")), State.OPEN, False, Verdict.TOO_OFTEN),
        (letter(("expires-at", b"%d" % NOW_MS)), State.OPEN, False, Verdict.DUE),
        (letter(("expires-at", b"%d" % (NOW_MS - 1))), State.OPEN, False, Verdict.WOULD_EXPIRE),
    ],
)
def test_what_may_be_replayed(found: Letter, state: State, duplicate: bool, verdict: Verdict) -> None:
    assert RULES.judge(found, state, duplicate=duplicate) is verdict
    discard = replace(RULES, command=Command.DISCARD)
    expected = Verdict.DUPLICATE if duplicate else Verdict.DUE if state is State.OPEN else Verdict.HANDLED
    assert discard.judge(found, state, duplicate=duplicate) is expected
    assert replace(RULES, selection=Selection(models=("n",))).judge(found, state, duplicate=duplicate) is Verdict.OTHER


def test_where_discarded_ones_are_asked_for_open_ones_are_not_meant() -> None:
    taken_back = replace(RULES, wanted=State.DISCARDED)
    verdicts = [taken_back.judge(letter(), state, duplicate=False) for state in State]
    assert verdicts == [Verdict.OTHER, Verdict.HANDLED, Verdict.DUE]


# counts and runs -----------------------------------------------------------------------------------------------------


def test_made_up_models_do_not_fill_the_memory() -> None:
    census, plan = Census(Selection(), samples=1), Plan()
    for number in range(MAX_GROUPS + 50):
        found = Found(letter(("model-key", b"m%d" % number)), State.OPEN)
        census.add(found)
        plan.add(found, Verdict.DUE, ())
    assert len(census.groups) == len(plan.due) == MAX_GROUPS + 1
    assert census.total(State.OPEN) == plan.due.total() == MAX_GROUPS + 50
    assert plan.due["bad-input", OTHERS] == 50


def test_samples_do_not_keep_the_bodies_of_jobs() -> None:
    census = Census(Selection(), samples=3)
    tracemalloc.start()
    try:
        for number in range(50):
            headers = (("model-key", b"m%d" % number), ("note", bytes(500_000)))
            census.add(Found(letter(*headers, value=bytes(1_000_000), limit=2_000_000), State.OPEN))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1_000_000
    assert census.groups["bad-input", "m7"].samples[0].position == "dead/0/0"


# deletion ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Topic:
    """A topic in place of the Reader that reads one."""

    partitions: Sequence[Sequence[Record]]

    def bounds(self, topic: str, partitions: int) -> tuple[dict[int, int], dict[int, int]]:
        numbers = range(partitions)
        return dict.fromkeys(numbers, 0), {number: len(self.partitions[number]) for number in numbers}

    def read(self, topic: str, partition: int, begin: int, end: int) -> Iterator[list[Record]]:
        for found in self.partitions[partition][begin:end]:
            yield [found]


def delete(
    monkeypatch: pytest.MonkeyPatch, marks: Marks, *partitions: Sequence[Record]
) -> tuple[dict[int, int], list[Stray]]:
    """What is deleted, as the offset before which, by partition; and what keeps the rest."""
    upto: dict[int, int] = {}
    monkeypatch.setattr(
        deletion, "_delete", lambda _, given: upto.update({place.partition: given[place] for place in given})
    )
    place = Place("dead", "id", len(partitions), 1, "dead.handled", exists=True)
    deleted = delete_handled(load(None), cast("Reader", Topic(partitions)), place, marks)
    assert deleted.offsets == sum(upto.values())
    return upto, list(deleted.kept_by)


def handled(*offsets: int, partition: int = 0) -> Marks:
    marks = Marks()
    for offset in offsets:
        marks.set(partition, offset, State.REPLAYED)
    return marks


def jobs(*numbers: int, partition: int = 0) -> list[Record]:
    return [record(job=f"jobs/0/{number}", partition=partition, offset=offset) for offset, number in enumerate(numbers)]


def test_what_is_handled_is_deleted_up_to_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    assert delete(monkeypatch, handled(0, 1, 3), jobs(1, 2, 3, 4), jobs(9, partition=1)) == ({0: 2}, [])
    assert delete(monkeypatch, handled(0, 1), jobs(1, 2)) == ({0: 2}, [])


def test_the_first_stays_as_long_as_a_duplicate_is_not_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert delete(monkeypatch, handled(0, 1, 2), jobs(1, 2, 3, 2)) == ({0: 1}, [])
    assert delete(monkeypatch, handled(0, 1, 2, 3), jobs(1, 2, 3, 2)) == ({0: 4}, [])
    elsewhere = jobs(2, partition=1)  # the topic was given more partitions meanwhile
    assert delete(monkeypatch, handled(0, 1, 2), jobs(1, 2, 3), elsewhere) == ({0: 1}, [])


def test_what_is_no_dead_letter_stays_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, third = jobs(1, 2, 3)
    foreign = Record(None, b"junk", [], offset=1)
    damaged = Record(None, None, Unopened(Failure(Reason.BAD_HEADER, Stage.DECODE, "why")), offset=1)
    stray = Stray("dead", 0, 1, readable=True)
    assert delete(monkeypatch, handled(0, 2), [first, foreign, third]) == ({0: 1}, [stray])
    assert delete(monkeypatch, handled(0, 2), [first, damaged, third]) == ({0: 1}, [replace(stray, readable=False)])
    assert delete(monkeypatch, Marks(), [first, foreign, third]) == ({}, [])


# runs ----------------------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_after_its_way_through_json() -> None:
    asked = {"command": "replay", "since": "2h", "reason": ["bad-body"]}
    run = Run("me", asked, Selection(("bad-body",), since_ms=5, positions=("a/0/1",)), {0: 7, 11: 0}, 3, done=2)
    assert Run.from_json(run.to_json(), 12) == run


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"nonsense", b'{"owner": 1}', b"[" * 100_000, b"\xff"])
def test_what_is_no_run_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        Run.from_json(text, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": None},
        {"asked": "text"},
        {"selection": {"reasons": "bad-body"}},
        {"ends": {"77": 5}},
        {"ends": {"x": 5}},
        {"ends": {"0": -1}},
        {"ends": [1]},
        {"began_ms": float("inf")},
        {"done": float("inf")},
        {"done": "1"},
    ],
    ids=json.dumps,
)
def test_what_is_like_a_run_is_refused(wrong: dict[str, Any]) -> None:
    document = asdict(Run("me", {"command": "replay"}, Selection(), {0: 1}, 3))
    Run.from_json(json.dumps(document).encode(), 1)
    with pytest.raises(ValueError):
        Run.from_json(json.dumps(document | wrong).encode(), 1)
