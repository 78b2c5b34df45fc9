"""When reading stops and goes on."""

from consumer.delivery.pressure import Pressure


def test_pressure_rises_at_the_bound_and_falls_at_half_of_it() -> None:
    pressure = Pressure(10)
    assert [pressure.high(level) for level in (9, 10, 6, 5, 9, 10)] == [False, True, True, False, False, True]


def test_a_bound_of_one() -> None:
    pressure = Pressure(1)
    assert [pressure.high(level) for level in (0, 1, 1, 0)] == [False, True, True, False]
