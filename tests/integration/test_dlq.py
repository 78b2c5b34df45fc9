"""`loadonce dlq` on a real broker: listed, shown, replayed once whatever is killed, discarded."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from confluent_kafka import Producer

from consumer.cli import main
from consumer.demo.processes import environment
from consumer.local import LocalKafka
from schemas.reasons import Reason
from tests.commands import TIMEOUT_S, loadonce
from tests.conftest import Topics, fresh_topics
from tests.dead_letters import FAILED_AT_MS, Dead, committed, write

Dlq = Callable[..., Any]

# A `loadonce` that SIGKILL ends before or after it has asked the broker to commit its Nth transaction.
KILLED = """
import os, signal, sys
from kafka import KafkaProducer
commit, moment, left = KafkaProducer.commit_transaction, sys.argv[1], [int(sys.argv[2])]
def die(producer):
    left[0] -= 1
    if left[0] == 0 and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    commit(producer)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
KafkaProducer.commit_transaction = die
from consumer.cli import main
sys.exit(main(sys.argv[3:]))
"""

# One whose Nth transaction fails although it was committed: the answer was lost on its way.
UNCERTAIN = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "raise KafkaTimeoutError('lost')").replace(
    "from kafka import KafkaProducer", "from kafka import KafkaProducer\nfrom kafka.errors import KafkaTimeoutError"
)


@pytest.fixture
def options(kafka: LocalKafka, topics: Topics) -> dict[str, str]:
    return {
        "BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "JOBS_TOPIC": topics.jobs,
        "PREDICTIONS_TOPIC": topics.predictions,
        "DEAD_LETTERS_TOPIC": topics.dead_letters,
    }


@pytest.fixture
def dlq(options: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Dlq:
    """Run a command in this process, which is to end with `code`; what it prints with --json."""
    for name in list(os.environ):
        if name.startswith("LOADONCE_"):
            monkeypatch.delenv(name)
    for name, value in options.items():
        monkeypatch.setenv(f"LOADONCE_{name}", value)

    def run(*arguments: str, code: int = 0) -> Any:
        ended = main(["dlq", *arguments, "--json"])
        out, err = capfd.readouterr()
        assert ended == code, err
        return json.loads(out) if out else None

    return run


def altered(program: str, options: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `loadonce dlq` by one of the programs above."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(options),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def stray(kafka: LocalKafka, topic: str, key: bytes, value: bytes | None) -> None:
    """Write a record that is none of loadonce's."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, value, key, partition=0)
    assert producer.flush(10) == 0


def values(kafka: LocalKafka, topics: Topics) -> list[bytes]:
    return [message.value() for message in committed(kafka, topics.jobs)]


def numbered(count: int, **common: Any) -> list[Dead]:
    return [Dead(number, partition=number % 2, value=b"%d" % number, **common) for number in range(count)]


def test_what_there_is_by_reason_and_model_and_time(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    write(kafka, topics, numbered(30))
    write(kafka, topics, [Dead(100 + n, Reason.BAD_BODY, "digits", failed_at_ms=FAILED_AT_MS + n) for n in range(5)])

    everything = dlq("list", "--samples", "2")
    one = dlq("list", "--reason", "bad-body", "--since", "2023-11-14T22:13:20.002Z", "--until", "1h")

    assert {(each["reason"], each["model"]): each["open"] for each in everything["groups"]} == {
        ("bad-body", "digits"): 5,
        ("model-unavailable", "wine"): 30,
    }
    assert [len(each["samples"]) for each in everything["groups"]] == [2, 2]
    assert (one["open"], one["groups"][0]["first_failed_at"]) == (3, FAILED_AT_MS + 2)
    assert dlq("list", "--model", "wine", "--until", "2023-11-14T22:13:20Z")["open"] == 0


def test_what_is_no_dead_letter_is_counted_and_left(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topics.dead_letters, b"what is this", headers=[("dlq-reason", b"boredom")], partition=1)
    assert producer.flush(10) == 0
    write(kafka, topics, numbered(3))

    assert (dlq("list")["open"], dlq("list")["foreign"]) == (3, 1)
    assert dlq("replay", "--all", "--yes")["done"] == 3
    assert sorted(values(kafka, topics)) == [b"0", b"1", b"2"]


def test_show_describes_the_body_and_gives_it_on_request(
    kafka: LocalKafka, topics: Topics, dlq: Dlq, options: dict[str, str]
) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [41.5, 42.5]}
    body = msgpack.packb({"inputs": [tensor]})
    write(kafka, topics, [Dead(7), Dead(8, value=body, key=b"\x1b[31m", headers=(("note", b"a\nb"),), partition=1)])

    by_itself = dlq("show", f"{topics.dead_letters}/1/0")
    by_its_job = dlq("show", f"{topics.jobs}/1/8", "--payload")
    bytes_alone = loadonce("dlq", "show", f"{topics.jobs}/0/7", "--payload", options=options)
    for_a_person = loadonce("dlq", "show", f"{topics.dead_letters}/1/0", options=options)

    assert by_itself["body"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 2]}]
    assert ["note", "a\nb"] in by_itself["headers"]
    assert "value" not in by_itself
    assert "41.5" not in json.dumps(by_itself)
    assert base64.b64decode(by_its_job.pop("value")) == body
    assert by_its_job == by_itself
    assert bytes_alone.stdout == "body"
    assert "header note" in for_a_person.stdout
    assert "\x1b" not in for_a_person.stdout
    for nowhere in (f"{topics.dead_letters}/1/1", f"{topics.dead_letters}/9/0", f"{topics.jobs}/0/9"):
        dlq("show", nowhere, code=1)
    dlq("show", "nowhere", code=64)


