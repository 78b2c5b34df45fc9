"""What a member that stood still may believe, told by the client's own record of its heartbeats."""

import pytest
from kafka.coordinator.heartbeat import Heartbeat

from consumer.delivery.attendance import Attendance

SESSION_S = 6.0
GENERATION = ("member", 1)


class Coordinator:
    """As much of kafka-python's as is looked at."""

    def __init__(self) -> None:
        self.heartbeat = Heartbeat()
        self.woken = 0
        self._heartbeat_wakeup = self

    def notify(self) -> None:
        self.woken += 1


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.coordinator = Coordinator()
        self.attendance = Attendance(self.coordinator, SESSION_S, lambda: self.now)

    def sure_after(self, seconds: float, generation: object = GENERATION) -> bool:
        self.now += seconds
        return self.attendance.sure(generation)


@pytest.fixture
def world() -> World:
    world = World()
    assert world.sure_after(0)
    return world


def test_one_that_goes_on_is_sure_whatever_its_heartbeats(world: World) -> None:
    assert all(world.sure_after(SESSION_S) for _ in range(10))
    assert not world.coordinator.woken


def test_one_that_stood_still_is_not_until_a_later_heartbeat_was_answered(world: World) -> None:
    heartbeat = world.coordinator.heartbeat
    heartbeat.last_send = world.now + 5
    assert not world.sure_after(SESSION_S + 1)
    assert world.coordinator.woken == 1
    assert heartbeat.heartbeat_failed
    heartbeat.last_receive = world.now + 0.1  # to one that was sent before it stood still
    assert not world.sure_after(0.2)
    heartbeat.last_send = world.now
    assert not world.sure_after(0.1)
    heartbeat.last_receive = world.now
    assert world.sure_after(0.1)
    assert world.sure_after(0.1)


def test_a_new_generation_is_as_good(world: World) -> None:
    assert not world.sure_after(SESSION_S + 1)
    assert world.sure_after(0.1, ("member", 2))


def test_a_generation_that_changed_while_it_stood_still_is_not(world: World) -> None:
    assert not world.sure_after(SESSION_S + 1, ("member", 2))
    assert not world.sure_after(0.1, ("member", 2))


def test_each_gap_counts(world: World) -> None:
    assert not world.sure_after(SESSION_S + 1)
    world.coordinator.heartbeat.last_send = world.now + 0.1
    world.coordinator.heartbeat.last_receive = world.now + 0.2
    assert not world.sure_after(SESSION_S + 1)
    assert world.coordinator.woken == 2
