"""How long jobs wait for what the store does not have: until a look that begins after they asked, or two."""

import pytest

from consumer.models.policy import Policies
from consumer.models.store import Catalog, ModelEntry
from consumer.models.waits import LOOK_TIMEOUT_S, Waits, What
from schemas.reasons import Failure, Reason

FILES = (("model.keras", 1, 1, 1),)
COPYING = ModelEntry({}, {"stable": 1}, {1: FILES})
STUCK = ModelEntry({}, {"stable": 1}, {1: FILES}, stuck=frozenset({1}))
ASKED: list[What] = [("m", 1, None), ("m", None, "stable"), ("m", None, None)]


class Looks:
    """Looks that are asked for, and take place when told to."""

    def __init__(self, policy: str = "latest") -> None:
        self.number = 0
        self.asked = 0
        self.time = 0.0
        self.waits = Waits(self._ask, lambda: self.time, Policies.parse([policy]))

    def _ask(self) -> int:
        self.asked += 1
        return self.number + 1

    def take(self, **models: ModelEntry) -> set[str]:
        """The keys that the next look has an answer for."""
        self.number += 1
        changed: set[str] = set()
        self.waits.looked(self.number, Catalog(models), changed)
        return changed

    def told(self, what: What) -> Failure:
        failure = self.waits.absent(what)
        assert failure is not None
        return failure


@pytest.mark.parametrize("what", ASKED)
def test_a_version_that_is_being_copied_is_waited_for_one_look_more(what: What) -> None:
    looks = Looks()
    assert looks.waits.absent(what) is None
    assert looks.take(m=COPYING) == set()
    assert looks.asked == 2
    assert looks.take(m=COPYING) == {"m"}
    assert looks.told(what).reason is Reason.UNKNOWN_VERSION


@pytest.mark.parametrize("policy", ["latest", "pinned:1", "stable"])
@pytest.mark.parametrize("what", ASKED)
def test_a_version_whose_files_do_not_come_is_not_waited_for(what: What, policy: str) -> None:
    looks = Looks(policy)
    assert looks.waits.absent(what) is None
    assert looks.take(m=STUCK) == {"m"}
    assert looks.asked == 1
    failure = looks.told(what)
    assert failure.reason is Reason.UNKNOWN_VERSION
    if what != ("m", None, None):
        assert failure.message == "the store does not have all files of version 1 of model 'm' yet"


def test_a_copy_of_another_version_is_not_waited_for() -> None:
    looks = Looks()
    assert looks.waits.absent(("m", 2, None)) is None
    assert looks.take(m=COPYING) == {"m"}
    assert looks.told(("m", 2, None)).message == "model 'm' has no version 2"


def test_a_store_that_does_not_answer_is_given_up() -> None:
    looks = Looks()
    assert looks.waits.absent(("m", 1, None)) is None
    changed: set[str] = set()
    looks.waits.expire(LOOK_TIMEOUT_S - 1, changed)
    assert not changed
    looks.waits.expire(LOOK_TIMEOUT_S, changed)
    assert changed == {"m"}
    assert looks.told(("m", 1, None)).reason is Reason.MODEL_UNAVAILABLE
