"""The topic beside the dead letters that says what has become of each, and which run is not finished.

`<dead letters>.handled`, compacted, one partition. Keys begin with the id of the dead-letters topic: marks of a topic
that was deleted and made anew are of no dead letter that is there.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from kafka.errors import AuthorizationError, KafkaError, TopicAlreadyExistsError
from pydantic import NonNegativeInt, TypeAdapter

from consumer.dead_letters.marks import Marks
from consumer.dead_letters.reader import Reader
from consumer.dead_letters.selection import Selection
from consumer.delivery.connection import admin
from consumer.exits import Exit, FatalError
from consumer.settings import Settings, named
from schemas.headers import Unopened

SUFFIX = ".handled"
LONGEST_NAME = 249  # org.apache.kafka.common.internals.Topic
_RUN = "run"
_CONFIGS = {
    "cleanup.policy": "compact",
    # The segment that is being written is not compacted: 1 GiB by default, all of which would be read each time.
    "segment.bytes": str(16 * 1024**2),
}


@dataclass(frozen=True, slots=True)
class Place:
    """The dead-letters topic as the broker has it, and its journal."""

    topic: str
    topic_id: str
    partitions: int
    replication_factor: int
    journal: str
    exists: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A replay or discard that has begun: the command again goes on with it.

    `asked` is what it was called with; `selection` and `ends` (where each partition ended) are what that meant then,
    so that what has come since, its own jobs that failed again among it, is left out. `owner` is the process that
    works on it.
    """

    owner: str
    asked: Mapping[str, Any]
    selection: Selection
    ends: Mapping[NonNegativeInt, NonNegativeInt]
    began_ms: NonNegativeInt
    done: NonNegativeInt = 0

    def to_json(self) -> bytes:
        """As a record holds it."""
        ends = {str(partition): end for partition, end in self.ends.items()}
        return json.dumps(asdict(self) | {"ends": ends}).encode()

    @classmethod
    def from_json(cls, text: bytes, partitions: int) -> Self:
        """What `to_json` wrote, of a topic with so many partitions. ValueError."""
        run = TypeAdapter(cls).validate_json(text, strict=True)
        if not run.ends.keys() <= set(range(partitions)):
            raise ValueError("a partition that the dead letters do not have")
        return run

    def with_done(self, done: int) -> "Run":
        """It again, so far."""
        return replace(self, done=done)


@dataclass(frozen=True, slots=True)
class Journal:
    """What the topic holds: the marks, the run that is not finished, and keys that mean nothing here, as those of
    other dead-letters topics. `no_run` says where a record stands for the run that is none."""

    marks: Marks
    run: Run | None
    no_run: str | None
    stale: frozenset[bytes]


def find(settings: Settings) -> Place:
    """The dead-letters topic, whether it has a journal or not. FatalError (69, 77, 78)."""
    topic = settings.dead_letters_topic
    journal = topic + SUFFIX
    if len(journal) > LONGEST_NAME:
        raise FatalError(
            Exit.CONFIG,
            f"{named(settings, 'dead_letters_topic')}: with {SUFFIX}, where is kept what was handled, the name is "
            f"longer than {LONGEST_NAME}; choose a shorter one",
        )
    with admin(settings) as client:
        described = {each["name"]: each for each in client.describe_topics([topic, journal])}
    found = described.get(topic, {"error_code": 3, "partitions": ()})
    if found["error_code"] == 29:  # TOPIC_AUTHORIZATION_FAILED
        raise FatalError(
            Exit.REFUSED, f"{named(settings, 'dead_letters_topic')}: the broker does not let this user see it"
        )
    if found["error_code"] or not found["partitions"]:
        raise FatalError(
            Exit.UNAVAILABLE,
            f"{named(settings, 'dead_letters_topic')}: no such topic on the broker; `loadonce topics create` makes it",
        )
    beside = described.get(journal, {"error_code": 3, "partitions": ()})
    if beside["error_code"] == 29:
        raise FatalError(
            Exit.REFUSED, f"topic {journal}, where is kept what was handled: the broker does not let this user see it"
        )
    return Place(
        topic=topic,
        topic_id=str(found.get("topic_id") or ""),
        partitions=len(found["partitions"]),
        replication_factor=len(found["partitions"][0]["replica_nodes"]),
        journal=journal,
        exists=not beside["error_code"] and bool(beside["partitions"]),
    )


