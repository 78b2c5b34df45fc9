"""What TensorFlow says of a call."""

from enum import IntEnum
from typing import Any

from consumer.models.engine.library import Library


class Code(IntEnum):
    """TF_Code of tensorflow/c/tf_status.h, defined by TSL_Code in xla/tsl/c/tsl_status.h."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def _missing_(cls, _value: object) -> "Code":
        return cls.UNKNOWN


_PASSING = frozenset(
    {
        Code.ABORTED,
        Code.CANCELLED,
        Code.DEADLINE_EXCEEDED,
        Code.PERMISSION_DENIED,
        Code.RESOURCE_EXHAUSTED,
        Code.UNAVAILABLE,
    }
)


class EngineError(Exception):
    """TensorFlow refused or failed. `message` may quote data and paths: what leaves the process is `kind`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def kind(self) -> str:
        """Such as `InvalidArgument`."""
        return "".join(word.capitalize() for word in self.code.name.split("_"))

    @property
    def passing(self) -> bool:
        """Whether trying again may help."""
        return self.code in _PASSING


def check(lib: Library, status: Any) -> None:
    """EngineError unless the TF_Status is OK."""
    code = lib.get_code(status)
    if code:
        raise EngineError(Code(code), (lib.message(status) or b"").decode(errors="replace"))
