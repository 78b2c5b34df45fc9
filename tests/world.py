"""A consumer process, a store whose versions can be told apart by their answers, and a client."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from consumer.local import LocalKafka
from schemas import DeadLetter, Job, JobClient, OutcomeReader, Prediction
from tests import models_zoo as zoo
from tests.conftest import Topics
from tests.replica import Replica, options, replica, until

ANSWERS_S = 60.0


class World:
    """What a test says and sees; every job it publishes is counted, and must have one outcome."""

    def __init__(
        self, kafka: LocalKafka, topics: Topics, built: dict[int, Path], folder: Path, stack: ExitStack
    ) -> None:
        self.store = folder / "store"
        self.store.mkdir()
        self.published = 0
        self.outcomes: list[Prediction | DeadLetter] = []
        self._built = built
        self._folder = folder
        self._kafka = kafka
        self._topics = topics
        self._stack = stack
        self._client = stack.enter_context(JobClient(kafka.bootstrap_servers, jobs_topic=topics.jobs))
        self._reader = stack.enter_context(
            OutcomeReader(
                kafka.bootstrap_servers, predictions_topic=topics.predictions, dead_letters_topic=topics.dead_letters
            )
        )

    def start(self, **more: object) -> Replica:
        """A consumer that is ready."""
        given = options(self._kafka, self._topics, self.store, **more)
        return self._stack.enter_context(replica(self._folder / "log", **given)).wait_ready()

    def put(self, model: str, version: int, number: int | None = None) -> Path:
        """Publish a version as `models add` does: in one rename."""
        return zoo.publish(self._built[number or version], self.store, model, version)

    def put_corrupt(self, model: str, version: int) -> Path:
        """Half of a model's file."""
        return zoo.publish(self._built[1], self.store, model, version, torn=True)

    def mend(self, folder: Path, number: int) -> None:
        """Replace a version's file by a whole one."""
        shutil.copy(self._built[number] / "model.keras", folder / ".new")
        (folder / ".new").replace(folder / "model.keras")

    def publish(self, model: str, count: int, **how: Any) -> None:
        """Jobs of one row of zeros."""
        row = np.zeros((1, 4), np.float32)
        for _ in self._client.publish_many(Job(model, row, **how) for _ in range(count)):
            self.published += 1

    def settle(self) -> list[Prediction | DeadLetter]:
        """Wait until all that was published is answered; the outcomes since the last time."""
        before = len(self.outcomes)

        def answered() -> bool:
            self.outcomes += self._reader.poll(0.2)
            return len(self.outcomes) >= self.published

        until(answered, ANSWERS_S, "an outcome for every job")
        assert len({outcome.position for outcome in self.outcomes}) == self.published == len(self.outcomes)
        return self.outcomes[before:]


def versions(outcomes: list[Prediction | DeadLetter]) -> list[int]:
    """Who answered, by what was answered: the number that a version adds must be the one that it says it is."""
    found = []
    for outcome in outcomes:
        assert isinstance(outcome, Prediction), outcome
        [scores] = outcome.response.outputs
        assert scores.array[0, 0] == outcome.model_version
        found.append(outcome.model_version)
    return found