def create(settings: Settings, place: Place) -> None:
    """Create the journal, as well replicated as the dead letters are. FatalError (69, 77)."""
    wanted = {"num_partitions": 1, "replication_factor": place.replication_factor, "configs": _CONFIGS}
    with admin(settings) as client:
        try:
            client.create_topics({place.journal: wanted}, timeout_ms=10_000, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            return
        except AuthorizationError:
            raise FatalError(
                Exit.REFUSED,
                f"topic {place.journal}, where is kept what was handled: the broker does not let this user create it; "
                "create it with one partition and cleanup.policy=compact",
            ) from None
        except KafkaError as error:
            raise FatalError(Exit.UNAVAILABLE, f"topic {place.journal}: not created: {error}") from None


def read(reader: Reader, place: Place) -> Journal:
    """The journal as it is now. FatalError; (65) where it is damaged, and a dead letter could be handled twice."""
    prefix = f"{place.topic_id}/".encode()
    marks, run, no_run, stale = Marks(), None, None, set[bytes]()
    for key, (offset, value) in _last(reader, place, prefix).items():
        name = key.removeprefix(prefix).decode(errors="replace")
        if key == prefix + _RUN.encode():
            try:
                run = Run.from_json(value, place.partitions)
            except ValueError:
                no_run = f"{place.journal}/0/{offset}"
        elif key.startswith(prefix) and Marks.has_key(name):
            try:
                marks.load(name, value)
            except ValueError as error:
                remedy = f"write the key {key.decode()} without a value, and {Marks.meaning(name)} are open again"
                raise _damaged(place, f"{error}, at offset {offset}", remedy) from None
        else:
            stale.add(key)
    return Journal(marks, run, no_run, frozenset(stale))


def _last(reader: Reader, place: Place, prefix: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Offset and value of what each key holds at last: what was replaced or deleted is nothing to look at. Of keys
    that begin otherwise, the value is left out."""
    last: dict[bytes, tuple[int, bytes]] = {}
    if not place.exists:
        return last
    begins, ends = reader.bounds(place.journal, 1)
    for records in reader.read(place.journal, 0, begins[0], ends[0]):
        for record in records:
            if isinstance(record.headers, Unopened):
                # Whatever it said: going on without it could handle a dead letter twice.
                remedy = "if it stays so, delete the topic, and all dead letters are open again"
                raise _damaged(place, "a record cannot be read; it may be damaged on the disk", remedy)
            if record.value is None:
                last.pop(record.key, None)
            elif record.key is not None:  # without a key it is nobody's
                last[record.key] = (record.offset, record.value if record.key.startswith(prefix) else b"")
    return last


def _damaged(place: Place, what: str, remedy: str) -> FatalError:
    return FatalError(Exit.DATA, f"topic {place.journal}, where is kept what was handled: {what}; {remedy}")


def mark_record(place: Place, marks: Marks, key: str) -> tuple[bytes, bytes]:
    """Key and value of the record that keeps the marks of a chunk."""
    return f"{place.topic_id}/{key}".encode(), marks.value(key)


def gone_record(place: Place, key: str) -> tuple[bytes, None]:
    """The record that forgets the marks of a chunk."""
    return f"{place.topic_id}/{key}".encode(), None


def run_record(place: Place, run: Run | None) -> tuple[bytes, bytes | None]:
    """The record that keeps the run, or forgets it."""
    return f"{place.topic_id}/{_RUN}".encode(), run.to_json() if run else None
