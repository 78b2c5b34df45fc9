"""What a dead-letters topic holds, and one of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from consumer.dead_letters import journal
from consumer.dead_letters.journal import Run
from consumer.dead_letters.judge import Found, Stray, every
from consumer.dead_letters.letter import Letter, read_letter
from consumer.dead_letters.marks import State
from consumer.dead_letters.reader import Reader
from consumer.dead_letters.selection import Selection
from consumer.dead_letters.survey import Census
from consumer.exits import Exit, FatalError
from consumer.settings import Settings
from schemas.headers import parse_position
from schemas.messages import Position
from schemas.reasons import RefusedError


@dataclass(frozen=True, slots=True)
class Listing:
    """The census of a topic, and the run of a replay or discard that is not finished; `no_run` says where a record
    stands for it that is none."""

    topic: str
    census: Census
    unfinished: Run | None
    no_run: str | None


def take_census(settings: Settings, selection: Selection, samples: int, read: Callable[[int], None]) -> Listing:
    """Count a selection; `read` is told how many records were read. FatalError."""
    place = journal.find(settings)
    census, number = Census(selection, samples), 0
    with Reader(settings) as reader:
        kept = journal.read(reader, place)
        begins, ends = reader.bounds(place.topic, place.partitions)
        for piece in every(reader, place.topic, begins, ends, kept.marks):
            for found in piece:
                census.add(found)
            number += len(piece)
            read(number)
    return Listing(place.topic, census, kept.run, kept.no_run)


def find_letter(settings: Settings, text: str, read: Callable[[int], None]) -> tuple[Letter, State]:
    """The dead letter at this position, or the first of the job at this position.

    Raises:
        FatalError: not a position (64), or nothing there (1).
    """
    try:
        position = parse_position(text.encode())
    except (RefusedError, UnicodeEncodeError):
        raise FatalError(Exit.USAGE, f"{text[:300]}: a position is topic/partition/offset") from None
    place = journal.find(settings)
    with Reader(settings) as reader:
        kept = journal.read(reader, place)
        begins, ends = reader.bounds(place.topic, place.partitions)
        if position.topic == place.topic:
            letter = _at(reader, position, begins, ends)
        else:
            letter = _of_job(position, every(reader, place.topic, begins, ends, kept.marks), read)
    if letter is None:
        raise FatalError(
            Exit.FAILED, f"{text}: no dead letter there, nor one of a job there; `loadonce dlq list` shows positions"
        )
    return letter, kept.marks[letter.place]


def _at(reader: Reader, position: Position, begins: dict[int, int], ends: dict[int, int]) -> Letter | None:
    partition, offset = position.partition, position.offset
    if not begins.get(partition, 0) <= offset < ends.get(partition, 0):
        return None
    for records in reader.read(position.topic, partition, offset, offset + 1):
        for record in records:
            return read_letter(record) if record.offset == offset else None
    return None


def _of_job(position: Position, pieces: Iterator[list[Found | Stray]], read: Callable[[int], None]) -> Letter | None:
    number = 0
    for piece in pieces:
        for found in piece:
            if isinstance(found, Found) and found.letter.dead.position == position:
                return found.letter
        number += len(piece)
        read(number)
    return None
