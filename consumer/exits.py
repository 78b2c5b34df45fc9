"""Exit codes (BSD sysexits.h, the meanings that fit) and the error that ends the process with one clear line."""

from enum import IntEnum


class Exit(IntEnum):
    """What the exit code of a `loadonce` command says."""

    OK = 0
    FAILED = 1  # the command ran and its answer is no: a check failed, a job became a dead letter
    USAGE = 64  # the command line cannot be understood
    DATA = 65  # a file or standard input holds what cannot be a job
    STORE_MISSING = 66  # the model store, or an input file, is not there
    UNAVAILABLE = 69  # broker, topic or port not available
    SOFTWARE = 70  # a defect of loadonce
    STUCK = 71  # a call, or a model, that does not return: the process has ended itself
    IO = 74  # reading or writing a file failed
    TEMPORARY = 75  # no answer within the time limit; trying again may help
    FENCED = 76  # another process has taken this one's place
    REFUSED = 77  # the broker refuses: authentication or authorization
    CONFIG = 78  # an option or a preloaded model that cannot work


class FatalError(Exception):
    """The process, not a job, cannot go on. The message is one line that names cause, value and remedy."""

    def __init__(self, exit_code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
