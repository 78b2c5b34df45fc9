"""When to stop reading, and when to go on: a bound with hysteresis, so that partitions do not flap."""


class Pressure:
    """High once the bound is reached, low again at half of it."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._high = False

    def high(self, level: int) -> bool:
        """Whether the pressure is high, now that the level is this."""
        self._high = level > self._bound // 2 if self._high else level >= self._bound
        return self._high