def test_nothing_is_done_without_yes(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    write(kafka, topics, numbered(5))

    for command in ("replay", "discard"):
        assert dlq(command, "--all", "--dry-run")["due"] == 5
        said = dlq(command, "--all", code=1)
        assert (said["due"], said["done"]) == (5, None)
        dlq(command, code=64)
        dlq(command, "--all", "--yes", "--dry-run", code=64)
    assert dlq("list")["open"] == 5
    assert values(kafka, topics) == []


def test_a_job_goes_back_as_it_came(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    odd = (("correlation-id", b"\xff\x00"), ("correlation-id", b"2"), ("empty", b""), ("dlq-replays", b"1"))
    write(
        kafka,
        topics,
        [
            Dead(0, partition=1, key=b"a", value=b"\x00\xff", headers=odd),
            Dead(1, partition=1, key=b"a", value=None),
            Dead(2, partition=1, key=None, value=b""),
            Dead(3, partition=7, key=b"a", value=b"from a partition that is no more"),
            Dead(4, partition=0, key=b"a", value=b"from another topic", topic="elsewhere"),
        ],
    )

    assert dlq("replay", "--all", "--yes")["done"] == 5
    jobs = committed(kafka, topics.jobs)

    found = {job.value(): job for job in jobs}
    first = found[b"\x00\xff"]
    assert (first.key(), first.partition()) == (b"a", 1)
    assert first.headers() == [
        ("model-key", b"wine"),
        ("correlation-id", b"\xff\x00"),
        ("correlation-id", b"2"),
        ("empty", b""),
        ("dlq-replays", b"2"),
    ]
    assert (found[None].key(), found[None].partition()) == (b"a", 1)
    assert (found[b""].key(), found[b""].partition()) == (None, 1)
    assert first.offset() < found[None].offset() < found[b""].offset()
    by_key = {found[value].partition() for value in found if value and value.startswith(b"from")}
    assert len(by_key) == 1  # murmur2 of the key, as nothing better is known


def test_what_cannot_be_replayed_is_left_alone_and_said(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    write(
        kafka,
        topics,
        [
            Dead(0, value=b"x" * 2_000, limit=1_000),
            Dead(1, headers=(("dlq-replays", b"3"),)),
            Dead(2, headers=(("expires-at", b"1000"),)),
            Dead(3, value=b"x" * 999_700, limit=1_048_588),
            Dead(4, value=b"once"),
            Dead(4, value=b"once"),  # at-least-once delivery wrote it again
            Dead(5, value=b"more often", headers=(("dlq-replays", b"2"),)),
        ],
    )

    plan = dlq("replay", "--all", "--dry-run")
    done = dlq("replay", "--all", "--yes")

    assert plan["left_alone"] == {"truncated": 1, "too-often": 1, "would-expire": 1, "duplicate": 1}
    assert (plan["due"], done["done"]) == (3, 3)
    assert values(kafka, topics).count(b"once") == 1
    assert dlq("replay", "--all", "--yes", "--max-replays", "4")["done"] == 1
    assert (dlq("list")["open"], dlq("list")["twice"]) == (2, 1)
    assert dlq("replay", "--all", "--yes")["done"] == 0
    assert len(values(kafka, topics)) == 4


def test_only_what_is_selected(kafka: LocalKafka, topics: Topics, dlq: Dlq, options: dict[str, str]) -> None:
    write(kafka, topics, numbered(6))
    write(kafka, topics, [Dead(10 + n, Reason.INFERENCE_FAILED, "digits", value=b"digit %d" % n) for n in range(4)])

    assert dlq("replay", "--model", "digits", "--limit", "2", "--yes")["done"] == 2
    one, another = f"{topics.dead_letters}/0/0", f"{topics.jobs}/1/3"
    gone = f"{topics.dead_letters}/0/999"
    done = dlq("replay", "--position", one, "--position", another, "--position", gone, "--yes", code=1)
    nothing = loadonce("dlq", "replay", "--position", gone, "--position", one, "--yes", options=options)

    assert (done["done"], done["missing_positions"]) == (2, [gone])
    assert nothing.returncode == 1
    assert nothing.stderr.splitlines()[-1].endswith(
        f"no dead letter at {gone}, nor of a job there; 0 others were replayed"
    )
    assert sorted(values(kafka, topics)) == [b"0", b"3", b"digit 0", b"digit 1"]


def test_discarded_is_no_longer_open_and_can_be_taken_back(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    write(kafka, topics, numbered(10))

    assert dlq("discard", "--position", f"{topics.jobs}/1/1", "--yes")["done"] == 1
    assert dlq("replay", "--all", "--yes")["done"] == 9
    assert dlq("replay", "--all", "--yes")["done"] == 0
    listed = dlq("list")
    assert (listed["open"], listed["replayed"], listed["discarded"]) == (0, 9, 1)
    assert dlq("show", f"{topics.jobs}/1/1")["state"] == "discarded"
    assert dlq("replay", "--all", "--discarded", "--yes")["done"] == 1
    assert sorted(map(int, values(kafka, topics))) == list(range(10))


def test_records_are_deleted_up_to_the_first_open_one(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    write(kafka, topics, [Dead(n, Reason.BAD_BODY if n < 4 else Reason.POISON) for n in range(6)])

    done = dlq("discard", "--reason", "bad-body", "--delete-records", "--yes")

    assert (done["done"], done["deleted_offsets"]) == (4, 4)
    kept = committed(kafka, topics.dead_letters)
    assert [dict(each.headers())["dlq-reason"] for each in kept] == [b"poison", b"poison"]
    assert dlq("list")["open"] == 2


@pytest.mark.parametrize("limit", [(), ("--limit", "1")], ids=["all", "limit"])
def test_written_twice_goes_back_once_though_the_first_is_deleted(
    limit: tuple[str, ...], kafka: LocalKafka, topics: Topics, dlq: Dlq
) -> None:
    write(kafka, topics, [Dead(12, model="beer"), Dead(10, value=b"ten"), Dead(11, value=b"eleven")])
    write(kafka, topics, [Dead(10, value=b"ten", reason=Reason.POISON)])

    assert (
        dlq("replay", "--model", "wine", "--reason", "model-unavailable", *limit, "--yes")["done"]
        == 2 - len(limit) // 2
    )
    twice = dlq("show", f"{topics.dead_letters}/0/3")["state"]
    deleted = dlq("discard", "--model", "beer", "--delete-records", "--yes")["deleted_offsets"]
    dlq("replay", "--all", "--yes")

    assert (twice, deleted) == ("replayed", 2 if limit else 4)
    assert values(kafka, topics) == [b"ten", b"eleven"]


def test_taken_back_after_it_was_discarded_its_duplicates_follow(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    write(kafka, topics, [Dead(10), Dead(11), Dead(10)])

    assert dlq("discard", "--position", f"{topics.jobs}/0/10", "--yes")["done"] == 1
    assert dlq("show", f"{topics.dead_letters}/0/2")["state"] == "discarded"
    assert dlq("replay", "--all", "--discarded", "--yes")["done"] == 1
    assert dlq("show", f"{topics.dead_letters}/0/2")["state"] == "replayed"
    assert dlq("replay", "--all", "--yes")["left_alone"] == {"handled": 1, "duplicate": 1}


def test_what_is_no_dead_letter_holds_deletion_back_and_is_named(
    kafka: LocalKafka, topics: Topics, dlq: Dlq, options: dict[str, str]
) -> None:
    write(kafka, topics, [Dead(0)])
    stray(kafka, topics.dead_letters, b"", b"junk")
    write(kafka, topics, [Dead(1)])

    done = dlq("discard", "--all", "--delete-records", "--yes")
    again = loadonce("dlq", "discard", "--all", "--delete-records", "--yes", options=options)

    assert done["deleted_offsets"] == 1
    assert done["kept_by"] == [{"position": f"{topics.dead_letters}/0/1", "readable": True}]
    assert f"{topics.dead_letters}/0/1 is no dead letter" in again.stdout


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_in_the_middle_and_run_again_each_job_comes_once(
    moment: str, kafka: LocalKafka, topics: Topics, dlq: Dlq, options: dict[str, str]
) -> None:
    write(kafka, topics, numbered(1_800))
    replay = ("dlq", "replay", "--all", "--yes")

    # Its first transaction is the run, its third the jobs' second.
    killed = altered(KILLED, options, moment, "3", *replay)
    assert killed.returncode == -9, killed.stderr
    # What fails again while the rest waits is another dead letter, and not of this run.
    write(kafka, topics, [Dead(5_000, value=b"5000", headers=(("dlq-replays", b"1"),))])
    interrupted = dlq("list")
    left = dlq("replay", "--all", "--dry-run")
    done = dlq("replay", "--all", "--yes")

    already = 500 if moment == "before" else 1_000
    assert (interrupted["replayed"], interrupted["unfinished"]["done"]) == (already, already)
    assert (left["resumed"], left["done_before"], left["due"]) == (True, already, 1_800 - already)
    assert (done["resumed"], done["done"]) == (True, 1_800 - already)
    jobs = [(message.partition(), int(message.value())) for message in committed(kafka, topics.jobs)]
    assert jobs == [(number % 2, number) for part in (0, 1) for number in range(part, 1_800, 2)]
    assert dlq("list")["unfinished"] is None
    assert dlq("replay", "--all", "--yes")["done"] == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_whose_answer_is_lost_is_looked_up_not_repeated(
    moment: str, kafka: LocalKafka, topics: Topics, options: dict[str, str]
) -> None:
    write(kafka, topics, numbered(1_200))

    done = altered(UNCERTAIN, options, moment, "3", "dlq", "replay", "--all", "--yes", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 1_200
    assert sorted(map(int, values(kafka, topics))) == list(range(1_200))


def test_a_broker_killed_in_the_middle_costs_nothing() -> None:
    with LocalKafka() as kafka:
        topics = fresh_topics(kafka)
        write(kafka, topics, numbered(3_000))
        options = {
            "BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "JOBS_TOPIC": topics.jobs,
            "PREDICTIONS_TOPIC": topics.predictions,
            "DEAD_LETTERS_TOPIC": topics.dead_letters,
        }
        command = [sys.executable, "-m", "consumer", "dlq", "replay", "--all", "--yes", "--rate", "300"]
        env, pipe = environment(options), subprocess.PIPE
        with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as replay:
            try:
                while not values(kafka, topics):
                    assert replay.poll() is None
                kafka.nodes[0].kill()
                kafka.nodes[0].start()
                _, said = replay.communicate(timeout=TIMEOUT_S)
            finally:
                replay.kill()
        assert replay.returncode == 0, said
        assert sorted(map(int, values(kafka, topics))) == list(range(3_000))


def test_who_comes_later_takes_over_and_none_is_replayed_twice(
    kafka: LocalKafka, topics: Topics, options: dict[str, str], dlq: Dlq
) -> None:
    write(kafka, topics, numbered(60))
    command = [sys.executable, "-m", "consumer", "dlq", "replay", "--all", "--yes", "--rate", "5"]
    env, pipe = environment(options), subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as first:
        try:
            while not values(kafka, topics):
                assert first.poll() is None
            done = dlq("replay", "--all", "--yes")
            _, said = first.communicate(timeout=TIMEOUT_S)
        finally:
            first.kill()

    assert done["resumed"]
    assert done["done_before"] + done["done"] == 60
    assert first.returncode == 76
    assert "another replay or discard took over" in said.splitlines()[-1]
    assert sorted(map(int, values(kafka, topics))) == list(range(60))


RUN = {
    "owner": "x",
    "asked": {
        "command": "replay",
        "reason": [],
        "model": [],
        "since": None,
        "until": None,
        "position": [],
        "discarded": False,
        "max_replays": 3,
        "limit": None,
    },
    "selection": {"reasons": [], "models": [], "since_ms": None, "until_ms": None, "positions": []},
    "ends": {"0": 1},
    "began_ms": 1,
    "done": 0,
}


def test_what_others_write_where_a_run_is_kept_stops_nothing(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    write(kafka, topics, numbered(3))
    dlq("replay", "--position", f"{topics.jobs}/0/0", "--yes")
    journal = f"{topics.dead_letters}.handled"
    key = run_key(kafka, topics)

    for wrong in ({"asked": "text"}, {"ends": {"77": 5}}, {"done": float("inf")}):
        stray(kafka, journal, key, json.dumps(RUN | wrong).encode())
        stray(kafka, journal, b"\xff\xfe", b"of a topic that is no more")
        stray(kafka, journal, key.replace(b"/run", b"/junk"), b"of nobody")
        assert dlq("list")["open"] == 2
        assert dlq("replay", "--all", "--dry-run")["due"] == 2
    stray(kafka, journal, key, json.dumps(RUN | {"ends": {"0": 10**9}}).encode())
    beyond = dlq("replay", "--all", "--dry-run")
    assert (beyond["resumed"], beyond["due"]) == (True, 1)
    stray(kafka, journal, key, b"nonsense")
    assert journal in dlq("list")["no_run"]
    assert dlq("replay", "--all", "--yes")["done"] == 2
    assert dlq("list")["no_run"] is None
    last = {each.key(): each.value() for each in committed(kafka, journal)}
    assert {each for each, value in last.items() if value is not None} == {
        key.replace(b"/run", b"/0/0"),
        key.replace(b"/run", b"/1/0"),
    }


def test_damaged_marks_stop_it_until_they_are_forgotten(
    kafka: LocalKafka, topics: Topics, dlq: Dlq, options: dict[str, str]
) -> None:
    write(kafka, topics, numbered(3))
    assert dlq("replay", "--all", "--yes")["done"] == 3
    journal = f"{topics.dead_letters}.handled"
    key = run_key(kafka, topics).replace(b"/run", b"/0/0")
    stray(kafka, journal, key, b"junk")

    for command in (["list"], ["replay", "--all", "--yes"]):
        ended = loadonce("dlq", *command, options=options)
        assert ended.returncode == 65
        said = ended.stderr.splitlines()[-1]
        assert f"write the key {key.decode()} without a value, and the dead letters 0/0 to 0/8191 are open" in said
    stray(kafka, journal, key, None)
    listed = dlq("list")

    assert (listed["open"], listed["replayed"]) == (2, 1)
    assert "65 " in loadonce("dlq", "list", "--help").stdout


def run_key(kafka: LocalKafka, topics: Topics) -> bytes:
    """The key of the run in what a replay left behind."""
    keys: set[bytes] = {each.key() for each in committed(kafka, f"{topics.dead_letters}.handled")}
    return next(key for key in keys if key.endswith(b"/run"))


def test_marks_of_a_topic_that_was_deleted_hide_nothing(kafka: LocalKafka, topics: Topics, dlq: Dlq) -> None:
    from kafka import KafkaAdminClient

    from tests.conftest import create_topics
    from tests.replica import until

    write(kafka, topics, numbered(4))
    assert dlq("replay", "--all", "--yes")["done"] == 4
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    try:
        admin.delete_topics([topics.dead_letters])
        until(lambda: topics.dead_letters not in admin.list_topics(), 30, "the topic's deletion")
    finally:
        admin.close()
    create_topics(kafka, topics.dead_letters)
    write(kafka, topics, [Dead(n, value=b"new") for n in range(3)])

    assert dlq("list")["open"] == 3
    assert dlq("replay", "--all", "--yes")["done"] == 3


def test_without_topics_it_says_so(kafka: LocalKafka, options: dict[str, str]) -> None:
    nowhere = options | {"DEAD_LETTERS_TOPIC": "no-such-topic"}

    for command in (["list"], ["replay", "--all", "--yes"]):
        done = loadonce("dlq", *command, options=nowhere)
        assert done.returncode == 69
        assert "LOADONCE_DEAD_LETTERS_TOPIC=no-such-topic" in done.stderr.splitlines()[-1]
