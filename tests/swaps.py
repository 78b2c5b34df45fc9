"""Versions of one model swapped in while its jobs flow: some are corrupt, some are withdrawn once they serve."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests import models_zoo as zoo
from tests.replica import Replica
from tests.stream import Answer, Stream

MODEL = "plus"
SWAP_S = 60.0
Kind = Literal["good", "corrupt", "withdrawn"]


def build(root: Path, count: int) -> list[Path]:
    """Folders of versions 1 to `count`: each adds its number to the sum of a row."""
    return [zoo.put(zoo.dense(bias=version), root, "built", version, "keras") for version in range(1, count + 1)]


@dataclass
class Swaps:
    """What was done to the store, and what the consumer said it served from then on.

    `marks`: (jobs published, number of swaps said) at the moments when the consumer had said so: a job published after
    it is answered by that version or one served later.
    """

    store: Path
    process: Replica
    stream: Stream
    marks: list[tuple[int, int]] = field(default_factory=list)

    def swap(self, folder: Path, version: int, kind: Kind) -> None:
        """Put a version into the store and wait for what has to become of it."""
        if kind == "corrupt":
            zoo.publish(folder, self.store, MODEL, version, torn=True)
            self._until(lambda: version in [event["version"] for event in self.process.events("load failed")])
            return
        before = self.served[-1]
        target = zoo.publish(folder, self.store, MODEL, version)
        self._until(lambda: self.served[-1] == version)
        if kind == "withdrawn":
            target.rename(self.store / f".withdrawn-{version}")
            self._until(lambda: self.served[-1] == before)

    @property
    def served(self) -> list[int]:
        """The versions that answered jobs that name none, in the order that the consumer said so."""
        return [event["version"] for event in self.process.events("served")]

    def _until(self, condition: Any) -> None:
        for _ in range(int(SWAP_S / 0.05)):
            self.stream.collect()  # waits up to 50 ms
            if condition():
                self.marks.append((self.stream.published, len(self.served)))
                return
        raise AssertionError(f"not within {SWAP_S:g} s; the log ends with {self.process.events()[-3:]}")


def problems(stream: Stream, served: Sequence[int], marks: Sequence[tuple[int, int]]) -> list[str]:
    """What is wrong with the answers, given what the consumer said it served; none if all is well."""
    found = []
    missing = [number for number in range(stream.published) if number not in stream.answers]
    if missing:
        found.append(f"{len(missing)} jobs without an answer, the first is {missing[0]}")
    twice = [number for number, times in stream.times.items() if times > 1]
    if twice:
        found.append(f"{len(twice)} jobs answered twice, though nothing was killed")
    dead = [answer for answer in stream.answers.values() if answer.version is None]
    if dead:
        found.append(f"{len(dead)} dead letters, the first: {dead[0].reason}")
    in_order = sorted((answer for answer in stream.answers.values() if answer.version), key=lambda one: one.source)
    for partition in {answer.source[0] for answer in in_order}:
        found += _invalid([one for one in in_order if one.source[0] == partition], served, marks)
    found += _disorder(stream)
    return found


def _invalid(answers: Sequence[Answer], served: Sequence[int], marks: Sequence[tuple[int, int]]) -> list[str]:
    """Walk through what was served along with the jobs of one partition: a job may move on, but never back."""
    at, mark = 0, 0
    for answer in answers:
        while mark < len(marks) and answer.number >= marks[mark][0]:
            at = max(at, marks[mark][1] - 1)
            mark += 1
        while at < len(served) and served[at] != answer.version:
            at += 1
        if at == len(served):
            return [f"job {answer.number} was answered by version {answer.version}, which was not served then"]
    return []


def _disorder(stream: Stream) -> list[str]:
    last: dict[tuple[int, int, int | None], int] = {}
    for answer in stream.answers.values():  # in the order of their outcomes' partitions
        lane = (answer.partition, answer.source[0], answer.version)
        if answer.source[1] < last.get(lane, -1):
            return [f"job {answer.number} of version {answer.version} came out after a later one"]
        last[lane] = answer.source[1]
    return []
