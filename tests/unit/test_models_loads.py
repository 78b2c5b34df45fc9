"""Loads that find other files than the look before: how long they wait for the look that will tell more."""

from pathlib import Path
from queue import SimpleQueue

import pytest

from consumer.models.failures import Failures
from consumer.models.loader import LoadDone, Loader
from consumer.models.loads import STALE_LIMIT, Loads
from consumer.models.opening import Opener
from consumer.models.store import Catalog, LocalStore, Located, ModelEntry
from consumer.models.waits import LOOK_TIMEOUT_S
from schemas.reasons import Failure, Reason
from tests import models_zoo as zoo

LOCATED = Located("m", 1, Path("m/1"), (), (("model.keras", 1, 1, 1),), None)
CATALOG = Catalog({"m": ModelEntry({1: LOCATED}, {})})
NEXT_LOOK = 7


@pytest.fixture
def loads(opener: Opener) -> Loads:
    told = zoo.Told()
    loader = Loader(
        SimpleQueue[LoadDone | BaseException]().put,
        LocalStore(Path()),
        opener,
        attempts=1,
        backoff_s=0.01,
        backoff_max_s=0.01,
        events=told,
    )
    return Loads(loader, Failures(10, lambda: 0.0), lambda: NEXT_LOOK, told)


def go_stale(loads: Loads) -> bool:
    """A load ends so; whether its jobs are told."""
    return loads.take(LoadDone(LOCATED, None, None, permanent=False, attempts=1), CATALOG, 0.0)


def test_a_look_that_does_not_come_is_given_up(loads: Loads) -> None:
    assert not go_stale(loads)
    assert loads.load(LOCATED) is None
    assert loads.remind(LOOK_TIMEOUT_S - 1, CATALOG) == []
    assert loads.remind(LOOK_TIMEOUT_S, CATALOG) == ["m"]
    failure = loads.load(LOCATED)
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.MODEL_UNAVAILABLE
    assert loads.loading() == ()


def test_a_look_that_has_come_is_not_waited_for(loads: Loads) -> None:
    go_stale(loads)
    assert loads.follow(CATALOG, NEXT_LOOK) == (set(), {"m"})
    assert loads.remind(LOOK_TIMEOUT_S, CATALOG) == []
    assert loads.load(LOCATED) is None
    assert loads.loading() == (("m", 1),)


def test_a_version_that_went_while_it_was_in_line_begins_anew(loads: Loads) -> None:
    for look in range(STALE_LIMIT - 1):
        assert not go_stale(loads)
        loads.follow(CATALOG, NEXT_LOOK + look)
    loads.load(LOCATED)
    assert loads.follow(Catalog({}), NEXT_LOOK + STALE_LIMIT) == ({"m"}, set())
    assert not go_stale(loads)
    assert not loads.failed()
