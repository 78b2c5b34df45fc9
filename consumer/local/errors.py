"""The one error of this folder."""

from consumer.exits import Exit, FatalError


class LocalKafkaError(FatalError):
    """The local broker cannot be provided. The message is one line: cause and remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(Exit.UNAVAILABLE, message)
