"""What the tests of the three systems share."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from consumer.local import LocalKafka
from tests import models_zoo as zoo
from tests.conftest import Topics
from tests.world import World

VERSIONS = 4


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders of versions: each answers FP32 [rows, 4] with the row's sum and its own number."""
    root = tmp_path_factory.mktemp("built")
    return {number: zoo.put(zoo.dense(bias=number), root, "plus", number, "keras") for number in range(1, VERSIONS + 1)}


@pytest.fixture
def world(kafka: LocalKafka, topics: Topics, built: dict[int, Path], tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(kafka, topics, built, tmp_path, stack)
