"""Deletes what was handled, as far as Kafka can: what comes before some offset of each partition."""

from collections.abc import Mapping
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.errors import AuthorizationError, KafkaError

from consumer.dead_letters.journal import Place
from consumer.dead_letters.judge import Found, Stray, every
from consumer.dead_letters.marks import Marks, State
from consumer.dead_letters.reader import Reader
from consumer.delivery.connection import admin
from consumer.exits import Exit, FatalError
from consumer.settings import Settings


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many offsets were freed, and what is no dead letter and so keeps all that comes after it."""

    offsets: int
    kept_by: tuple[Stray, ...]


def delete_handled(settings: Settings, reader: Reader, place: Place, marks: Marks) -> Deleted:
    """Delete, in each partition, all before the first record that has to stay. FatalError."""
    begins, ends = reader.bounds(place.topic, place.partitions)
    upto, strays = dict(ends), dict[int, Stray]()
    for piece in every(reader, place.topic, begins, ends, marks):
        for found in piece:
            for partition, offset in _staying(found, marks):
                upto[partition] = min(upto[partition], offset)
            if isinstance(found, Stray):
                strays.setdefault(found.partition, found)
    freed = {partition: offset - begins[partition] for partition, offset in upto.items() if offset > begins[partition]}
    if freed:
        _delete(settings, {TopicPartition(place.topic, partition): upto[partition] for partition in freed})
    return Deleted(
        offsets=sum(freed.values()),
        kept_by=tuple(stray for partition, stray in strays.items() if stray.offset == upto[partition]),
    )


def _staying(found: Found | Stray, marks: Marks) -> list[tuple[int, int]]:
    """The places that must not be deleted, by what is known of this record."""
    if isinstance(found, Stray):
        return [(found.partition, found.offset)]  # whoever wrote it may need it
    staying = [found.letter.place] if found.state is State.OPEN else []
    # Without its first a duplicate would pass for a job that nobody has handled.
    if found.first is not None and found.state is not marks[found.first]:
        staying.append(found.first)
    return staying


def _delete(settings: Settings, upto: Mapping[TopicPartition, int]) -> None:
    topic = settings.dead_letters_topic
    with admin(settings) as client:
        try:
            client.delete_records(dict(upto), timeout_ms=10_000)
        except AuthorizationError:
            raise FatalError(
                Exit.REFUSED, f"{topic}: discarded, but the broker does not let this user delete records"
            ) from None
        except KafkaError as error:
            what = f"{topic}: discarded, but its records were not deleted: {type(error).__name__}"
            raise FatalError(Exit.UNAVAILABLE, what) from None
