"""What `loadonce dlq` is made of, without a broker."""

import random
import tracemalloc
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters.journal import Run
from consumer.dead_letters.judge import Command, Found, Rules, Verdict
from consumer.dead_letters.letter import Letter, read_letter
from consumer.dead_letters.marks import CHUNK, Marks, State
from consumer.dead_letters.seen import Seen
from consumer.dead_letters.selection import Selection, parse_time
from consumer.dead_letters.survey import MAX_GROUPS, OTHERS, Census, Plan
from consumer.delivery.dead_letters import dead_letter
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


def letter(
    *headers: tuple[str, bytes], value: bytes = b"body", offset: int = 0, limit: int = 10_000, job: str = "jobs/1/2"
) -> Letter:
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
    found = read_letter(Record(*dead, offset=offset))
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


def test_a_million_digests_are_told_apart_in_little_memory() -> None:
    seen, chance = Seen(), random.Random(4)
    digests = [chance.getrandbits(64) for _ in range(200_000)] + [0, 2**64 - 1]
    assert all(seen.add(digest) for digest in digests)
    assert len(seen._last) < 70_000
    assert not any(seen.add(digest) for digest in chance.sample(digests, 2_000))
    assert seen.add(1)


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
    assert discard.judge(found, state, duplicate=duplicate) is (Verdict.DUE if state is State.OPEN else Verdict.HANDLED)
    assert replace(RULES, selection=Selection(models=("n",))).judge(found, state, duplicate=duplicate) is Verdict.OTHER


# counts and runs -----------------------------------------------------------------------------------------------------


def test_made_up_models_do_not_fill_the_memory() -> None:
    census, plan = Census(Selection(), samples=1), Plan()
    for number in range(MAX_GROUPS + 50):
        found = Found(letter(("model-key", b"m%d" % number)), State.OPEN, duplicate=False)
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
            census.add(Found(letter(*headers, value=bytes(1_000_000), limit=2_000_000), State.OPEN, duplicate=False))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1_000_000
    assert census.groups["bad-input", "m7"].samples[0].position == "dead/0/0"


def test_a_run_is_the_same_after_its_way_through_json() -> None:
    asked = {"command": "replay", "since": "2h", "reason": ["bad-body"]}
    run = Run("me", asked, Selection(("bad-body",), since_ms=5, positions=("a/0/1",)), {0: 7, 11: 0}, 3, done=2)
    assert Run.from_json(run.to_json()) == run


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"nonsense", b'{"owner": 1}', b"[" * 100_000])
def test_what_is_no_run_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        Run.from_json(text)
